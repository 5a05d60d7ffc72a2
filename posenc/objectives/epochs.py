"""Rows of unequal length as batches: which rows a step sees, and how they become one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.common.seeds import derive

POOL = 50
"""Batches that are drawn together and then sorted by length, so that rows of one batch need little padding."""

Rows = NDArray[np.int64]


class Epochs:
    """Every row once an epoch, in an order that depends on the seed and the epoch alone; like lengths together.

    Args:
        lengths: (rows,) tokens of each row. batch: rows a step. What is left over at an epoch's end goes unseen in it.
    """

    def __init__(self, lengths: Sequence[int] | NDArray[np.int64], batch: int) -> None:
        self.lengths, self.batch = np.asarray(lengths), batch
        self.steps = len(self.lengths) // batch
        self._order = lru_cache(maxsize=2)(self._ordered)

    def rows(self, seed: int, step: int) -> Rows:
        """The rows of a step, counted from 1."""
        epoch, place = divmod(step - 1, self.steps)
        return self.order(seed, epoch)[place]

    def order(self, seed: int, epoch: int) -> list[Rows]:
        """The rows of each step of an epoch, counted from 0."""
        return self._order(seed, epoch)

    def _ordered(self, seed: int, epoch: int) -> list[Rows]:
        dice = np.random.default_rng(derive(seed, "epoch", epoch))
        shuffled = dice.permutation(len(self.lengths))[: self.steps * self.batch]
        batches: list[Rows] = []
        for first in range(0, len(shuffled), POOL * self.batch):
            pool = shuffled[first : first + POOL * self.batch]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self.batch)
        return [batches[index] for index in dice.permutation(len(batches))]


def pad(rows: Sequence[NDArray[np.generic]], value: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B,L) tensor, filled up with `value`, and its mask (B,L), True at real tokens."""
    longest = max(1, *(len(row) for row in rows)) if rows else 1
    tokens = np.full((len(rows), longest), value, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=bool)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
        mask[index, : len(row)] = True
    return torch.from_numpy(tokens), torch.from_numpy(mask)
