"""Sinusoidal position embeddings on two axes, as MoCo v3 and MAE have them."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.encodings.sinusoidal import sinusoid_table


class Sinusoidal2d(Encoding):
    """x_p + scale * [PE[row], PE[column]], each the sinusoids of D/2 channels, added once to the token embeddings.

    Coordinates are (row, column), counted from 0 in steps of a patch. The authors' code has the column first, and all
    sines before all cosines: another order of channels. CLS tokens are left as they are, as in that code.

    Options:
        base: the longest wavelength is less than 2 pi times this.
        scale: multiplies the sinusoids.
    """

    name = "sinusoidal_2d"
    look = ("absolute", 2)
    title = "fixed sines and cosines of row and column added to the token embeddings"
    paper = "Chen et al. 2021, arXiv:2104.02057; He et al. 2022, arXiv:2111.06377; the released code"
    formula = "x_p + [sin(y theta_c), cos(y theta_c), sin(x theta_c), cos(x theta_c)]"
    axes = 2
    linear_form = "as_is"

    def __init__(self, stack: Stack, *, base: float = 10000.0, scale: float = 1.0) -> None:
        super().__init__(stack)
        if stack.width % 4:
            raise ValueError(f"width {stack.width}: must be a multiple of 4, sines and cosines for each axis")
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        self.base, self.scale = base, scale

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        table = self.scale * sinusoid_table(positions, self.stack.width // 2, self.base).flatten(-2)
        if context.cls is not None:
            table = table.masked_fill(context.cls[:, -positions.shape[1] :, None], 0.0)
        return embeddings + table.to(embeddings.dtype)
