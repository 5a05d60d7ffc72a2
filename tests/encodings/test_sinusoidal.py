"""Sinusoidal encodings against their equations, written out."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import Shifted, context_of, randn, stack_of

from posenc.api.composite import Composite
from posenc.encodings.sinusoidal import Sinusoidal

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("width", "base", "scale"), [(16, 10000.0, 1.0), (6, 500.0, 0.3), (512, 10000.0, 1.0)])
def test_sinusoidal_adds_the_papers_sines_and_cosines(width: int, base: float, scale: float) -> None:
    encoding = Sinusoidal(stack_of(width=width, head_width=width // 2), base=base, scale=scale)
    x = randn(2, 20, width)
    out = encoding.embed(x, context_of(encoding, 20).query_positions, context_of(encoding, 20))
    for p in range(20):
        for i in range(width // 2):
            angle = p / base ** (2 * i / width)
            for b in range(2):
                assert out[b, p, 2 * i].item() == pytest.approx(
                    x[b, p, 2 * i].item() + scale * math.sin(angle), abs=1e-12
                )
                assert out[b, p, 2 * i + 1].item() == pytest.approx(
                    x[b, p, 2 * i + 1].item() + scale * math.cos(angle), abs=1e-12
                )


def test_sinusoidal_is_exact_at_far_positions_in_float32() -> None:
    parts = Composite(stack_of(), [Shifted(stack_of(), by=100_000), Sinusoidal(stack_of())])
    context = context_of(parts, 3)
    out = parts.embed(torch.zeros(1, 3, 16), context.query_positions, context)
    assert out.dtype == torch.float32
    for p in range(3):
        for i in range(8):
            angle = (100_000 + p) / 10000 ** (2 * i / 16)
            assert out[0, p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert out[0, p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoidal_refuses_an_odd_width() -> None:
    with pytest.raises(ValueError, match="odd"):
        Sinusoidal(stack_of(width=15, heads=1, head_width=15))
