"""The flip-flop language (Liu, Ash et al. 2023, arXiv:2306.00946): one bit to remember, and much to ignore."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import UNASKED, Generator, Labelled

ZERO, ONE, WRITE, READ, IGNORE = range(5)


class FlipFlop(Generator):
    """Instructions write, read and ignore, each with a bit behind it; a read's bit is that of the last write.

    A row of T symbols has T/2 instructions. The first is a write and the last a read; of the others a share p is
    ignore, and write and read are equally many. The bits of write and ignore are random. What is asked for is the bit
    behind each read, at the read: the bit stands next in the row, so that a model must not see what comes. Test sets
    beside the one like training: `sparse` (p = 0.98) and `dense` (p = 0.1).

    Args:
        ignore: p; the paper trains at 0.8.
    """

    name = "flip_flop"
    symbols = ("0", "1", "write", "read", "ignore")
    classes = 2
    causal = True
    tests: ClassVar[dict[str, dict[str, Any]]] = {"sparse": {"ignore": 0.98}, "dense": {"ignore": 0.1}}

    def __init__(self, ignore: float = 0.8) -> None:
        if not 0 <= ignore < 1:
            raise ConfigError(f"ignore = {ignore}: must be at least 0 and less than 1")
        self.ignore = ignore

    def sizes(self, longest: int) -> list[int]:
        """One, as in the paper: the longest that is even."""
        return [longest // 2 * 2] if longest >= 4 else []

    def draw(self, random: np.random.Generator, size: int, count: int) -> Labelled:
        steps = size // 2
        dice = random.random((count, steps))
        told = np.where(dice < self.ignore, IGNORE, np.where(dice < (1 + self.ignore) / 2, WRITE, READ))
        told[:, 0], told[:, -1] = WRITE, READ
        bits = random.integers(2, size=(count, steps))
        last = np.maximum.accumulate(np.where(told == WRITE, np.arange(steps), 0), axis=1)
        bits = np.where(told == READ, np.take_along_axis(bits, last, axis=1), bits)
        rows, targets = np.empty((count, size), dtype=np.int64), np.full((count, size), UNASKED)
        rows[:, 0::2], rows[:, 1::2] = told, bits
        targets[:, 0::2] = np.where(told == READ, bits, UNASKED)
        return Labelled(rows, targets)
