"""DeBERTa's disentangled attention (He et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.rows import skewed
from posenc.api.stack import Stack
from posenc.api.starts import normal_, xavier_uniform_


class Deberta(Encoding):
    """(q_i.k_j + q_i.PK[c] + k_j.PQ[c]) / sqrt(3K), c = clip(i - j + clip, 0, 2 clip - 1), PK = P W_k, PQ = P W_q.

    Content to content, content to position and position to content (equation 4). P (2 clip, D) is shared by all layers;
    W_k and W_q (D,D) are each layer's own, as in the paper: the later models share them with the content's projections,
    which belong to attention here. The released code takes the same index c for both terms; equation 4 writes
    delta(j, i) in the third. Nothing of size L x S x K is made: products with the rows of PK and PQ in reach, gathered.

    Options:
        clip: the largest distance told apart; 512 in the paper.
    """

    name = "deberta"
    look = ("vectors", 2)
    title = "content and relative position apart: three terms of a score"
    paper = "He et al. 2021, arXiv:2006.03654, equation 4"
    formula = "(q.k + q.PK[c] + k.PQ[c]) / sqrt(3K), c = clip(n + R, 0, 2R - 1)"
    relative = True
    linear_reason = "not possible: its position term depends on the key's content at each distance"

    def __init__(self, stack: Stack, *, clip: int = 512) -> None:
        super().__init__(stack)
        if clip < 1:
            raise ValueError(f"clip={clip}: must be at least 1")
        self.clip = clip
        self.table = nn.Parameter(torch.empty(2 * clip, stack.width))
        size = stack.heads * stack.head_width
        self.key_weight = nn.Parameter(torch.empty(stack.layers, size, stack.width))
        self.query_weight = nn.Parameter(torch.empty(stack.layers, size, stack.width))

    @property
    def score_scale(self) -> float:
        return self.stack.scale(3)

    def initialise(self, generator: torch.Generator) -> None:
        normal_(self.table, 0.02, generator)
        for weights in (self.key_weight, self.query_weight):
            for weight in weights:
                xavier_uniform_(weight, generator)

    def _projected(self, rows: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """(H, K, rows), times the scale: here, and not where there is a number for each pair."""
        projected = nn.functional.linear(rows, weight) * self.score_scale
        return projected.unflatten(-1, (self.stack.heads, -1)).permute(1, 2, 0).to(dtype)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        if context.counted:
            return self._counted(queries, keys, context)
        # Of distances between tokens of one row only those below S are there.
        reach = min(self.clip, context.keys)
        first = self.clip - reach
        rows = self.table[first : self.clip + reach]

        def index() -> Tensor:
            away = context.query_positions[:, :, None, 0] - context.key_positions[:, None, :, 0]
            return (away + self.clip).clamp(0, 2 * self.clip - 1).sub(first).clamp(0, 2 * reach - 1)[:, None]

        where = context.once(self, "index", index)  # (B or 1, 1, L, S)
        keyed = self._projected(rows, self.key_weight[context.layer], queries.dtype)
        asked = self._projected(rows, self.query_weight[context.layer], keys.dtype)
        shape = (*queries.shape[:3], keys.shape[2])
        to_position = (queries @ keyed).gather(-1, where.expand(shape))
        backwards = where.transpose(-1, -2).expand(*shape[:2], shape[3], shape[2])
        from_position = (keys @ asked).gather(-1, backwards).transpose(-1, -2)
        return to_position + from_position

    def _counted(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        """The same where tokens stand at their places: columns by distance are read as columns by token."""
        length, size = queries.shape[2], keys.shape[2]
        ahead = 1 if self.stack.causal else size  # so many distances below 0 have a column; hidden pairs read any

        def found() -> Tensor:
            away = torch.arange(-ahead, size, device=keys.device)
            return (away + self.clip).clamp(0, 2 * self.clip - 1)

        rows = self.table[context.once(self, "rows", found)]  # (ahead + S, D), of n from -ahead on
        keyed = self._projected(rows.flip(0), self.key_weight[context.layer], queries.dtype)
        asked = self._projected(rows, self.query_weight[context.layer], keys.dtype)
        to_position = skewed(queries @ keyed, length - 1, size)
        return to_position + skewed(keys @ asked, context.offset + ahead, length).transpose(-1, -2)
