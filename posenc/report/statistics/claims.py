"""When a comparison that a suite names may be called a claim: the rule, told once.

A claim needs all of these. tests/report/test_false_claims.py tries them together on suites without any difference.
    five seeds of both, none missing for a cause that lies in training (`lacking`);
    a paired t-test below 5 %, adjusted by Holm over all comparisons named, and for looks (`at_look`);
    no contradiction by the signs: the sign-flip permutation test (Fisher 1935, section 21) may not lie above 5 %,
        rounded up to what so many seeds can show (five: 6.25 %);
    where one arm's scores spread three times as widely as the other's, Johnson's t (1978), which allows for skewness,
        below 2.5 %: differences are then as skewed as that arm's scores, and a plain t-test claims too often;
    a score above the floor, of one of the two (`floors`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from posenc.records.record import is_number
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM

LEVEL = 0.05
FIRST, LATER = 0.9, 0.1
"""Of the level the first look has nine tenths, and each later one a tenth of what the one before had: 5 % in all."""
UNEQUAL, SKEWED_LEVEL = 3.0, 0.025
_MOST_FLIPPED = 17
"""Differences whose signs are flipped in every way; of more, in SAMPLED ways drawn by a fixed seed."""
_SAMPLED = 100_000

VERDICTS = ("better", "worse", "not told apart", "tests disagree", "at the floor", "seeds missing", "too few seeds",
            "no spread, no test", "no comparison", "described")  # fmt: skip


def at_look(p: float, look: int) -> float:
    """A p as it stands at a look at the results, counted from 1: alpha spent by FIRST and LATER.

    After Lan and DeMets 1983. A suite that gets more seeds after its results were seen has another chance to claim: all
    its chances together keep to the level.
    """
    return min(1.0, p / (FIRST * LATER ** (look - 1)))


def sign_flips(values: Sequence[float]) -> float:
    """The two-sided p of the sign-flip permutation test of differences whose mean may be nought; NaN of none."""
    if not values:
        return math.nan
    differences = np.asarray(values, float)
    count = len(differences)
    if count <= _MOST_FLIPPED:
        # The first keeps its sign: to turn all of them changes nothing of a two-sided test.
        ways = np.arange(2 ** (count - 1))[:, None] >> np.arange(count - 1) & 1
        signs = np.hstack([np.ones((len(ways), 1)), 1 - 2 * ways])
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (_SAMPLED, count))
        signs = np.vstack([np.ones((1, count)), 1 - 2 * drawn])
    with np.errstate(all="ignore"):
        sums = np.abs(signs @ differences)
    return float(np.mean(sums >= sums[0] * (1 - 1e-9)))


def flips_limit(seeds: int) -> float:
    """The level of the signs' test, rounded up to a p that so many seeds can have."""
    steps = 2.0 ** (seeds - 1)
    return math.ceil(LEVEL * steps) / steps


def johnsons_p(values: Sequence[float]) -> float:
    """The two-sided p of Johnson's modified t-test, which allows for a skewed population; NaN where nothing varies.

    Johnson 1978, "Modified t tests and confidence intervals for asymmetrical populations", equation 2.6 at mu = 0:
    t = (m + mu3 / (6 s^2 n) + mu3 m^2 / (3 s^4)) sqrt(n) / s.
    """
    x = np.asarray(values, float)
    n = len(x)
    if n < 3 or np.ptp(x) == 0:
        return math.nan
    with np.errstate(all="ignore"):  # of scores at the ends of what a float holds there is no number
        mean, variance = x.mean(), x.var(ddof=1)
        third = np.sum((x - mean) ** 3) * n / ((n - 1) * (n - 2))
        moved = mean + third / (6 * variance * n) + third * mean**2 / (3 * variance**2)
        return 2 * float(stats.t.sf(abs(moved) * np.sqrt(n / variance), n - 1))


def skewed_p(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Johnson's p of paired scores where one arm spreads UNEQUAL times as widely as the other; else NaN."""
    if len(mine) < 3:
        return math.nan
    with np.errstate(all="ignore"):
        low, high = sorted((float(np.std(mine, ddof=1)), float(np.std(theirs, ddof=1))))
    if high <= UNEQUAL * low:
        return math.nan
    return johnsons_p([a - b for a, b in zip(mine, theirs, strict=True)])


def looks(manifest: Mapping[str, Any]) -> int:
    """How often a suite could have made a claim: once, and once more for each time that seeds were added after it.

    Results of fewer seeds than a claim needs can make none, so what was added after them spends nothing.
    """
    asked = manifest.get("asked") or []
    return 1 + sum(len(before["seeds"]) >= SEEDS_FOR_A_CLAIM for before in asked[:-1])


def disagrees(row: Mapping[str, Any]) -> str:
    """Which test contradicts the paired t-test, in words; "" where none does."""
    if is_number(row["p_flips"]) and row["p_flips"] > flips_limit(int(row["pairs"])) * (1 + 1e-9):
        return "the signs of the differences"
    if is_number(row["p_skewed"]) and row["p_skewed"] >= SKEWED_LEVEL:
        return "a t-test that allows for skewed scores (one arm spreads over three times as widely as the other)"
    return ""


def verdict(row: Mapping[str, Any]) -> str:
    """How a row of the summary came out: one of VERDICTS."""
    if not row["named"]:
        return "described"
    if not row["pairs"]:
        return "no comparison"
    if row["at_floor"]:
        return "at the floor"
    if row["lacking"]:
        return "seeds missing"
    if row["pairs"] < SEEDS_FOR_A_CLAIM:
        return "too few seeds"
    if not is_number(row["p_holm"]):
        return "no spread, no test"
    if row["p_holm"] >= LEVEL:
        return "not told apart"
    if disagrees(row):
        return "tests disagree"
    return "better" if (row["difference"] < 0) == (row["better"] == "lower") else "worse"
