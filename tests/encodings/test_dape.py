"""DAPE and DAPE V2, held against what the authors' own code answers."""

from __future__ import annotations

import pytest
import torch
from goldens import close, context_of, golden, made, parameters

from posenc.api import registry
from posenc.common.errors import NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("text", "file"), [("dape(bias=kerple)", "dape_kerple"), ("dape_v2", "dape_v2_kerple")])
def test_dape(text: str, file: str) -> None:
    theirs = golden(file)
    values = {"inner_encoding.r1": theirs["r1"], "inner_encoding.r2": theirs["r2"], "first": theirs["w1"],
              "second": theirs["w2"], "first_bias": theirs["b1"], "second_bias": theirs["b2"]}  # fmt: skip
    encoding = made(text, 4, **values)
    x = torch.zeros(2, 4, 14, 8, dtype=torch.float64)
    close(encoding.change_scores(theirs["scores_in"], x, x, context_of(encoding, 14)), theirs["scores"], 1e-12)


def test_dape_adapts_a_bias_by_distance_and_nothing_else() -> None:
    for bias in ("rope", "shaw", "none", "t5+rope", "layers(t5, alibi, every=2)"):
        with pytest.raises(NotPossibleError, match="dape adapts a bias by distance"):
            made(f"dape(bias={bias})", 4)
    assert made("dape(bias=t5)", 4).directions == {"causal", "bidirectional"}
    assert registry.describe("dape(bias=kerple)")["name"] == "dape"
    assert registry.describe("dape(bias=kerple(power=True))") == {
        "name": "dape(bias=kerple(power=True))", "version": "1(1)", "package": registry.describe("rope")["package"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "count"),
    [("dape", 8 + 2 * (32 * 4 + 32 + 2 * 32 + 2)), ("dape_v2", 8 + 2 * (32 * 4 * 3 + 32 + 2 * 32 * 3 + 2))],
)
def test_parameters(text: str, count: int) -> None:
    assert parameters(text) == count
