"""Selective RoPE, held against what the authors' own code answers; packed rows and padding."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, halves, made, parameters

from posenc.common.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = {
    "selective_rope": "selective_rope",
    "selective_rope_gate": "selective_rope(gate=True)",
    "selective_rope_no_convolution": "selective_rope_no_convolution",
}


@pytest.mark.parametrize("file", CASES)
def test_selective_rope(file: str) -> None:
    """Their channels stand in halves; angles belong to pairs, in the same order."""
    theirs = golden(file)
    values = {"down": theirs["low_rank_1"], "up": theirs["low_rank_2"], "taps": theirs.get("convolution"),
              "gate_weight": theirs.get("gate_weight"), "gate_bias": theirs.get("gate_bias")}  # fmt: skip
    encoding = made(CASES[file], 2, **{name: value for name, value in values.items() if value is not None})
    context = context_of(encoding, 11, hidden=theirs["hidden"].double())
    for name, hook in (("queries", encoding.rotate_query), ("keys", encoding.rotate_key)):
        found = hook(halves(theirs[name].double()), context.key_positions, context)
        torch.testing.assert_close(found, halves(theirs[f"rotated_{name}"].double()), atol=1e-12, rtol=0)


@pytest.mark.parametrize("text", CASES.values())
def test_a_packed_example_and_a_padded_one_are_turned_among_themselves_as_alone(text: str) -> None:
    encoding = made(text, 2)
    hidden, x = torch.randn(1, 9, 16, dtype=torch.float64), torch.randn(1, 2, 9, 8, dtype=torch.float64)
    segments = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1]])
    mask = segments.bool()
    alone = context_of(encoding, 5, hidden=hidden[:, 4:])

    def dots(context: object, x: torch.Tensor) -> torch.Tensor:
        turned = encoding.rotate_query(x, context.query_positions, context)  # type: ignore
        return turned @ turned.transpose(-1, -2)

    wanted = dots(alone, x[:, :, 4:])
    for more in ({"segments": segments}, {"mask": mask}):
        found = dots(context_of(encoding, 9, hidden=hidden, **more), x)[:, :, 4:, 4:]
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_parameters_and_bad_options() -> None:
    angles = 2 * 4
    assert parameters("selective_rope") == 2 * (16 * 16 + angles * 16 + angles * 4)
    assert parameters("selective_rope_no_convolution(rank=4)") == 2 * (4 * 16 + angles * 4)
    assert parameters("selective_rope(gate=True)") == parameters("selective_rope") + 2 * 2 * (16 + 1)
    with pytest.raises(ConfigError, match="rank=0: must be at least 1"):
        made("selective_rope(rank=0)")
