"""The statistics of a report: Student's interval of a mean, and of a paired difference; Holm; power; McNemar.

A paired t-test is a t-test of the differences, so one function serves both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

LEVEL = 0.95
SEEDS_FOR_A_CLAIM = 5
POWER = 0.8
MOST_SEEDS = 1000
SURE = 10
"""A shift of so many limits is found always: SciPy's series of the noncentral t ends in no number far beyond."""
NO_SPREAD = 1e-9
"""Values that differ by less than this, over their size, are equal but for rounding."""


class Interval(NamedTuple):
    """A mean, the values' standard deviation, and the mean's interval; NaN where too few values say nothing."""

    mean: float
    sd: float
    low: float
    high: float
    p: float  # two-sided, of a mean that differs from nought; NaN where the values do not vary

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval by Student's t. One value has no interval, equal ones no test; none has no mean."""
    n, nan = len(values), math.nan
    if n == 0:
        return Interval(nan, nan, nan, nan, nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, nan, nan, nan, nan)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    error = sd / math.sqrt(n)
    if sd <= NO_SPREAD * max(abs(mean), *map(abs, values)):
        # Quantised scores may differ by the same amount in every seed: that shows no spread of nought, so no test.
        return Interval(mean, 0.0, mean, mean, nan)
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


def power(effect: float, seeds: int, level: float = 1 - LEVEL) -> float:
    """How often the two-sided paired t-test at a level finds a true difference of `effect` standard deviations.

    The standard deviation is that of the differences. Cohen 1988, section 2.3: by the noncentral t distribution.
    """
    freedom, shift = seeds - 1, abs(effect) * math.sqrt(seeds)
    limit = float(stats.t.isf(level / 2, freedom))
    if shift > SURE * limit:
        return 1.0
    # A large shift leaves nothing in the lower tail, where SciPy's series ends in no number.
    lower = float(stats.nct.cdf(-limit, freedom, shift)) if shift < 5 else 0.0
    return float(stats.nct.sf(limit, freedom, shift)) + lower


def seeds_needed(difference: float, sd: float, level: float = 1 - LEVEL) -> int | None:
    """The fewest seeds with which four of five repetitions would find a difference of this size at a level.

    Taken as if the observed difference and standard deviation were the true ones, and never fewer than a claim
    needs. None where more than a thousand are needed, or where nothing can be said (one seed, no difference).
    """
    if not (math.isfinite(difference) and math.isfinite(sd)) or difference == 0:
        return None
    if sd == 0:
        return SEEDS_FOR_A_CLAIM
    effect = difference / sd  # perhaps infinite
    if power(effect, MOST_SEEDS, level) < POWER:
        return None
    low, high = 1, MOST_SEEDS  # one seed tells nothing, and power grows with the seeds: halve the range
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, level) >= POWER else (middle, high)
    return max(high, SEEDS_FOR_A_CLAIM)


def mcnemar(only_mine: int, only_theirs: int) -> float:
    """The exact two-sided p of McNemar's test: items that one model alone got right fall to either side like a coin.

    McNemar 1947, by the binomial distribution: items that both or neither got right say nothing.
    """
    together = only_mine + only_theirs
    return float(stats.binomtest(only_mine, together).pvalue) if together else 1.0
