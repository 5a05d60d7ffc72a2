"""`check` of linear attention: its chunks against all pairs, and what it says beside softmax attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldens import context_of, made
from torch import Tensor

from posenc.api.encoding import Context
from posenc.attention.linear.kernel import FORMS
from posenc.encodings.alibi import Alibi
from posenc.encodings.t5 import T5
from posenc.properties.check import measure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "encoding",
    ["none", "rope", "rope_outside", "alibi", "fox", "t5", "pope", "goat", "spe", "cosformer", "permuteformer",
     "xpos_outside", "shaw(clip=3)", "nezha(clip=4)", "sinusoidal+shaw(clip=2, per_head=True)", "sinusoidal+rope",
     "layers(rope, t5, every=2)", "axial_rope"],
)  # fmt: skip
def test_each_form_is_its_weights_of_all_pairs(encoding: str) -> None:
    (found,) = measure(encoding, lengths=(), names=["linear form"])
    assert found.passed is True and "performer" in found.measured, found


class Nearer(T5):
    """Says that its bias is constant from nearer on than it is."""

    def constant_from(self) -> int:
        return 3


class Forgets(Alibi):
    """Decays more in the form by chunks than pair by pair: the decay is not what it was the first time."""

    asked = 0

    def log_decay(self, context: Context) -> Tensor:
        self.asked += 1
        return super().log_decay(context) * self.asked


@pytest.mark.parametrize("lying", [Nearer, Forgets])
def test_one_whose_form_is_another_is_caught(lying: Any, measured: Any) -> None:
    found = measured(lying, "linear form")["linear form"]
    assert found.passed is False and "by chunks it gives something else" in found.why


def test_how_far_a_performer_is_from_softmax_is_told() -> None:
    (plain,), (spe,) = (measure(name, lengths=(), names=["beside softmax"]) for name in ("none", "spe"))
    assert plain.passed and "a kernel of its own" in plain.measured and "says nothing of softmax" in spe.measured
    (alone,) = measure("cosformer", lengths=(), names=["beside softmax"])
    assert alone.passed is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_has_no_weight(side: str) -> None:
    encoding = made("alibi", 2, 8)
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[:, slice(0, 4) if side == "left" else slice(8, 12)] = False
    x = torch.randn(3, 1, 2, 12, 8, dtype=torch.float64)
    kernel = FORMS["decay"](causal=True, width=8, features=16, chunk=4)
    kernel.redraw(1)
    context = context_of(encoding, 12, mask=mask)
    weights = kernel.weights(x[0], x[1], encoding, context)
    assert not weights[..., ~mask[0]].any()
    found = weights @ x[2] / weights.sum(-1, keepdim=True)
    wanted = kernel.attend(*x, encoding, context)
    torch.testing.assert_close(found[:, :, mask[0]], wanted[:, :, mask[0]], atol=1e-12, rtol=0)
