"""Mean ranks over tasks: Demsar's own table and numbers, and the critical difference by another integral."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from posenc.report.figures.ranks import critical_differences
from posenc.report.figures.style import looks
from posenc.report.statistics.ranks import critical_difference, ranked

PUBLISHED = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
"""Demsar 2006, table 5(a): q at 0.05 by the number of classifiers."""
NAMES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
RANKS = """
4 3 2 1  1 2 3 4  4 1 2 3  4 1 3 2  4 2 3 1  1 2.5 4 2.5  3 2 4 1  2.5 2.5 4 1  4 3 2 1  2.5 2.5 2.5 2.5
4 2.5 1 2.5  3 2 4 1  4 1 2 3  3 1 4 2
"""
"""Demsar 2006, table 6: how four classifiers rank on fourteen sets of data."""
TABLE = np.array(RANKS.split(), float).reshape(-1, 4)


def group(task: str, scores: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    common = {"task": task, "better": "higher", "n": 5, "above": None, **changes}
    return [{**common, "encoding": name, "mean": value} for name, value in scores.items()]


def demsar() -> list[list[dict[str, Any]]]:
    return [group(f"set{i}", dict(zip(NAMES, row, strict=True)), better="lower") for i, row in enumerate(TABLE)]


@pytest.mark.parametrize(("many", "q"), PUBLISHED.items())
def test_the_critical_difference_is_the_published_one(many: int, q: float) -> None:
    assert critical_difference(many, 14) == pytest.approx(q * math.sqrt(many * (many + 1) / 84), rel=3e-4)


def test_the_critical_difference_of_forty_by_another_integral() -> None:
    """The range of k normal scores is below r with probability k times the integral of phi(x) (F(x + r) - F(x))^(k-1),
    x the least of them.
    """
    many, tasks = 40, 9
    wide = critical_difference(many, tasks) / math.sqrt(many * (many + 1) / (12 * tasks))
    x = np.linspace(-9, 9, 20001)
    inside = stats.norm.pdf(x) * (stats.norm.cdf(x + wide) - stats.norm.cdf(x)) ** (many - 1)
    assert many * np.trapezoid(inside, x) == pytest.approx(0.95, abs=1e-6)


def test_demsars_example() -> None:
    """His section 3.2.2: mean ranks, Friedman's statistic 9.28 (without a correction for ties), q 2.569: 1.25."""
    found = ranked(demsar())
    assert found is not None
    wanted = {"C4.5": 3.143, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert dict(zip(found.encodings, found.ranks, strict=True)) == pytest.approx(wanted, abs=5e-4)
    assert found.encodings == ("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5")
    assert found.critical == pytest.approx(1.25, abs=0.005)
    # By hand, with the correction for ties, which his statistic lacks: 9.28 over 1 - sum(t^3 - t) / (N (k^3 - k)).
    square = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in found.ranks) - 4 * 5**2 / 4)
    assert square == pytest.approx(9.28, abs=0.01)
    ties = [len(set(row)) for row in TABLE.tolist()]
    lost = sum({4: 0, 3: 6, 1: 60}[distinct] for distinct in ties)
    assert found.p == pytest.approx(stats.chi2.sf(square / (1 - lost / (14 * 60)), 3))
    # 2.893 - 1.964 < 1.25 > 3.143 - 2.000, and 3.143 - 1.964 < 1.25 too: Nemenyi's test joins them all.
    assert found.together == ((0, 3),)


def test_what_is_no_task_of_its_own_counts_once_and_what_is_at_the_floor_not_at_all() -> None:
    best = {"a": 1.0, "b": 2.0, "c": 3.0}
    eight = [group(f"t{index}", best, better="lower") for index in range(8)]
    found = ranked(eight)
    assert found is not None
    assert (found.encodings, found.ranks, len(found.tasks)) == (("a", "b", "c"), (1.0, 2.0, 3.0), 8)
    assert found.together == ((0, 1), (1, 2)), "a critical difference of 1.17"
    assert ranked(eight[:7]) is None
    assert ranked([*eight[:7], group("t7", best, above=False)]) is None
    assert ranked([*eight[:7], group("t0", best)]) is None, "a task's second group is no task more"
    assert ranked([*eight[:7], group("t7", {"a": 1.0, "b": 2.0})]) is None, "two encodings in common are too few"
    turned = group("t0", {"a": 3.0, "b": 2.0, "c": 1.0}, better="lower")
    mixed = ranked([*eight, turned])
    assert mixed is not None and mixed.ranks == (1.125, 2.0, 2.875)  # tied in t0: 2 each
    more = ranked([*eight[:7], group("t7", best | {"d": 0.5}, better="lower")])
    assert more is not None and more.left_out == ("d",)


def test_the_diagram_says_who_is_joined_and_who_is_left_out() -> None:
    names = [f"e{index}" for index in range(6)]
    rows = [group(f"t{index}", {name: place for place, name in enumerate(names)}) for index in range(12)]
    found = ranked([*rows[:11], group("t11", {**{name: place for place, name in enumerate(names)}, "more": 9.0})])
    assert found is not None
    picture = critical_differences(found, {name: name.upper() for name in names}, looks(names))
    assert "critical difference 2.18" in picture.svg
    assert "<title>E5: mean rank 1.00 over 12 tasks</title>" in picture.svg
    assert any("left out: more" in note for note in picture.notes)
    assert not any("bar joins them all" in note for note in picture.notes)
    tied = ranked([group(f"t{index}", dict.fromkeys(names, 1.0)) for index in range(8)])
    assert tied is not None and tied.p == 1.0 and tied.together == ((0, 5),)
    assert any(
        "joins them all" in note
        for note in critical_differences(tied, dict(zip(names, names, strict=True)), looks(names)).notes
    )
