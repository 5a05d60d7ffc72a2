"""PoPE, held against its published port."""

from __future__ import annotations

import math

import pytest
import torch
from goldens import context_of, golden, made, parameters

from posenc.common.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_pope() -> None:
    theirs = golden("pope")
    encoding = made("pope", 2, delta=theirs["delta"])
    context = context_of(encoding, 12)
    queries = encoding.rotate_query(theirs["queries"], context.query_positions, context)
    keys = encoding.rotate_key(theirs["keys"], context.key_positions, context)
    assert queries.shape[-1] == keys.shape[-1] == 16 and encoding.score_scale == 8**-0.5
    torch.testing.assert_close(queries @ keys.transpose(-1, -2), theirs["dots"], atol=1e-12, rtol=0)


def test_delta_is_kept_between_minus_a_turn_and_zero() -> None:
    encoding = made("pope", 1, delta=torch.tensor([[0.5, -7.0, -1.0] + [0.0] * 5]))
    context = context_of(encoding, 3)
    x = torch.zeros(1, 1, 3, 8, dtype=torch.float64)
    keys = encoding.rotate_key(x, context.key_positions, context)
    angles = [math.atan2(keys[0, 0, 0, 8 + c].item(), keys[0, 0, 0, c].item()) for c in range(3)]
    assert angles == pytest.approx([0.0, 0.0, -1.0], abs=1e-12)  # -2 pi is a whole turn


def test_parameters_and_bad_options() -> None:
    assert parameters("pope") == 2 * 2 * 8
    with pytest.raises(ConfigError, match="more than 1"):
        made("pope(base=1.0)")
