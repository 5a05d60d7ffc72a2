"""GOAT's prior over distances: a learnt series of cosines and sines (Litman and Guo 2026)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack


class Goat(Encoding):
    """score + sum_r alpha_hr cos(omega_r n) + beta_hr sin(omega_r n), n = i - j, omega_r = base^(-r / (R - 1)).

    alpha and beta (H,R) are learnt, each layer's own, and start from 0: at first there is no prior. This is the
    relative part of the paper's prior. Its sink, a bias by key, says nothing of order and is no part of this.

    Options:
        rank: R, how many frequencies; 8 in the released code. base: the slowest is 1 / base.
    """

    name = "goat"
    title = "a learnt series of cosines and sines of the distance, for each head"
    paper = "Litman and Guo 2026, arXiv:2601.15380; the released code"
    formula = "s + sum_r alpha_r cos(omega_r n) + beta_r sin(omega_r n)"
    relative = True
    linear_reason = "not built: its cosines as features in a wider space"

    def __init__(self, stack: Stack, *, rank: int = 8, base: float = 10000.0) -> None:
        super().__init__(stack)
        if rank < 2:
            raise ValueError(f"rank={rank}: must be at least 2")
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        self.rank, self.base = rank, base
        self.alpha = nn.Parameter(torch.empty(stack.layers, stack.heads, rank))
        self.beta = nn.Parameter(torch.empty(stack.layers, stack.heads, rank))

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.alpha)
        nn.init.zeros_(self.beta)

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        wide = torch.promote_types(self.alpha.dtype, torch.float32)
        steps = torch.arange(self.rank, dtype=torch.float64, device=distances.device) / (self.rank - 1)
        angles = self.base ** -steps[:, None] * -distances.double()  # (R,N)
        alpha, beta = self.alpha[context.layer].to(wide), self.beta[context.layer].to(wide)
        return alpha @ angles.cos().to(wide) + beta @ angles.sin().to(wide)
