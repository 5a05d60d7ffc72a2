"""Rows of unequal length packed: several examples one after another in a row, in place of padding.

Examples keep their own rows in all but the model's stacks: hidden states are gathered back to where padded rows would
have them, and what comes after is the same code. So loss and gradients are those of padded rows but for rounding;
with dropout they are not, since its masks fall on other places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.backbone.transformer import Transformer

Ids = NDArray[np.int64]


class Packed(NamedTuple):
    """Examples (B,L) in rows (R,W), W being the fullest row.

    Attributes:
        tokens: (R,W). segments: (R,W) int64, counted from 0 in each row; the unused end of a row is one of its own, so
            that no mask is needed.
        places: (B,L) int64, where each token stands in the flattened rows; at padding anywhere.
    """

    tokens: Tensor
    segments: Tensor
    places: Tensor

    def gather(self, hidden: Tensor) -> Tensor:
        """Hidden states (R,W,D) of the rows as (B,L,D) of the examples; at padding those of some real token."""
        return hidden.flatten(0, 1)[self.places]

    def firsts(self) -> Tensor:
        """(R,W) bool, True at the first token of each example."""
        first = torch.zeros_like(self.tokens, dtype=torch.bool)
        first.view(-1)[self.places[:, 0]] = True
        return first


def hidden(model: Transformer, tokens: Tensor, mask: Tensor, packed: Sequence[Tensor]) -> Tensor:
    """What an encoder makes of tokens (B,L) with mask (B,L), (B,L,D), from packed rows where they are given.

    The first token of each example is its classification token.
    """
    if packed:
        rows = Packed(*packed)
        return rows.gather(model.hidden(rows.tokens, segments=rows.segments, cls=rows.firsts()))
    cls = torch.zeros_like(mask)
    cls[:, 0] = True
    return model.hidden(tokens, mask=mask, cls=cls)


def where(mask: Tensor) -> Tensor:
    """Where a mask (B,L) is True: (N,) int64, in the flattened rows."""
    return mask.flatten().nonzero().squeeze(1)


def pack(*sides: tuple[Tensor, Tensor], capacity: int) -> list[Packed]:
    """Examples packed into rows of at most `capacity` tokens; the same for the same lengths.

    Args:
        sides: tokens (B,L) and their mask (B,L) with real tokens first, at least one. Of several, as source and target
            of a translation, an example's tokens stand in the same row and segment in each.

    Raises:
        ValueError: an example without tokens, or longer than `capacity`.
    """
    lengths = np.stack([mask.sum(dim=1).numpy() for _, mask in sides], axis=1)
    rows = rows_of(lengths, capacity)
    return [_laid_out(tokens, mask, lengths[:, side], rows) for side, (tokens, mask) in enumerate(sides)]


def _laid_out(tokens: Tensor, mask: Tensor, lengths: Ids, rows: Sequence[Sequence[int]]) -> Packed:
    width = max(int(lengths[row].sum()) for row in rows)
    segments = np.empty((len(rows), width), dtype=np.int64)
    starts = np.empty(len(lengths), dtype=np.int64)
    for index, row in enumerate(rows):
        counts = [*lengths[row], width - lengths[row].sum()]
        segments[index] = np.repeat(np.arange(len(counts)), counts)
        starts[row] = index * width + np.cumsum([0, *counts[:-2]])
    places = torch.from_numpy(starts)[:, None] + torch.where(mask, torch.arange(mask.shape[1]), 0)
    packed = tokens.new_zeros(len(rows) * width)
    packed[places[mask]] = tokens[mask]
    return Packed(packed.view(len(rows), width), torch.from_numpy(segments), places)


def rows_of(lengths: Ids, capacity: int) -> list[list[int]]:
    """Which examples stand in each row, for lengths (B,sides): never more places in all than with padding.

    Rows as long as can be are not the best: three examples of 40 leave 8 of 128 places empty, and rows of 40 none.
    So rows of 1, 2, 4, ... times the longest example and of `capacity` are tried; of those that take the fewest
    places, the shortest, since attention's cost grows with a row's length.

    Raises:
        ValueError: an example without tokens, or longer than `capacity`.
    """
    longest = lengths.max(axis=0)
    if lengths.min() < 1 or longest.max() > capacity:
        raise ValueError(f"examples of {lengths.min()} to {longest.max()} tokens: must be 1 to {capacity}")

    def taken(rows: list[list[int]]) -> int:
        return len(rows) * int(np.max([lengths[row].sum(axis=0) for row in rows], axis=0).sum())

    doublings = (-(-capacity // int(longest.min())) - 1).bit_length()  # after which every side has `capacity`
    rooms = [np.minimum(longest << power, capacity) for power in range(doublings + 1)]
    return min((_narrowed(lengths, room) for room in rooms), key=taken)  # the first, so the shortest, of the best


def _narrowed(lengths: Ids, room: Ids) -> list[list[int]]:
    """As few rows as `room` (sides,) gives, and about as short as so many can be."""
    rows = _first_fit(lengths, room)
    least = np.maximum(lengths.max(axis=0), -(-lengths.sum(axis=0) // len(rows)))
    slack = 0
    while True:
        narrower = np.minimum(least + slack, room)
        found = _first_fit(lengths, narrower)
        if len(found) <= len(rows):  # at the latest where `narrower` is `room`
            return found
        slack = max(1, 2 * slack)


def _first_fit(lengths: Ids, room: Ids) -> list[list[int]]:
    """First fit, decreasing by the longer side: each example into the first row that has room on every side."""
    free = np.tile(room, (len(lengths), 1))
    rows: list[list[int]] = []
    for index in np.argsort(-lengths.max(axis=1), kind="stable").tolist():
        fits = (free[: len(rows) + 1] >= lengths[index]).all(axis=1)
        row = int(fits.argmax())  # the last of them is a new one
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        free[row] -= lengths[index]
    return rows
