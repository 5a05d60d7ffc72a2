"""The statistics of a report: Student's interval of a mean, and of a paired difference.

A paired t-test is a t-test of the differences, so one function serves both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

LEVEL = 0.95
SEEDS_FOR_A_CLAIM = 5


class Interval(NamedTuple):
    """A mean, the values' standard deviation, and the mean's interval; NaN where too few values say nothing."""

    mean: float
    sd: float
    low: float
    high: float
    p: float  # two-sided, of a mean that differs from nought

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval by Student's t. One value has no interval; none has no mean."""
    n, nan = len(values), math.nan
    if n == 0:
        return Interval(nan, nan, nan, nan, nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, nan, nan, nan, nan)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    error = sd / math.sqrt(n)
    if error == 0:
        return Interval(mean, 0.0, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return Interval(mean, sd, mean - half, mean + half, 2 * float(stats.t.sf(abs(mean) / error, n - 1)))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjustment: each p as it stands among all the comparisons that were made at once."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted
