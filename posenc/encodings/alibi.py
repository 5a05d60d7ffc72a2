"""ALiBi: attention with linear biases (Press et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding


def slopes(heads: int, device: torch.device | None = None) -> Tensor:
    """m_h of each head (H,), as the authors' code has them.

    Of a power of two, 2^(-8h/H) for h from 1 on (section 3). Else those of the power of two below, and then every
    second one of twice as many, from the first: what the paper leaves to its code.
    """
    power = 2 ** int(math.log2(heads))
    own = torch.arange(1, power + 1, device=device) * (-8 / power)
    between = torch.arange(1, 2 * (heads - power) + 1, 2, device=device) * (-4 / power)
    return torch.cat((own, between)).exp2()


class Alibi(Encoding):
    """score - m_h |i - j|: a penalty that grows with the distance, by a slope of each head's own, never learnt.

    Added to the scaled scores, not scaled itself. The paper is causal; both ways the penalty is symmetric here, as
    most encoders that use it have it.
    """

    name = "alibi"
    look = ("distance", 1)
    title = "a penalty that grows with the distance, by a fixed slope for each head"
    paper = "Press et al. 2022, arXiv:2108.12409, section 3"
    formula = "s - m_h |n|, m_h = 2^(-8h/H)"
    relative = True
    shared = True
    linear_form = "decay"

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def log_decay(self, context: Context) -> Tensor:
        return -slopes(self.stack.heads, context.device)[None, :, None].expand(1, -1, context.keys)

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return -slopes(self.stack.heads, distances.device)[:, None] * distances.abs()
