"""xPos against the authors' library torchscale, in float64, with queries, keys and options fresh on every run."""

from __future__ import annotations

import random

import pytest
import torch
from goldens import context_of, made
from peers import in_double
from torch import Tensor

peer = pytest.importorskip(
    "torchscale.component.xpos_relative_position",
    reason="the peer torchscale is not installed: pip install --no-deps torchscale, which asks for a timm of 2023",
)
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

HEADS, WIDTH, LENGTH = 3, 8, 23


@pytest.mark.parametrize("cached", [0, 9])
def test_xpos(fresh_seed: int, cached: int) -> None:
    """Theirs counts from the middle of the row, which cancels. Queries alone, after `cached` tokens, see all keys."""
    scale_base = round(10 ** random.Random(fresh_seed).uniform(1.5, 3))
    generator = torch.Generator().manual_seed(fresh_seed)
    queries, keys = torch.randn(2, 2, HEADS, LENGTH, WIDTH, generator=generator, dtype=torch.float64)
    with in_double(peer):
        theirs = peer.XPOS(WIDTH, scale_base)

        def turned(x: Tensor, **how: int) -> Tensor:
            """They hold rows and heads as one dimension."""
            return theirs(x.flatten(0, 1), **how).unflatten(0, (2, HEADS))

        wanted = turned(queries[:, :, cached:], offset=cached) @ turned(keys, downscale=True).transpose(-1, -2)
    encoding = made(f"xpos(scale_base={scale_base})", HEADS, WIDTH)
    context = context_of(encoding, LENGTH)
    found = encoding.rotate_query(queries, context.query_positions, context)
    found = found @ encoding.rotate_key(keys, context.key_positions, context).transpose(-1, -2)
    assert wanted.dtype == torch.float64
    torch.testing.assert_close(found[:, :, cached:], wanted, atol=1e-11, rtol=1e-12)
