"""Encodings against those of the library x-transformers, with weights copied and drawn anew on each run."""

from __future__ import annotations

import pytest
import torch
from goldens import by_distance, context_of, made, seen
from torch import Tensor

peer = pytest.importorskip(
    "x_transformers.x_transformers", reason="the peer x-transformers is not installed: nox -s oracles"
)
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

HEADS, WIDTH, LENGTH = 3, 8, 23


def drawn(seed: int) -> tuple[Tensor, Tensor, torch.Generator]:
    """Queries and keys in float64, and the generator that drew them."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, 2, HEADS, LENGTH, WIDTH, generator=generator, dtype=torch.float64)
    return queries, keys, generator


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 20])
def test_alibi(heads: int) -> None:
    theirs = peer.AlibiPositionalBias(heads)(LENGTH, LENGTH)
    torch.testing.assert_close(by_distance(made("alibi", heads), LENGTH), theirs.float(), atol=1e-5, rtol=0)


def test_cope(fresh_seed: int) -> None:
    queries, keys, generator = drawn(fresh_seed)
    table = torch.randn(WIDTH, 12, generator=generator, dtype=torch.float64)
    theirs = peer.CoPE(WIDTH, HEADS, 12).double()
    theirs.pos_emb.data = table.T.contiguous()
    scores = queries @ keys.transpose(-1, -2) * WIDTH**-0.5
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    # It is asked after causal masking, where the gates of what is hidden are 0.
    wanted = scores + theirs(queries, scores.masked_fill(hidden, -torch.finfo(torch.float64).max))
    encoding = made("cope(positions=12)", HEADS, WIDTH, table=table)
    found = encoding.change_scores(scores, queries, keys, context_of(encoding, LENGTH))
    torch.testing.assert_close(seen(found), seen(wanted), atol=1e-12, rtol=0)


def test_fox(fresh_seed: int) -> None:
    """Theirs is called data-dependent ALiBi."""
    generator = torch.Generator().manual_seed(fresh_seed)
    hidden = torch.randn(2, LENGTH, HEADS * WIDTH, generator=generator, dtype=torch.float64)
    theirs = peer.DataDependentAlibi(HEADS * WIDTH, HEADS).double()
    linear = theirs.to_forget_gates[0]
    linear.weight.data.normal_(generator=generator)
    linear.bias.data.normal_(generator=generator)
    encoding = made("fox", HEADS, WIDTH, weight=linear.weight.data, bias=linear.bias.data)
    context = context_of(encoding, LENGTH)
    context.hidden = hidden
    queries, keys, _ = drawn(fresh_seed)
    found = encoding.score_bias(queries, keys, context)
    torch.testing.assert_close(seen(found), seen(theirs(hidden)), atol=1e-11, rtol=0)


def test_pope(fresh_seed: int) -> None:
    """Theirs works in float32."""
    queries, keys, generator = drawn(fresh_seed)
    theirs = peer.PolarEmbedding(WIDTH, HEADS)
    theirs.learned_bias.data.uniform_(-7.0, 1.0, generator=generator)  # beyond what is kept, on either side
    freqs, bias = theirs(torch.arange(LENGTH))
    wanted = peer.apply_polar_pos_emb(queries, freqs) @ peer.apply_polar_pos_emb(keys, freqs + bias).transpose(-1, -2)
    encoding = made("pope", HEADS, WIDTH, delta=theirs.learned_bias.data[:, 0])
    context = context_of(encoding, LENGTH)
    found = encoding.rotate_query(queries, context.query_positions, context)
    found = found @ encoding.rotate_key(keys, context.key_positions, context).transpose(-1, -2)
    torch.testing.assert_close(found, wanted.double(), atol=2e-5, rtol=0)


def test_xpos(fresh_seed: int) -> None:
    """Theirs works in float32, and counts the scale from the middle of the row, which cancels."""
    queries, keys, _ = drawn(fresh_seed)
    freqs, scale = peer.RotaryEmbedding(WIDTH, use_xpos=True, scale_base=64)(torch.arange(LENGTH))
    wanted = peer.apply_rotary_pos_emb(queries, freqs, scale)
    wanted = wanted @ peer.apply_rotary_pos_emb(keys, freqs, scale**-1).transpose(-1, -2)
    encoding = made("xpos(scale_base=64.0)", HEADS, WIDTH)
    context = context_of(encoding, LENGTH)
    found = encoding.rotate_query(queries, context.query_positions, context)
    found = found @ encoding.rotate_key(keys, context.key_positions, context).transpose(-1, -2)
    torch.testing.assert_close(seen(found), seen(wanted), atol=5e-5, rtol=0)
