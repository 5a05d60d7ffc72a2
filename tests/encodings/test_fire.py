"""FIRE, held against what the authors' own code answers."""

from __future__ import annotations

import pytest
import torch
from goldens import close, context_of, golden, made, parameters

pytestmark = pytest.mark.usefixtures("one_thread")


def test_fire() -> None:
    theirs = golden("fire")
    values = {"c": theirs["c"], "threshold": theirs["L_multiplier"], "inner": theirs["w1"], "inner_bias": theirs["b1"],
              "outer": theirs["w2"], "outer_bias": theirs["b2"]}  # fmt: skip
    encoding = made("fire(length=256.0)", 4)
    with torch.no_grad():
        for name, value in values.items():
            own = encoding.get_parameter(name)[1]
            own.copy_(value.reshape(own.shape))
    x = torch.zeros(1, 4, 14, 8, dtype=torch.float64)
    close(encoding.score_bias(x, x, context_of(encoding, 14))[0], theirs["bias"], 1e-6)


def test_parameters() -> None:
    assert parameters("fire") == 2 * (2 + 2 * 32 + 2 * 32 + 2)
