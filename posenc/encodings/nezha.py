"""NEZHA's functional relative positions (Wei et al. 2019): Shaw's form with sinusoids that are not learned."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.encoding import Context
from posenc.api.stack import Stack
from posenc.encodings.shaw import ClippedVectors
from posenc.encodings.sinusoidal import sinusoid_table


class Nezha(ClippedVectors):
    """a_ij[2k] = sin((j - i) / 10000^(2k/K)),  a_ij[2k+1] = cos(the same): no parameters.

    The same vectors in every layer and head, and for keys and values alike. Two definitions are about:

    the paper's (section 2.2)    sines and cosines of the distance j - i itself, for every distance
    the released code's          a table of clip(j - i, -64, 64) + 64: its rows are counted from 0, so that the distance
                                 0 has the sines and cosines of 64 (huawei-noah's NEZHA-PyTorch)

    By itself this is the paper's formula, clipped as the released code clips it, since no table can be had without.
    What the two can express is the same: the code's row turns channels (2k, 2k+1) of the paper's by 64 / 10000^(2k/K),
    a turn that the projections of queries, keys and values take up. What they start from is not, nor do released
    weights fit without `released`.

    Options:
        clip: the largest distance told apart; in linear attention 16 at the most.
        released: the released code's table, by clip(j - i) + clip.
    """

    name = "nezha"
    look = ("vectors", 3)
    title = "fixed sinusoids of clipped distances, added to keys and values"
    paper = "Wei et al. 2019, arXiv:1909.00204, section 2.2"
    formula = "q.(k + a_n) / sqrt(K), v + a_n; a_n fixed sinusoids of clip(n)"

    def __init__(self, stack: Stack, *, clip: int = 64, released: bool = False) -> None:
        super().__init__(stack, clip)
        self.released = released
        if stack.head_width % 2:
            raise ValueError(f"head width {stack.head_width} is odd: sines and cosines come in pairs")

    def key_vectors(self, context: Context) -> Tensor:
        return context.once(self, "vectors", lambda: self._vectors(context.device))

    def _vectors(self, device: torch.device) -> Tensor:
        distances = torch.arange(-self.clip, self.clip + 1, device=device)
        distances = distances + self.clip if self.released else distances
        return sinusoid_table(distances, self.stack.head_width)

    def value_vectors(self, context: Context) -> Tensor:
        return self.key_vectors(context)
