"""Learned absolute position embeddings (Gehring et al. 2017; BERT, Devlin et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_
from posenc.common.errors import NotPossibleError


class Learned(Encoding):
    """x_p + sqrt(D) * P[p], one row P[p] of a table for each position of the training length.

    The rows start as the token embeddings do (standard deviation 1/sqrt(D), times sqrt(D) on the way in), as
    BERT starts both alike; so both move equally fast under Adam. Beyond the table there is no answer, and none is
    made up.
    """

    name = "learned"
    look = ("absolute", 1)
    title = "a learned table of positions added to the token embeddings"
    paper = "Devlin et al. 2019, arXiv:1810.04805, section 3"
    formula = "x_p + table[p]"
    linear_form = "as_is"

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.table = nn.Parameter(torch.empty(stack.max_length, stack.width))

    @property
    def max_length(self) -> int:
        return self.stack.max_length

    def initialise(self, generator: torch.Generator) -> None:
        normal_(self.table, self.stack.width**-0.5, generator)

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        if positions.is_floating_point():
            raise NotPossibleError("not possible: a table has rows for whole positions alone")
        rows = nn.functional.embedding(positions[..., 0], self.table)
        return embeddings + (math.sqrt(self.stack.width) * rows).to(embeddings.dtype)
