"""T5's relative position bias (Raffel et al. 2020, section 2.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_


def bucket(distances: Tensor, buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """The bucket of each signed distance key - query, as T5's code defines it (the paper says it in words).

    Both ways, half of the buckets are for keys ahead. Of the rest (n of them), the first n/2 hold one distance
    each; the others widen logarithmically up to `max_distance`, and everything beyond falls into the last.
    """
    if bidirectional:
        buckets //= 2
        ahead = (distances > 0).long() * buckets
        distance = distances.abs()
    else:
        ahead = torch.zeros_like(distances)
        distance = (-distances).clamp_min(0)
    exact = buckets // 2
    # The ratio of logarithms is an integer at some distances (16, 32 and 64 of T5's own setting): float32 may
    # fall just short of it, so float64 and a hair more than the error of two logarithms.
    ratio = (distance.clamp_min(1).double() / exact).log() / math.log(max_distance / exact)
    wide = exact + (ratio * (buckets - exact) + 1e-9).floor().long()
    return ahead + torch.where(distance < exact, distance, wide.clamp_max(buckets - 1))


class T5(Encoding):
    """score + b_h[bucket(key - query)], one table (buckets, H) shared by all layers; none in cross-attention.

    T5 leaves the scores unscaled and folds 1/sqrt(K) into its initialisation. That belongs to T5's
    initialisation, not to its encoding, and is not taken over: scores are scaled as everywhere else.

    Options:
        buckets: 32 in the paper; both ways, half of them for each sign.
        max_distance: distances from here on share a bucket.
    """

    name = "t5"
    look = ("distance", 0)
    title = "a learned bias for each head and bucket of distances"
    paper = "Raffel et al. 2020, arXiv:1910.10683, section 2.1"
    formula = "s + b_h[bucket(n)]"
    relative = True
    shared = True
    linear_form = "band"

    def __init__(self, stack: Stack, *, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(stack)
        if buckets < 4 or buckets % 4:
            raise ValueError(f"buckets={buckets}: must be a multiple of 4")
        if max_distance <= buckets // 2:
            raise ValueError(f"max_distance={max_distance}: must be more than buckets / 2 = {buckets // 2}")
        self.buckets, self.max_distance = buckets, max_distance
        self.table = nn.Parameter(torch.empty(buckets, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        normal_(self.table, self.stack.width**-0.5, generator)  # as T5's code starts it

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        rows = bucket(distances, self.buckets, self.max_distance, bidirectional=not self.stack.causal)
        return self.table[rows].T

    def constant_from(self) -> int:
        """With the paper's buckets 113, both ways 91: from there on all fall into the last."""
        buckets = self.buckets if self.stack.causal else self.buckets // 2
        exact = buckets // 2
        growth = (self.max_distance / exact) ** (1 / (buckets - exact))  # from one logarithmic bucket to the next
        return math.ceil(exact * growth ** (buckets - 1 - exact) - 1e-6)
