"""TUPE: positions correlated among themselves, apart from content (Ke et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_, xavier_uniform_
from posenc.encodings.t5 import bucket


class TupeA(Encoding):
    """q_i.k_j / sqrt(2K) + P_i U_q . P_j U_k / sqrt(2K), P a layer norm of a learnt table (equation 8).

    The position term is the same in all layers: it is made once a pass. Where rows have a classification token, its
    term with any other is reset (equation 9), to one learnt value from it and one to it: theta_1 from rows 0 and 1 of
    the table, so that the table has a row more than positions, and position p is row p + 1.
    """

    name = "tupe_a"
    look = ("vectors", 4)
    title = "positions correlated apart from content, the same in all layers"
    paper = "Ke et al. 2021, arXiv:2006.15595, equations 8 and 9"
    formula = "q.k / sqrt(2K) + (P_i U_q).(P_j U_k) / sqrt(2K), P learnt"
    linear_reason = "not built: its position term as features in a wider space, where they say little"

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        size = stack.heads * stack.head_width
        self.table = nn.Parameter(torch.empty(stack.max_length + 1, stack.width))
        self.norm_weight, self.norm_bias = (nn.Parameter(torch.empty(stack.width)) for _ in range(2))
        self.query_weight, self.key_weight = (nn.Parameter(torch.empty(size, stack.width)) for _ in range(2))
        self.query_bias, self.key_bias = (nn.Parameter(torch.empty(size)) for _ in range(2))

    @property
    def max_length(self) -> int | None:
        return self.stack.max_length

    @property
    def score_scale(self) -> float:
        return self.stack.scale(2)

    def initialise(self, generator: torch.Generator) -> None:
        normal_(self.table, 0.02, generator)
        nn.init.ones_(self.norm_weight)
        for weight in (self.query_weight, self.key_weight):
            xavier_uniform_(weight, generator)
        for bias in (self.norm_bias, self.query_bias, self.key_bias):
            nn.init.zeros_(bias)

    def _projected(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Every row of the table, (H, rows, K)."""
        rows = functional.layer_norm(self.table, (self.stack.width,), self.norm_weight, self.norm_bias)
        return functional.linear(rows, weight, bias).unflatten(-1, (self.stack.heads, -1)).transpose(0, 1)

    def _of_positions(self, context: Context) -> Tensor:
        """(B or 1, H, L, S) before any reset, and what a reset puts in its place: to CLS (H,), from CLS (H,)."""
        asked = self._projected(self.query_weight, self.query_bias)
        keyed = self._projected(self.key_weight, self.key_bias)
        rows, columns = context.query_positions[..., 0] + 1, context.key_positions[..., 0] + 1
        queries, keys = asked[:, rows].transpose(0, 1), keyed[:, columns].transpose(0, 1)  # (B or 1, H, any, K)
        found = queries @ keys.transpose(-1, -2) * self.score_scale
        from_cls, to_cls = (asked[:, :2] * keyed[:, :2]).sum(-1).T * self.score_scale
        return self._reset(found, to_cls, from_cls, context)

    @staticmethod
    def _reset(found: Tensor, to_cls: Tensor, from_cls: Tensor, context: Context) -> Tensor:
        if context.cls is None:
            return found
        key, query = context.cls[:, None, None, :], context.cls[:, None, context.offset :, None]
        found = torch.where(key, to_cls[:, None, None], found)
        return torch.where(query, from_cls[:, None, None], found)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        wide = torch.promote_types(queries.dtype, torch.float32)
        bias: Tensor = context.once(self, ("bias", wide), lambda: self._of_positions(context).to(wide))
        return bias


class TupeR(TupeA):
    """TUPE-A and T5's bias by buckets of the distance, 32 both ways (equation 10), with two more for CLS.

    The bias to a classification token has a row of its own behind the buckets; that from it shares the bucket of a key
    just ahead by nothing, which no distance falls into. So the released code.

    Options:
        buckets, max_distance: as T5's.
    """

    name = "tupe_r"
    look = ("vectors", 5)
    title = "TUPE-A with a learnt bias for each head and bucket of distances"
    paper = "Ke et al. 2021, arXiv:2006.15595, equation 10; the released code"
    formula = "TUPE-A + b_h[bucket(n)]"

    def __init__(self, stack: Stack, *, buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__(stack)
        if buckets < 4 or buckets % 4:
            raise ValueError(f"buckets={buckets}: must be a multiple of 4")
        if max_distance <= buckets // 2:
            raise ValueError(f"max_distance={max_distance}: must be more than buckets / 2 = {buckets // 2}")
        self.buckets, self.max_distance = buckets, max_distance
        self.relative_table = nn.Parameter(torch.empty(buckets + 1, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        normal_(self.relative_table, 0.02, generator)

    def _of_positions(self, context: Context) -> Tensor:
        away = context.key_positions[:, None, :, 0] - context.query_positions[:, :, None, 0]
        table = self.relative_table
        biases = table[bucket(away, self.buckets, self.max_distance, True)].permute(0, 3, 1, 2)
        biases = self._reset(biases, table[self.buckets], table[self.buckets // 2], context)
        return super()._of_positions(context) + biases
