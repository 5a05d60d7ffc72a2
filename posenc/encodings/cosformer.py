"""cosFormer: a linear kernel of rectified queries and keys, weighted by a cosine (Qin et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack


class CosFormer(Encoding):
    """a_ij = relu(q_i).relu(k_j) cos(pi n / 2N), over the row's sum (at least 1e-6): linear attention of its own.

    cos(pi (i - j) / 2N) = cos cos + sin sin: two states. N is fixed, where the paper and its code take the longer of
    the input's lengths: then a causal model's early outputs change with what comes after. Queries and keys are not
    scaled: a factor of a row cancels.

    Options:
        length: N, the longest row that has an answer; 0: the longest that is trained on.
    """

    name = "cosformer"
    look = ("distance", 5)
    title = "rectified queries and keys, reweighted by a cosine of the distance"
    paper = "Qin et al. 2022, arXiv:2202.08791, equations 8 to 11"
    formula = "relu(q).relu(k) cos(pi n / 2N) in place of exp(s)"
    relative = True
    linear_form = "relu"
    softmax_reason = "not possible: it is a kernel of linear attention, and has no softmax"

    def __init__(self, stack: Stack, *, length: int = 0) -> None:
        super().__init__(stack)
        if length < 0:
            raise ValueError(f"length={length}: must be at least 1, or 0 for the longest row that is trained on")
        self.length = length or stack.max_length

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    @property
    def max_length(self) -> int:
        return self.length

    def position_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        """cos and sin of pi p / 2N, the same for queries and keys: (B or 1, 1, L, 2) and (B or 1, 1, S, 2)."""
        angles = context.key_positions[:, None, :, 0].double() * (math.pi / 2 / self.length)
        vectors = torch.stack((angles.cos(), angles.sin()), dim=-1)
        return vectors[:, :, context.offset :], vectors
