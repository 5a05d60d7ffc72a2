"""How often a report claims a difference where there is none, and finds one that is there: simulated suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import cell, record
from numpy.typing import NDArray

from posenc.report.statistics import claims
from posenc.report.statistics.intervals import power
from posenc.report.statistics.tables import described, judged, scores_frame

pytestmark = pytest.mark.slow

SUITES = 2000
Draw = Callable[[np.random.Generator, int], tuple[NDArray[Any], NDArray[Any]]]
"""Scores of the claim and of the baseline, (seeds,) each, of one mean; NaN: the cell diverged."""


def normal(generator: np.random.Generator, seeds: int) -> tuple[NDArray[Any], NDArray[Any]]:
    shared = generator.normal(3, 0.1, seeds)
    return shared + generator.normal(0, 0.05, seeds), shared + generator.normal(0, 0.05, seeds)


def discrete(generator: np.random.Generator, seeds: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Accuracies over forty items."""
    mine, theirs = generator.binomial(40, 0.7, (2, seeds)) / 40
    return mine, theirs


def skewed(generator: np.random.Generator, seeds: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """One arm that now and then goes far wrong, beside one that hardly varies."""
    return 2.9 + generator.exponential(0.1, seeds), generator.normal(3, 0.001, seeds)


def diverging(generator: np.random.Generator, seeds: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The worst of the claim's seeds are lost."""
    mine, theirs = normal(generator, seeds)
    return np.where(mine > np.quantile(mine, 0.75), np.nan, mine), theirs


def verdicts(scores: list[tuple[NDArray[Any], NDArray[Any]]], asked: list[int]) -> list[str]:
    """What the report says of suites of one comparison each, from their records on.

    They are tasks of one store, described at once (pandas takes its time), and each is judged as a suite of its own.
    """
    cells, records = [], []
    for number, arms in enumerate(scores):
        for name, values in zip(("rope", "sinusoidal"), arms, strict=True):
            for seed, value in enumerate(values):
                one = cell(name, seed)
                one["config"]["task"], one["id"] = str(number), f"{number} {name} {seed}"
                lost = {"status": "failed", "reason": "diverged"} if np.isnan(value) else {}
                cells.append(one)
                records.append(record(one, *([] if lost else [float(value)]), **lost))
    suite = {"name": "x", "baseline": "sinusoidal", "claim": "rope"}
    manifest = {"suite": suite, "cells": cells, "asked": [{"seeds": list(range(count))} for count in asked]}
    rows = described(scores_frame(records, manifest), manifest)
    families = pd.concat([judged(own, manifest) for _, own in rows.groupby("task", sort=False)])
    found = {int(row["task"]): claims.verdict(row) for row in families[families["named"]].to_dict("records")}
    return [found[number] for number in range(len(scores))]


def share_that_claims(draw: Draw, seeds: tuple[int, ...], fresh_seed: int) -> float:
    """How many suites claim something: looked at after each number of seeds, and extended where they do not."""
    generator = np.random.default_rng(fresh_seed)
    left, claimed = [draw(generator, seeds[-1]) for _ in range(SUITES)], 0
    for look, count in enumerate(seeds):
        told = verdicts([(mine[:count], theirs[:count]) for mine, theirs in left], list(seeds[: look + 1]))
        claimed += sum(one in ("better", "worse") for one in told)
        left = [one for one, said in zip(left, told, strict=True) if said not in ("better", "worse")]
    return claimed / SUITES


@pytest.mark.parametrize(
    ("draw", "seeds"),
    [(normal, (5,)), (discrete, (5,)), (skewed, (5,)), (diverging, (8,)), (normal, (5, 7, 9))],
    ids=["normal", "discrete", "skewed", "diverged", "extended after looks"],
)
def test_at_most_one_family_in_twenty_claims_what_is_not_there(
    draw: Draw, seeds: tuple[int, ...], fresh_seed: int
) -> None:
    share = share_that_claims(draw, seeds, fresh_seed)
    assert share <= 0.05 + 3 * (0.05 * 0.95 / SUITES) ** 0.5, share  # three standard errors: one run in seven hundred


def test_the_power_that_is_stated_is_what_is_found() -> None:
    """A difference of two standard deviations, five seeds: 0.86 where 0.89 is stated, as the signs have a say too."""
    generator, arms = np.random.default_rng(0), []
    for _ in range(SUITES):
        shared, noise = generator.normal(3, 0.1, 5), generator.normal(0, 0.05 / 2**0.5, (2, 5))
        arms.append((shared - 0.1 + noise[0], shared + noise[1]))
    found = verdicts(arms, [5]).count("better") / SUITES
    assert found == pytest.approx(power(2.0, 5, claims.LEVEL * claims.FIRST), abs=0.05)
