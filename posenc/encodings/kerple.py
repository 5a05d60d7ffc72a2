"""KERPLE: kernelised relative positions (Chi et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import uniform_

LEAST = 0.01
"""r1 and r2 are kept at or above this, as in the authors' code."""


def kept(parameter: Tensor, most: float | None = None) -> Tensor:
    """A parameter's value within its bounds, with the gradient of the parameter itself.

    The authors' code writes the bounds into the parameter before each pass; a pass here changes nothing that it reads.
    """
    return parameter + (parameter.clamp(LEAST, most) - parameter).detach()


def start(r1: nn.Parameter, r2: nn.Parameter, generator: torch.Generator) -> None:
    """r1 from U(0, 2), r2 from U(0, 1)."""
    for parameter, half in ((r1, 1.0), (r2, 0.5)):
        uniform_(parameter, half, generator)
        with torch.no_grad():
            parameter.add_(half)


def penalty(away: Tensor, r1: Tensor, r2: Tensor, most: float | None) -> Tensor:
    """The bias at distances `away`: the power form, whose r2 is at most `most`, or without a bound the logarithmic."""
    r1, r2 = kept(r1), kept(r2, most)
    if most is None:
        return -r1 * torch.log1p(r2 * away)
    # 0 to the power of r2 has no gradient in r2 that is a number.
    return -r1 * torch.where(away > 0, away.where(away > 0, 1.0) ** r2, 0.0)


class Kerple(Encoding):
    """score - r1 log(1 + r2 |i - j|), or with `power` score - r1 |i - j|^r2 (equations 4 and 5).

    r1 and r2 are learnt, for each head and layer; they start from U(0, 2) and U(0, 1). With `power`, r2 is at most 2,
    beyond which the kernel is none. The paper is causal; its kernels depend on |i - j| and serve both ways.

    Options:
        power: the power form; else the logarithmic one, which the paper prefers.
    """

    name = "kerple"
    look = ("distance", 2)
    title = "a learnt penalty that grows with the logarithm, or a power, of the distance"
    paper = "Chi et al. 2022, arXiv:2205.09921, equations 4 and 5"
    formula = "s - r1 log(1 + r2 |n|)"
    relative = True
    linear_reason = "not built: its logarithm is a sum of some fifty decays, each with a state of its own"

    def __init__(self, stack: Stack, *, power: bool = False) -> None:
        super().__init__(stack)
        self.power = power
        self.r1 = nn.Parameter(torch.empty(stack.layers, stack.heads))
        self.r2 = nn.Parameter(torch.empty(stack.layers, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        start(self.r1, self.r2, generator)

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        away = distances.abs().to(torch.promote_types(self.r1.dtype, torch.float32))
        r1, r2 = (parameter[context.layer][:, None] for parameter in (self.r1, self.r2))
        return penalty(away, r1, r2, 2.0 if self.power else None)
