"""RoPE-Mixed: RoPE on two axes whose frequencies are learnt, so that a pair may turn along any direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context
from posenc.api.stack import Stack
from posenc.encodings.axial_rope import Planar


class RopeMixed(Planar):
    """Pair c of head h is turned by y f_y + x f_x, f learnt for each layer, head and pair.

    Coordinates are (row y, column x), counted from 0 in steps of a patch. `frequencies` (layers, H, 2, K/2) holds f_y,
    then f_x. CLS tokens stay unturned. Each head starts with a random angle phi: its first K/4 pairs have magnitudes
    base^(-4c/K) in the direction phi, (f_x, f_y) = magnitude (cos phi, sin phi), and the other K/4 the same at
    phi + pi/2. The authors take no weight decay on f, which no encoding's parameters have here.

    Options:
        base: of the magnitudes at the start; 10 in the authors' code.
    """

    name = "rope_mixed"
    look = ("rotary", 18)
    title = "RoPE on two axes with learnt frequencies, so that channels may turn along any direction"
    paper = "Heo et al. 2024, arXiv:2403.13298, section 3; the released code"
    formula = "(R_i q).(R_j k), R turns pairs by y f_y + x f_x, f learnt"
    by_layer = True

    def __init__(self, stack: Stack, *, base: float = 10.0) -> None:
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        if stack.head_width % 4:
            raise ValueError(f"heads of {stack.head_width} channels: must be a multiple of 4, for two directions")
        self.base = base
        self.frequencies = nn.Parameter(torch.empty(stack.layers, stack.heads, 2, stack.head_width // 2))

    def initialise(self, generator: torch.Generator) -> None:
        count = self.stack.head_width // 4
        magnitudes = self.base ** -(torch.arange(count, dtype=torch.float64) / count)
        # In float32 on the CPU, as all starts are drawn: a seed gives the same on every device.
        drawn = torch.rand(self.stack.layers, self.stack.heads, 1, generator=generator, dtype=torch.float32)
        phi = torch.cat([(2 * math.pi * drawn.double() + turn).expand(-1, -1, count) for turn in (0, math.pi / 2)], -1)
        with torch.no_grad():
            self.frequencies.copy_(magnitudes.repeat(2) * torch.stack((phi.sin(), phi.cos()), dim=2).flatten(3))

    def angles(self, positions: Tensor, context: Context) -> Tensor:
        return positions.double()[:, None] @ self.frequencies[context.layer].double()
