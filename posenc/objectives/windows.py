"""Which windows of a running text are read, and which of their tokens are scored.

The tokens that are scored are the same whatever the windows: all but the first of a text of so many tokens and one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posenc.api.metric import Metric

SLIDING, CUT = "_sliding", "_cut"
"""What stands behind the names of metrics, and of their items, that are not of separate windows."""

BINS = 4
"""Into so many bins each doubling of the place is cut, from where it has as many places."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """Windows of one length that are scored alike.

    Attributes:
        starts: (W,) of their inputs. length: L, tokens that are read; their targets stand one further.
        scored: how many of a window's targets count, its last.
    """

    starts: Places
    length: int
    scored: int

    def batches(self, content: NDArray[np.generic], tokens: int) -> Iterator[NDArray[np.int64]]:
        """(B, L + 1) of a text, of at most so many tokens at once, but at least one window."""
        rows = max(1, tokens // self.length)
        for first in range(0, len(self.starts), rows):
            places = self.starts[first : first + rows, None] + np.arange(self.length + 1)
            yield content[places].astype(np.int64)


def separate(targets: int, length: int) -> list[Windows]:
    """Side by side: a target is predicted from what stands before it in its own window.

    Args:
        targets: a multiple of the length.
    """
    return [Windows(np.arange(0, targets, length), length, length)]


def sliding(targets: int, length: int, stride: int) -> list[Windows]:
    """Each window a stride on from the one before, its last `stride` targets scored (Press et al. 2021, appendix B).

    So each target is predicted from at least length - stride + 1 tokens and at most length, but for the first ones of
    the text, before which there are fewer: the first window is scored whole. The last may be a shorter way on.

    Args:
        targets: at least the length. stride: from 1 to the length.
    """
    found = [Windows(np.zeros(1, dtype=np.int64), length, length)]
    whole, rest = divmod(targets - length, stride)
    if whole:
        found.append(Windows(stride * np.arange(1, whole + 1), length, stride))
    if rest:
        found.append(Windows(np.array([targets - length]), length, rest))
    return found


def bins(length: int, trained: int) -> Places:
    """(P,) the last place, counted from 1, of each bin of a window: those up to BINS apart, then BINS a doubling.

    A bin ends at the length trained at, so that none holds places on both sides of it.
    """
    ends = {trained, length, *range(1, min(BINS, length) + 1)}
    size = BINS
    while size < length:
        ends |= {size + size * part // BINS for part in range(1, BINS + 1)}
        size *= 2
    return np.array(sorted(end for end in ends if end <= length))


def of_mode(metric: Metric, suffix: str, said: str) -> Metric:
    """A metric of separate windows, of others; `said` is which.

    Its items are named like its own.
    """
    items = tuple(f"{name}{suffix}" for name in metric.items)
    return Metric(
        f"{metric.name}{suffix}", f"{metric.title} ({said})", metric.better, metric.over, items, metric.test,
        metric.running,
    )  # fmt: skip
