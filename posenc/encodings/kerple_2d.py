"""KERPLE on two axes: a learnt penalty that grows with the distance of two patches in the plane."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context
from posenc.api.stack import Stack
from posenc.encodings.alibi_2d import ByDistance
from posenc.encodings.kerple import penalty, start


class Kerple2d(ByDistance):
    """score - r1 log(1 + r2 |p_i - p_j|), or with `power` score - r1 |p_i - p_j|^r2, by the distance in the plane.

    r1 and r2 are learnt, for each head and layer; they start and are bounded as Kerple's. It is Kerple taken to the
    plane; no published form of it was found. Both kernels stay conditionally positive definite, the paper's condition,
    with the Euclidean distance, and the logarithm with the sum over axes too. A power of that sum is so up to r2 = 1
    alone, which is its bound there.

    Coordinates are (row, column), counted from 0 in steps of a patch. A CLS token has no place: it sees all and is
    seen without a penalty.

    Options:
        power: the power form; else the logarithmic one.
        manhattan: the sum over both axes in place of the Euclidean distance.
    """

    name = "kerple_2d"
    look = ("distance", 7)
    title = "a learnt penalty that grows with the logarithm, or a power, of the distance in the plane"
    paper = "after Chi et al. 2022, arXiv:2205.09921, equations 4 and 5, in the plane"
    formula = "s - r1 log(1 + r2 |p_i - p_j|)"
    linear_reason = "not built: a distance in the plane is no sum of decays along the axes"
    by_layer = True

    def __init__(self, stack: Stack, *, power: bool = False, manhattan: bool = False) -> None:
        super().__init__(stack, manhattan)
        self.power = power
        self.r1 = nn.Parameter(torch.empty(stack.layers, stack.heads))
        self.r2 = nn.Parameter(torch.empty(stack.layers, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        start(self.r1, self.r2, generator)

    def penalty(self, away: Tensor, context: Context) -> Tensor:
        away = away.to(torch.promote_types(self.r1.dtype, away.dtype))
        r1, r2 = (parameter[context.layer][:, None, None] for parameter in (self.r1, self.r2))
        return penalty(away, r1, r2, (1.0 if self.manhattan else 2.0) if self.power else None)
