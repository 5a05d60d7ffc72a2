"""Sinusoidal position embeddings (Vaswani et al. 2017, section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack


def sinusoid_table(positions: Tensor, width: int, base: float = 10000.0) -> Tensor:
    """Sines and cosines of positions (...,), as float64 (..., width), in the paper's interleaved layout.

    PE[p, 2i] = sin(p / base^(2i/width)),  PE[p, 2i+1] = cos(p / base^(2i/width))
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
    angles = positions.double()[..., None] * base**-exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class Sinusoidal(Encoding):
    """x_p + scale * PE[p], added once to the token embeddings.

    Vaswani et al. multiply token embeddings by sqrt(D) first; here the backbone does that for every
    encoding alike (tokens enter with a root mean square of 1, the sinusoids have 0.71).

    Options:
        base: the longest wavelength is 2 pi times this.
        scale: multiplies the sinusoids.
    """

    name = "sinusoidal"
    look = ("absolute", 0)
    title = "fixed sines and cosines added to the token embeddings"
    paper = "Vaswani et al. 2017, arXiv:1706.03762, section 3.5"
    formula = "x_p + [sin(p theta_c), cos(p theta_c)]"
    linear_form = "as_is"

    def __init__(self, stack: Stack, *, base: float = 10000.0, scale: float = 1.0) -> None:
        super().__init__(stack)
        if stack.width % 2:
            raise ValueError(f"width {stack.width} is odd: sines and cosines come in pairs")
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        self.base, self.scale = base, scale

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        table = sinusoid_table(positions[..., 0], self.stack.width, self.base)
        return embeddings + (self.scale * table).to(embeddings.dtype)
