"""What tests of linear attention draw, and its weights pair by pair: the form that kernels are held against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from posenc.attention.linear.favor import favor_attention, orthogonal_features
from posenc.attention.linear.scales import Rows

FEATURES, WIDTH, HEADS = 32, 16, 3


def drawn(length: int, norm: float, seed: int = 0) -> tuple[dict[str, Tensor], torch.Generator]:
    """Queries and keys of a norm, values and features in float64; and the generator, to go on drawing from."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys, values = torch.randn(3, 2, HEADS, length, WIDTH, generator=generator, dtype=torch.float64)
    queries, keys = (norm * x / x.norm(dim=-1, keepdim=True) for x in (queries, keys))
    features = orthogonal_features(FEATURES, WIDTH, generator)
    return {"queries": queries, "keys": keys, "values": values, "features": features}, generator


def favor(
    queries: Tensor, keys: Tensor, values: Tensor, projection: Tensor, *, scale: float, causal: bool,
    mask: Tensor | None = None, chunk: int = 64, **more: Any,
) -> Tensor:  # fmt: skip
    """FAVOR+ of rows that hold one example each."""
    given = {"scale": scale, "rows": rows(causal, chunk, mask), **more}
    return favor_attention(queries, keys, values, projection, **given)


def rows(causal: bool, chunk: int = 64, mask: Tensor | None = None) -> Rows:
    return Rows(causal=causal, chunk=chunk, mask=mask)


def log_weights(x: dict[str, Tensor]) -> Tensor:
    """log f(q_i).f(k_j) of all pairs, (B,H,L,S)."""
    f, g = (
        x[name] * WIDTH**-0.25 @ x["features"].T - (x[name] * WIDTH**-0.25).square().sum(-1, keepdim=True) / 2
        for name in ("queries", "keys")
    )
    return torch.logsumexp(f[:, :, :, None] + g[:, :, None], dim=-1)


Attended = Callable[[Tensor], Tensor]
"""Queries, keys and values (3,B,H,L,K) to an output (B,H,L,K)."""


def assert_causal_to_the_bit(attended: Attended, x: Tensor, larger: float = 4.0) -> None:
    """Another key and value in the middle move nothing before them, and do move what comes after."""
    whole, t = attended(x), x.shape[3] // 2
    assert whole.isfinite().all()
    x[1:, :, :, t] *= larger
    assert torch.equal(attended(x)[:, :, :t], whole[:, :, :t])
    assert not torch.equal(attended(x)[:, :, t:], whole[:, :, t:])


def assert_blind_to_padding(attended: Callable[..., Tensor], x: Tensor, side: str) -> None:
    """A third of the row hidden: the rest is as alone."""
    length = x.shape[3]
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[:, slice(0, length // 3) if side == "left" else slice(length - length // 3, length)] = False
    found = attended(x, mask)[:, :, mask[0]]
    torch.testing.assert_close(found, attended(x[:, :, :, mask[0]]), atol=1e-12, rtol=0)


def assert_no_later_token_is_read(
    attended: Callable[[dict[str, Tensor]], Tensor], x: dict[str, Tensor], **more: float
) -> None:
    """As `assert_causal_to_the_bit`, of what has names, at three places; `more`: what else changes, by how much."""
    whole, length = attended(x), x["keys"].shape[2]
    for t in {1, length // 2, length - 1}:
        other = {name: value.clone() for name, value in x.items()}
        other["keys"][:, :, t] *= 4  # by far the largest features from here on
        other["values"][:, :, t] += 1
        for name, by in more.items():
            other[name][:, :, t] += by
        assert torch.equal(attended(other)[:, :, :t], whole[:, :, :t])
        assert not torch.equal(attended(other)[:, :, t:], whole[:, :, t:])
