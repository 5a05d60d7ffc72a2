"""Learned absolute position embeddings on two axes (Dosovitskiy et al. 2021, appendix D.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_
from posenc.common.errors import NotPossibleError


class Learned2d(Encoding):
    """x_p + sqrt(D) * [rows[row], columns[column]]: two tables (size, D/2), one for each axis.

    Entries start as those of `learned` do. Coordinates are (row, column), counted from 0 in steps of a patch. Beyond
    the tables there is no answer, and none is made up. CLS tokens get nothing: their own embedding is learnt anyway.

    Options:
        size: rows and columns of the tables; 0 for the least square that holds the training length. A row of tokens
            has at most size^2, a CLS token counted.
    """

    name = "learned_2d"
    look = ("absolute", 3)
    title = "a learned table for rows and one for columns added to the token embeddings"
    paper = "Dosovitskiy et al. 2021, arXiv:2010.11929, appendix D.4"
    formula = "x_p + [rows[y], columns[x]]"
    axes = 2
    linear_form = "as_is"

    def __init__(self, stack: Stack, *, size: int = 0) -> None:
        super().__init__(stack)
        if size < 0:
            raise ValueError(f"size={size}: must be at least 1 row and column, or 0 for those of training")
        if stack.width % 2:
            raise ValueError(f"width {stack.width} is odd: each axis has a half of it")
        self.size = size or math.isqrt(stack.max_length - 1) + 1
        self.rows = nn.Parameter(torch.empty(self.size, stack.width // 2))
        self.columns = nn.Parameter(torch.empty(self.size, stack.width // 2))
        self._looked_at: set[torch.Size] = set()

    @property
    def max_length(self) -> int:
        return self.size**2

    def initialise(self, generator: torch.Generator) -> None:
        for table in (self.rows, self.columns):
            normal_(table, self.stack.width**-0.5, generator)

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        if positions.is_floating_point():
            raise NotPossibleError("not possible: a table has rows for whole coordinates alone")
        count, at = positions.shape[1], positions
        for place, unread in ((context.mask, False), (context.cls, True)):  # what stands there is never looked at
            if place is not None:
                at = at.masked_fill((place[:, -count:] == unread)[..., None], 0)
        self._require(at)
        halves = [nn.functional.embedding(at[..., n], table) for n, table in enumerate((self.rows, self.columns))]
        added = math.sqrt(self.stack.width) * torch.cat(halves, dim=-1)
        if context.cls is not None:
            added = added.masked_fill(context.cls[:, -count:, None], 0.0)
        return embeddings + added.to(embeddings.dtype)

    def _require(self, at: Tensor) -> None:
        """Raise NotPossibleError beyond the tables; where nothing can be looked at, the lookup itself fails.

        On a GPU each look makes the host wait for all work before it: there each shape is looked at once.
        """
        if torch.compiler.is_compiling() or at.is_meta:
            return
        if at.is_cuda:
            if at.shape in self._looked_at or torch.cuda.is_current_stream_capturing():
                return
            self._looked_at.add(at.shape)
        if ((at < 0) | (at >= self.size)).any():
            raise NotPossibleError(
                f"not possible: it has rows and columns from 0 to {self.size - 1}, and coordinates from "
                f"{int(at.min())} to {int(at.max())} were asked for"
            )
