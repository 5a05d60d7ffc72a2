"""RoPE on the two axes of an image, or the three of a video, each of which turns channels of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.encodings.rope import turned

PIXELS = 224
"""The largest resolution that timm's spectrum "in pixels" is made for."""


def unturned(context: Context, count: int) -> Tensor | None:
    """Which of the last `count` keys are classification tokens, (B,1,L,1) bool: they have no place in the image."""
    return None if context.cls is None else context.cls[:, None, -count:, None]


class Planar(Encoding):
    """Base: pairs of channels turned by angles that follow from several coordinates; CLS tokens are left unturned."""

    axes = 2
    relative = True
    keeps_norms = True
    linear_form = "inside"
    by_layer = False
    """Each layer has angles of its own."""

    def angles(self, positions: Tensor, context: Context) -> Tensor:
        """By how much each pair is turned at positions (B or 1, L, A): float64 (B or 1, H or 1, L, K/2)."""
        raise NotImplementedError

    def _turns(self, positions: Tensor, context: Context) -> Tensor:
        angles = self.angles(positions, context)
        if (left := unturned(context, positions.shape[1])) is not None:
            angles = angles.masked_fill(left, 0.0)
        return torch.stack((angles.cos(), angles.sin()), dim=-1)

    def _rotate(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        key = ("turns", context.layer if self.by_layer else None)
        return turned(x, positions, context, self, key, lambda at: self._turns(at, context))

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(keys, positions, context)


class AxialRope(Planar):
    """RoPE whose first half of the pairs is turned by the column x, the second half by the row y.

    theta_c = base^(-4c/K) for c from 0 to K/4 - 1, pairs (2i-1, 2i) interleaved. Coordinates are (row, column), counted
    from 0 in steps of a patch. CLS tokens stay unturned. The authors count columns first; the two orders are one model
    up to a permutation of channels.

    Options:
        base: the longest wavelength is less than 2 pi times this; 100 in the paper, as axes are short.
        rows_first: the row turns the first half, as in timm.
        pixels: timm's other spectrum ("in pixels") on a grid of so many rows and columns; 0 for none. Then coordinates
            run from -1 to 1 over the grid and theta_c = pi 2^(c log2(112) / (K/4 - 1)), whatever the base. In timm
            a grid's rows may be another number than its columns; here both are this number.
    """

    name = "axial_rope"
    look = ("rotary", 17)
    title = "RoPE on two axes: one half of the channels turned by the column, the other by the row"
    paper = "Heo et al. 2024, arXiv:2403.13298, section 3; the released code"
    formula = "(R_i q).(R_j k), R turns half of the pairs by x theta_c, half by y theta_c"

    def __init__(
        self, stack: Stack, *, base: float = 100.0, rows_first: bool = False, pixels: int = 0
    ) -> None:  # fmt: skip
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        if pixels < 0 or pixels == 1:
            raise ValueError(f"pixels={pixels}: must be at least 2 rows and columns, or 0 for the other spectrum")
        if stack.head_width % 4:
            raise ValueError(f"heads of {stack.head_width} channels: must be a multiple of 4, pairs for each axis")
        self.base, self.rows_first, self.pixels = base, rows_first, pixels

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def frequencies(self, device: torch.device) -> Tensor:
        """theta of each pair of one axis: float64 (K/4,)."""
        count = self.stack.head_width // 4
        if self.pixels:
            last = math.log2(PIXELS / 2)
            return math.pi * torch.linspace(0, last, count, dtype=torch.float64, device=device).exp2()
        return self.base ** -(torch.arange(count, dtype=torch.float64, device=device) / count)

    def angles(self, positions: Tensor, context: Context) -> Tensor:
        at = positions.double()
        if self.pixels:
            at = 2 * at / (self.pixels - 1) - 1
        if not self.rows_first:
            at = at.flip(-1)
        return (at[..., None] * self.frequencies(at.device)).flatten(-2)[:, None]


class AxialRope3d(Planar):
    """RoPE of a video: a third of the pairs is turned by the time, a third by the row, a third by the column.

    Each axis has floor(K/6) pairs (2i-1, 2i), turned by its coordinate times theta_c = base^(-c / floor(K/6)); channels
    that are left over stay as they are. Coordinates are (time, row, column), counted from 0. CLS tokens stay unturned.

    The released code lays sines and cosines beside the channels in two blocks, and takes neighbours for pairs: the two
    channels of a pair have different angles there, and no shift of all positions leaves scores alone. Here, as the
    paper says, each part is RoPE of one axis.

    Options:
        base: the longest wavelength is less than 2 pi times this.
    """

    name = "axial_rope_3d"
    look = ("rotary", 24)
    title = "RoPE on three axes: a third of the channels turned by time, a third by row, a third by column"
    paper = "Assran et al. 2025, arXiv:2506.09985 (V-JEPA 2), section 2.1"
    formula = "(R_i q).(R_j k), R turns a third of the pairs each by t theta_c, y theta_c and x theta_c"
    axes = 3

    def __init__(self, stack: Stack, *, base: float = 10000.0) -> None:
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        if stack.head_width < 6 or stack.head_width % 2:
            raise ValueError(f"heads of {stack.head_width} channels: must be an even number, and a pair for each axis")
        self.base = base

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def angles(self, positions: Tensor, context: Context) -> Tensor:
        count, device = self.stack.head_width // 6, positions.device
        theta = self.base ** -(torch.arange(count, dtype=torch.float64, device=device) / count)
        turned_by = (positions.double()[..., None] * theta).flatten(-2)
        return functional.pad(turned_by, (0, self.stack.head_width // 2 - 3 * count))[:, None]
