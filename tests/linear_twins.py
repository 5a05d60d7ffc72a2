"""What tests of linear attention draw, and its weights pair by pair: the form that kernels are held against."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.attention.linear.favor import orthogonal_features

FEATURES, WIDTH, HEADS = 32, 16, 3


def drawn(length: int, norm: float, seed: int = 0) -> tuple[dict[str, Tensor], torch.Generator]:
    """Queries and keys of a norm, values and features in float64; and the generator, to go on drawing from."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys, values = torch.randn(3, 2, HEADS, length, WIDTH, generator=generator, dtype=torch.float64)
    queries, keys = (norm * x / x.norm(dim=-1, keepdim=True) for x in (queries, keys))
    features = orthogonal_features(FEATURES, WIDTH, generator)
    return {"queries": queries, "keys": keys, "values": values, "features": features}, generator


def log_weights(x: dict[str, Tensor]) -> Tensor:
    """log f(q_i).f(k_j) of all pairs, (B,H,L,S)."""
    f, g = (
        x[name] * WIDTH**-0.25 @ x["features"].T - (x[name] * WIDTH**-0.25).square().sum(-1, keepdim=True) / 2
        for name in ("queries", "keys")
    )
    return torch.logsumexp(f[:, :, :, None] + g[:, :, None], dim=-1)
