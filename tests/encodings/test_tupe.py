"""TUPE-A and TUPE-R, held against what the authors' own code answers."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, made, parameters
from torch import Tensor

from posenc.api.encoding import Encoding
from posenc.common.errors import ConfigError, NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = {"table": "position_table", "norm_weight": "ln_weight", "norm_bias": "ln_bias", "query_weight": "query_weight",
         "query_bias": "query_bias", "key_weight": "key_weight", "key_bias": "key_bias"}  # fmt: skip


def theirs_in(text: str, file: str) -> tuple[Encoding, dict[str, Tensor]]:
    theirs = golden(file)
    values = {own: theirs[name].double() for own, name in NAMES.items()}
    if "relative_table" in theirs:
        values["relative_table"] = theirs["relative_table"].double()
    return made(text, 2, stack={"causal": False, "max_length": 32}, **values), theirs


@pytest.mark.parametrize("file", ["tupe_a", "tupe_r"])
def test_tupe(file: str) -> None:
    encoding, theirs = theirs_in(file, file)
    cls = torch.zeros(1, 11, dtype=torch.bool)
    cls[0, 0] = True
    x = torch.zeros(1, 2, 11, 8, dtype=torch.float64)
    bias = encoding.score_bias(x, x, context_of(encoding, 11, cls=cls))[0]
    torch.testing.assert_close(bias, theirs["bias"].double(), atol=1e-12, rtol=0)
    assert encoding.score_scale == pytest.approx(16**-0.5)
    plain = encoding.score_bias(x, x, context_of(encoding, 11))[0]
    torch.testing.assert_close(plain[:, 1:, 1:], bias[:, 1:, 1:], atol=1e-12, rtol=0)
    assert (plain[:, 0] - bias[:, 0]).abs().max() > 1e-3  # without CLS nothing is reset


def test_its_table_is_its_limit() -> None:
    encoding, _ = theirs_in("tupe_a", "tupe_a")
    context_of(encoding, 32)
    with pytest.raises(NotPossibleError, match="it has 32 positions, and 33"):
        context_of(encoding, 33)


def test_parameters_and_bad_options() -> None:
    assert parameters("tupe_a") == 65 * 16 + 2 * 16 + 2 * (16 * 16 + 16)
    assert parameters("tupe_r") == parameters("tupe_a") + 33 * 2
    for text in ("tupe_r(buckets=6)", "tupe_r(max_distance=16)"):
        with pytest.raises(ConfigError, match="must be"):
            made(text)
