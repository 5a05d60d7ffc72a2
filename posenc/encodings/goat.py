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
    look = ("distance", 4)
    title = "a learnt series of cosines and sines of the distance, for each head"
    paper = "Litman and Guo 2026, arXiv:2601.15380; the released code"
    formula = "s + sum_r alpha_r cos(omega_r n) + beta_r sin(omega_r n)"
    relative = True
    linear_form = "wider"

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

    def _waves(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of omega_r p for places p (...): (...,R) each, in float32 at the least."""
        wide = torch.promote_types(self.alpha.dtype, torch.float32)
        steps = torch.arange(self.rank, dtype=torch.float64, device=places.device) / (self.rank - 1)
        angles = places.double()[..., None] * self.base**-steps
        return angles.cos().to(wide), angles.sin().to(wide)

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        cos, sin = self._waves(-distances)
        alpha, beta = self.alpha[context.layer].to(cos.dtype), self.beta[context.layer].to(cos.dtype)
        return alpha @ cos.T + beta @ sin.T

    @property
    def linear_width(self) -> int:
        return self.stack.head_width + 2 * self.rank

    def position_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        """[alpha cos i + beta sin i, alpha sin i - beta cos i] and [cos j, sin j].

        (1 or B, H, L, 2R) and (1 or B, 1, S, 2R); multiplied, they are alpha cos n + beta sin n.
        """
        cos, sin = (x[:, None] for x in self._waves(context.key_positions[..., 0]))
        alpha, beta = (x[context.layer].to(cos.dtype)[:, None] for x in (self.alpha, self.beta))
        asking = slice(context.offset, None)
        cosq, sinq = cos[:, :, asking], sin[:, :, asking]
        queries = torch.cat((alpha * cosq + beta * sinq, alpha * sinq - beta * cosq), dim=-1)
        return queries, torch.cat((cos, sin), dim=-1)
