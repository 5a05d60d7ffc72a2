"""FAVOR+ against performer-pytorch, with its epsilons at 0, in float64 and with fresh features."""

from __future__ import annotations

import pytest
import torch
from linear_twins import favor

from posenc.attention.linear.favor import orthogonal_features

peer = pytest.importorskip(
    "performer_pytorch.performer_pytorch", reason="the peer performer-pytorch is not installed: nox -s oracles"
)
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [2, 37, 130])
def test_favor_is_performer_pytorchs_without_its_epsilons(fresh_seed: int, causal: bool, length: int) -> None:
    generator = torch.Generator().manual_seed(fresh_seed)
    features = orthogonal_features(24, 8, generator)
    given = [torch.randn(2, 3, length, 8, generator=generator, dtype=torch.float64) for _ in range(3)]
    mine, theirs = ([x.clone().requires_grad_() for x in given] for _ in range(2))
    one = favor(*mine, features, scale=8**-0.5, causal=causal, chunk=16)
    query, key = (
        peer.softmax_kernel(x, projection_matrix=features, is_query=is_query, eps=0.0)
        for x, is_query in zip(theirs[:2], (True, False), strict=True)
    )
    if causal:
        other = peer.causal_linear_attention_noncuda(query, key, theirs[2], chunk_size=4, eps=0.0)
    else:
        other = peer.linear_attention(query, key, theirs[2])
    assert (one - other).detach().abs().max() < 1e-12
    direction = torch.randn(one.shape, generator=generator, dtype=torch.float64)
    for output in (one, other):
        (output * direction).sum().backward()
    for own, foreign in zip(mine, theirs, strict=True):
        assert own.grad is not None
        assert foreign.grad is not None
        assert own.grad.abs().max() > 1e-6
        assert (own.grad - foreign.grad).abs().max() < 1e-11
