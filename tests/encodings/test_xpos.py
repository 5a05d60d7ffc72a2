"""xPos, held against torchscale's numbers, and at lengths where its scales are large."""

from __future__ import annotations

import cmath

import pytest
import torch
from goldens import close, context_of, golden, made

from posenc.common.errors import ConfigError, NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_xpos() -> None:
    theirs = golden("xpos")
    encoding = made("xpos", 2)
    context = context_of(encoding, 12)
    queries = encoding.rotate_query(theirs["queries"].double(), context.query_positions, context)
    keys = encoding.rotate_key(theirs["keys"].double(), context.key_positions, context)
    close(queries @ keys.transpose(-1, -2), theirs["dots"], 1e-6)


def test_its_scores_are_the_formula_at_a_great_distance_in_float32() -> None:
    encoding = made("xpos(scale_base=128.0)", 1).float()
    length = 8192  # as far as float32 holds: 64 times the scale's base
    context = context_of(encoding, length)
    q, k = torch.randn(2, 1, 1, length, 8).unbind()
    queries = encoding.rotate_query(q, context.query_positions, context)
    keys = encoding.rotate_key(k, context.key_positions, context)
    for i, j in ((8191, 8191), (8191, 8100), (8000, 7000)):
        wanted = 0.0
        for c in range(4):
            one, other = (complex(*x[0, 0, at, 2 * c : 2 * c + 2].tolist()) for x, at in ((q, i), (k, j)))
            zeta, theta = (2 * c / 8 + 0.4) / 1.4, 10000 ** (-2 * c / 8)
            wanted += (one * other.conjugate() * cmath.exp(1j * (i - j) * theta)).real * zeta ** ((i - j) / 128)
        assert (queries[0, 0, i] @ keys[0, 0, j]).item() == pytest.approx(wanted, abs=1e-5)


def test_beyond_what_float32_holds_it_has_no_answer() -> None:
    encoding = made("xpos", 2)
    assert encoding.why_not_at(32_768) is None
    with pytest.raises(NotPossibleError, match="beyond 32,768 tokens"):
        context_of(encoding, 32_769)
    with pytest.raises(ConfigError, match="scale_base=0"):
        made("xpos(scale_base=0.0)", 2)
