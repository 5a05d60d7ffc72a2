"""Encodings ranked over tasks: Friedman's test, and Nemenyi's critical difference (Demsar 2006, JMLR 7, section 3.2.2).

It describes many tasks at once; what is claimed stands in `claims` alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from posenc.report.statistics.intervals import LEVEL

TASKS = 8
"""Of fewer tasks the tests see next to nothing."""
FEWEST = 3
"""Friedman's test is of three or more."""


@dataclass(frozen=True)
class Ranks:
    """Mean ranks over tasks, the best first.

    Attributes:
        encodings: in the order of their mean ranks; 1 is best, ties share the mean of their ranks.
        tasks: over which. p: of Friedman's test. critical: mean ranks that lie further apart differ at 5 %.
        together: (first, last) places of the longest runs that lie no further apart; all, where Friedman's test finds
            no difference. left_out: encodings without a score on each of the tasks.
    """

    encodings: tuple[str, ...]
    ranks: tuple[float, ...]
    tasks: tuple[str, ...]
    p: float
    critical: float
    together: tuple[tuple[int, int], ...]
    left_out: tuple[str, ...]


def above_floor(groups: Sequence[Sequence[dict[str, Any]]]) -> list[Sequence[dict[str, Any]]]:
    """The groups in which some encoding is better than a score without a model, or there is no such score."""
    scored = [[row for row in group if row["n"]] for group in groups]
    return [rows for rows in scored if rows and not all(row["above"] is False for row in rows)]


def ranked(groups: Sequence[Sequence[dict[str, Any]]]) -> Ranks | None:
    """Ranks over the tasks above the floor; None where these are fewer than TASKS, or share too few encodings.

    Groups of one task (softmax and performer, say) are no tasks of their own: their ranks are averaged, and ranked.

    Args:
        groups: `tables.at_trained`.
    """
    by_task: dict[str, list[dict[str, float]]] = {}
    for rows in above_floor(groups):
        sign = -1 if rows[0]["better"] == "higher" else 1
        by_task.setdefault(str(rows[0]["task"]), []).append({row["encoding"]: sign * row["mean"] for row in rows})
    every = [scores for of in by_task.values() for scores in of]
    names = list(dict.fromkeys(name for scores in every for name in scores))
    shared = [name for name in names if all(name in scores for scores in every)]
    if len(by_task) < TASKS or len(shared) < FEWEST:
        return None
    table = np.array(
        [
            stats.rankdata(np.mean([stats.rankdata([scores[name] for name in shared]) for scores in of], axis=0))
            for of in by_task.values()
        ]
    )
    means = table.mean(axis=0)
    order = sorted(range(len(shared)), key=lambda index: means[index])
    ranks = [float(means[index]) for index in order]
    # Where all are tied on each task there is nothing to test.
    p = float(stats.friedmanchisquare(*table.T).pvalue) if np.ptp(table, axis=1).any() else 1.0
    critical = critical_difference(len(shared), len(table))
    apart = critical if p < 1 - LEVEL else math.inf
    left_out = tuple(name for name in names if name not in shared)
    return Ranks(
        tuple(shared[index] for index in order), tuple(ranks), tuple(by_task), p, critical,
        tuple(_together(ranks, apart)), left_out,
    )  # fmt: skip


def critical_difference(encodings: int, tasks: int) -> float:
    """Nemenyi's: q sqrt(k (k + 1) / 6N), q that of the studentized range over sqrt 2, at 5 %."""
    q = float(stats.studentized_range.isf(1 - LEVEL, encodings, np.inf)) / math.sqrt(2)
    return q * math.sqrt(encodings * (encodings + 1) / (6 * tasks))


def _together(ranks: Sequence[float], apart: float) -> list[tuple[int, int]]:
    """The longest runs of ranks in order that lie no further apart: none within another, none of one alone."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(index for index, other in enumerate(ranks) if other - rank <= apart)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
