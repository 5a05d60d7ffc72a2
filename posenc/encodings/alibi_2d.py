"""ALiBi on two axes: a penalty that grows with the distance of two patches in the plane."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.encodings.alibi import slopes


class ByDistance(Encoding):
    """Base: a bias that follows from the distance of two tokens in the plane; 0 where one of them is a CLS token."""

    axes = 2
    relative = True
    by_layer = False
    """Each layer has a bias of its own."""

    def __init__(self, stack: Stack, manhattan: bool) -> None:
        super().__init__(stack)
        self.manhattan = manhattan

    def penalty(self, away: Tensor, context: Context) -> Tensor:
        """The bias (B or 1, H, L, S) at distances (B or 1, 1, L, S)."""
        raise NotImplementedError

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        dtype = torch.promote_types(queries.dtype, torch.float32)
        if self.by_layer:  # asked for once in each: not kept
            return self._bias(context, dtype)
        return context.once(self, ("bias", dtype), lambda: self._bias(context, dtype))

    def _bias(self, context: Context, dtype: torch.dtype) -> Tensor:
        away = context.once(self, ("away", dtype), lambda: self._away(context).to(dtype))
        bias = self.penalty(away, context)
        if context.cls is None:
            return bias
        outside = context.cls[:, None, context.offset :, None] | context.cls[:, None, None]
        return bias.masked_fill(outside, 0.0)

    def _away(self, context: Context) -> Tensor:
        """Distances of queries and keys: float64 (B or 1, 1, L, S)."""
        # One axis after the other: never a number for each pair and axis.
        apart = zip(context.query_positions.unbind(-1), context.key_positions.unbind(-1), strict=True)
        along = [query.double()[:, None, :, None] - key.double()[:, None, None] for query, key in apart]
        if self.manhattan:
            return torch.stack([each.abs() for each in along]).sum(dim=0)
        return torch.hypot(*along)


class Alibi2d(ByDistance):
    """score - m_h |p_i - p_j|: a penalty that grows with the distance in the plane, by a fixed slope for each head.

    |.| is Euclidean, as in the paper and its code, or the sum over both axes. m_h are ALiBi's slopes. Coordinates are
    (row, column), counted from 0 in steps of a patch. A CLS token has no place: it sees all and is seen without a
    penalty. (The paper's models have none.)

    Options:
        manhattan: the sum over both axes in place of the Euclidean distance.
    """

    name = "alibi_2d"
    look = ("distance", 6)
    title = "a penalty that grows with the distance in the plane, by a fixed slope for each head"
    paper = "Fuller et al. 2023, arXiv:2311.00566, section 3 (2D-ALiBi)"
    formula = "s - m_h |p_i - p_j|, m_h = 2^(-8h/H)"
    linear_reason = "not built: a distance in the plane is no sum of decays along the axes"

    def __init__(self, stack: Stack, *, manhattan: bool = False) -> None:
        super().__init__(stack, manhattan)

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def penalty(self, away: Tensor, context: Context) -> Tensor:
        return -slopes(self.stack.heads, away.device).to(away.dtype)[:, None, None] * away
