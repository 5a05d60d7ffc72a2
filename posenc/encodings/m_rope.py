"""M-RoPE: RoPE whose pairs are dealt out among time, height and width (Qwen-VL)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from posenc.api.encoding import Context
from posenc.api.stack import Stack
from posenc.encodings.axial_rope import Planar


class MRope(Planar):
    """Pair c is turned by p_a(c) theta_c, theta_c = base^(-2c/K), where a(c) is the one axis that pair c has.

    Coordinates are (time, row, column), counted from 0; a token of text has one number three times, and is then turned
    as in RoPE. The fastest pairs have time, the next the row, the slowest the column: 1/4, 3/8 and 3/8 of them, as in
    Qwen2-VL (16, 24 and 24 of 64). Pairs (2i-1, 2i) are interleaved as in `rope`; the released code has the layout of
    two halves. The released models have base 1e6; here it is RoPE's.

    Options:
        base: the longest wavelength is 2 pi times this.
        row, column: how many pairs have each; the rest have time. 0 for the rule, rounded down.
    """

    name = "m_rope"
    look = ("rotary", 22)
    title = "RoPE of time, row and column, each of which turns pairs of its own"
    paper = "Wang et al. 2024, arXiv:2409.12191, section 2.1; the released code"
    formula = "(R_i q).(R_j k), R turns pair c by theta_c times one of time, row, column"
    axes = 3
    share: ClassVar[float] = 3 / 8
    """Of all pairs, those that the row has, and the column."""

    def __init__(self, stack: Stack, *, base: float = 10000.0, row: int = 0, column: int = 0) -> None:
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        if stack.head_width % 2:
            raise ValueError(f"heads of {stack.head_width} channels: must be an even number")
        if row < 0 or column < 0:
            raise ValueError(f"row={row}, column={column}: must be numbers of pairs, or 0 for the rule")
        self.base, self.pairs = base, stack.head_width // 2
        self.row, self.column = row or int(self.share * self.pairs), column or int(self.share * self.pairs)
        if min(self.row, self.column) < 1 or self.row + self.column >= self.pairs:
            given = f"row={self.row}, column={self.column} of {self.pairs} pairs"
            raise ValueError(f"{given}: at least one pair for each must be there, and one left for time")
        self.dealt()

    def initialise(self, generator: torch.Generator) -> None:
        """It has no parameters."""

    def dealt(self) -> list[int]:
        """Which axis each pair has: 0 time, 1 row, 2 column."""
        return [0] * (self.pairs - self.row - self.column) + [1] * self.row + [2] * self.column

    def angles(self, positions: Tensor, context: Context) -> Tensor:
        device = positions.device
        theta = self.base ** -(torch.arange(self.pairs, dtype=torch.float64, device=device) / self.pairs)
        along = positions.double().unbind(-1)
        at = torch.stack([along[axis] for axis in self.dealt()], dim=-1)  # (B or 1, L, K/2)
        return (at * theta)[:, None]


class MRopeInterleaved(MRope):
    """M-RoPE whose axes alternate: time, row, column, time, row, column ..., so that each has fast and slow pairs.

    The row has pairs 1, 4, 7 ..., the column 2, 5, 8 ..., as many as their numbers; the rest have time: 5/16 of all
    pairs for row and column each (24, 20 and 20 of 64 in Qwen3-VL). All else is as in `m_rope`; the released models
    have base 5e6.

    Options:
        base, row, column: as M-RoPE's.
    """

    name = "m_rope_interleaved"
    look = ("rotary", 23)
    title = "RoPE of time, row and column in turns, so that each turns fast and slow pairs"
    paper = "Qwen team 2025, arXiv:2511.21631; the released code"
    share = 5 / 16

    def dealt(self) -> list[int]:
        axes = [0] * self.pairs
        for axis, count in ((1, self.row), (2, self.column)):
            last = axis + 3 * (count - 1)
            if last >= self.pairs:
                raise ValueError(
                    f"row={self.row}, column={self.column} of {self.pairs} pairs: every third holds at most "
                    f"{(self.pairs - axis + 2) // 3}"
                )
            axes[axis : last + 1 : 3] = [axis] * count
        return axes
