"""NEZHA's functional relative positions (Wei et al. 2019): Shaw's form with sinusoids that are not learned."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.encoding import Context, Stack
from posenc.encodings.shaw import ClippedVectors
from posenc.encodings.sinusoidal import sinusoid_table


class Nezha(ClippedVectors):
    """a_ij[2k] = sin((j - i) / 10000^(2k/K)),  a_ij[2k+1] = cos(the same): no parameters.

    The same vectors in every layer and head, and for keys and values alike. The paper has them for every distance; its
    released code clips distances at 64, and so does this.

    Options:
        clip: the largest distance told apart.
    """

    title = "fixed sinusoids of clipped distances, added to keys and values"
    paper = "Wei et al. 2019, arXiv:1909.00204, section 2.2"

    def __init__(self, stack: Stack, *, clip: int = 64) -> None:
        super().__init__(stack, clip)
        if stack.head_width % 2:
            raise ValueError(f"head width {stack.head_width} is odd: sines and cosines come in pairs")

    def key_vectors(self, context: Context) -> Tensor:
        key = ("nezha", self.clip)
        if key not in context.cache:
            distances = torch.arange(-self.clip, self.clip + 1, device=context.device)
            context.cache[key] = sinusoid_table(distances, self.stack.head_width)
        vectors: Tensor = context.cache[key]
        return vectors

    def value_vectors(self, context: Context) -> Tensor:
        return self.key_vectors(context)
