"""What bars a claim: missing and diverged seeds, looks, the floor, tests that disagree, mathematics."""

from __future__ import annotations

import itertools
import math
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import cell, make_store, pages, record, visible
from rich.console import Console
from scipy import stats

from posenc.objectives.metrics import ACCURACY, BITS_PER_CHARACTER
from posenc.records.manifest import union
from posenc.records.store import Store
from posenc.report import terminal_table
from posenc.report.statistics import claims
from posenc.report.statistics.resampling import draws, percentiles, resampled
from posenc.report.view import View

BASE = [3.2, 3.3, 3.25, 3.31, 3.19, 3.27]
BETTER = [3.0, 3.1, 3.06, 3.12, 3.0, 3.05]


def store_of(folder: Path, scores: dict[str, list[Any]], **suite: Any) -> Store:
    """A score a seed; in place of one the changes of a record without a score, or None for a cell that has not run."""
    cells, records = [], []
    for name, values in scores.items():
        for seed, value in enumerate(values):
            cells.append(cell(name, seed))
            if isinstance(value, dict):
                records.append(record(cells[-1], status="failed", **value))
            elif value is not None:
                records.append(record(cells[-1], value, value + 1))
    asked = suite.pop("asked", None)
    store = make_store(folder, cells, records, **suite)
    if asked:
        store.write_manifest({**store.read_manifest(), "asked": [{"seeds": list(range(count))} for count in asked]})
    return store


def named(store: Store) -> dict[str, Any]:
    summary = View(store).summary
    (row,) = summary[summary["named"].astype(bool)].to_dict("records")
    return {**row, "verdict": claims.verdict(row)}


def test_a_difference_in_five_seeds_is_a_claim(tmp_path: Path) -> None:
    row = named(store_of(tmp_path, {"sinusoidal": BASE[:5], "rope": BETTER[:5]}))
    assert row["verdict"] == "better"
    differences = [a - b for a, b in zip(BETTER[:5], BASE[:5], strict=True)]
    assert row["p_holm"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue / 0.9)
    assert row["p_flips"] == pytest.approx(2 / 32)


@pytest.mark.parametrize(
    ("gone", "barred"),
    [
        ({"reason": "diverged: the loss is nan at step 12"}, True),
        ({"reason": "RuntimeError: x"}, True),
        (None, True),
        ({"reason": "the worker process died twice: killed by signal 9", "cause": "machine"}, False),
    ],
)
@pytest.mark.parametrize("arm", ["rope", "sinusoidal"])
def test_a_seed_that_is_missing_bars_a_claim_but_where_the_machine_lost_it(
    tmp_path: Path, gone: dict[str, str] | None, barred: bool, arm: str
) -> None:
    scores: dict[str, list[Any]] = {"sinusoidal": [*BASE], "rope": [*BETTER]}
    scores[arm][2] = gone
    store = store_of(tmp_path, scores)
    row = named(store)
    assert row["pairs"] == 5
    assert row["verdict"] == ("seeds missing" if barred else "better")
    if barred:
        why = gone["reason"] if gone else "not run yet"
        for text in (visible(pages(store)[0]), pages(store)[1]):
            assert "no claim, as seeds are missing: " in text and why in text
            assert "rope is better than" not in text


@pytest.mark.parametrize(("asked", "looks"), [((6,), 1), ((3, 6), 1), ((5, 6), 2), ((5, 6, 7), 3), ((2, 5, 6), 2)])
def test_seeds_that_were_added_after_a_look_are_judged_more_strictly(
    tmp_path: Path, asked: tuple[int, ...], looks: int
) -> None:
    row = named(store_of(tmp_path, {"sinusoidal": BASE, "rope": BETTER}, asked=asked))
    assert row["looks"] == looks
    assert row["p_holm"] == pytest.approx(min(1, row["p"] / (0.9 * 0.1 ** (looks - 1))))


def test_the_levels_of_all_looks_are_the_level() -> None:
    levels = [0.05 / claims.at_look(1e-9, look) * 1e-9 for look in range(1, 9)]
    assert sum(levels) <= 0.05 and sum(levels) == pytest.approx(0.05, rel=1e-6)
    assert claims.at_look(0.5, 2) == 1.0


def test_a_manifest_remembers_what_was_asked_for_and_when() -> None:
    def manifest(seeds: int, made: str) -> dict[str, Any]:
        suite = {"name": "fake", "definition": "a"}
        return {"schema": 1, "suite": suite, "made": made, "cells": [cell("rope", seed) for seed in range(seeds)]}

    first = union(None, manifest(3, "mon"))
    assert first["asked"] == [{"made": "mon", "seeds": [0, 1, 2], "ended": 0}]
    early = union(first, manifest(5, "tue"), ended=0)  # nothing had ended: nobody can have looked
    assert early["asked"] == [{"made": "tue", "seeds": [0, 1, 2, 3, 4], "ended": 0}]
    late = union(early, manifest(7, "wed"), ended=5)
    assert late["asked"] == [*early["asked"], {"made": "wed", "seeds": list(range(7)), "ended": 5}]
    assert union(late, manifest(4, "thu"), ended=7)["asked"] == late["asked"]  # a part of it runs again
    older = {key: value for key, value in early.items() if key != "asked"}
    assert [one["seeds"] for one in union(older, manifest(7, "fri"), ended=5)["asked"]] == [[*range(5)], [*range(7)]]


def test_where_neither_is_better_than_without_a_model_nothing_is_said_of_encodings(tmp_path: Path) -> None:
    """The unigram's score is 4.71; both are worse, and apart from each other in every seed."""
    scores = {"sinusoidal": [5.0 + x / 50 for x in range(5)], "rope": [4.9 + x / 60 for x in range(5)]}
    store = store_of(tmp_path, scores)
    row = named(store)
    assert (row["verdict"], row["floor"], row["floor_name"]) == ("at the floor", 4.71, "unigram")
    html, page = pages(store)
    for text in (visible(html), page):
        assert "neither is above unigram (4.710), so this says nothing of encodings" in text
        assert "rope is better than" not in text
    assert 'class="floor"' in html
    assert "**4.9" not in page  # nothing is bold
    above = named(store_of(tmp_path / "one above", {**scores, "rope": BETTER[:5]}))
    assert above["verdict"] == "better"


def test_what_follows_from_a_definition_is_no_claim(tmp_path: Path) -> None:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in range(5)]
    records = []
    for index, one in enumerate(cells):
        of_theory = record(one, 1.0 + index / 100)
        for score in of_theory["scores"]:
            score["split"] = "theory"
        records.append(of_theory)
    store = make_store(tmp_path, cells, records)
    frame = View(store).measured
    assert len(frame) and not frame["named"].any() and frame["p_holm"].isna().all()
    console = Console(width=100, file=StringIO(), color_system=None)
    console.print(terminal_table(store))
    assert "never claimed" in console.file.getvalue() and "better than" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_sign_flips_by_hand_and_against_scipy() -> None:
    assert claims.sign_flips([1.0, 2.0, 3.0, 4.0, 5.0]) == 2 / 32
    assert claims.sign_flips([1.0, -1.0]) == 1.0
    assert math.isnan(claims.sign_flips([]))
    generator = np.random.default_rng(3)
    for count in (3, 6, 9):
        x = generator.normal(0.4, 1, count)
        every = [abs(np.dot(signs, x)) for signs in itertools.product((1, -1), repeat=count)]
        assert claims.sign_flips(list(x)) == pytest.approx(np.mean([one >= abs(x.sum()) - 1e-12 for one in every]))
    x = generator.normal(0.5, 1, 25)  # too many to flip in every way
    peer = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=50_000, rng=generator)
    assert claims.sign_flips(list(x)) == pytest.approx(peer.pvalue, abs=0.01)


def test_the_limit_of_the_signs_is_a_p_that_so_many_seeds_can_have() -> None:
    assert [claims.flips_limit(n) for n in (5, 6, 7, 8)] == [1 / 16, 2 / 32, 4 / 64, 7 / 128]


def test_johnsons_t_by_hand() -> None:
    # 1, 2, 3, 10: mean 4, variance 50/3, third moment (-27 - 8 - 1 + 216) * 4 / (3 * 2) = 120.
    x = [1.0, 2.0, 3.0, 10.0]
    variance = 50 / 3
    t = (4 + 120 / (6 * variance * 4) + 120 * 16 / (3 * variance**2)) * math.sqrt(4 / variance)
    assert claims.johnsons_p(x) == pytest.approx(2 * stats.t.sf(t, 3))
    symmetric = [-2.0, -1.0, 1.0, 2.5, -0.5]
    centred = [value - np.mean(symmetric) for value in symmetric]
    assert claims.johnsons_p(centred) > 0.8
    assert math.isnan(claims.johnsons_p([1.0, 1.0, 1.0]))


def test_one_arm_that_spreads_far_wider_needs_the_skewed_test_too(tmp_path: Path) -> None:
    near, wide = [3.2, 3.2001, 3.1999, 3.2, 3.2001], [3.05, 3.12, 3.0, 3.16, 3.08]
    row = named(store_of(tmp_path, {"sinusoidal": near, "rope": wide}))
    assert row["p_skewed"] == pytest.approx(claims.johnsons_p([a - b for a, b in zip(wide, near, strict=True)]))
    assert math.isnan(named(store_of(tmp_path / "b", {"sinusoidal": BASE, "rope": BETTER}))["p_skewed"])
    told = {**row, "p_holm": 0.01, "p_skewed": 0.03}
    assert claims.verdict(told) == "tests disagree" and "one arm spreads" in claims.disagrees(told)
    assert claims.verdict({**told, "p_skewed": 0.02}) == "better"
    assert claims.disagrees({**told, "p_skewed": math.nan, "p_flips": 0.2}) == "the signs of the differences"


def test_a_running_text_is_resampled_in_blocks() -> None:
    """Neighbours that are alike say less than so many items would: the interval of their mean must be wider."""
    generator = np.random.default_rng(0)
    items, alike = 1000, 10
    values = np.repeat(generator.normal(0, 1, items // alike), alike)
    widths = {}
    for metric in (ACCURACY, BITS_PER_CHARACTER):
        arrays = {metric.items[0]: values, metric.items[1]: np.ones(items)}
        found = resampled(metric, [arrays])
        assert found is not None
        low, high = percentiles(found[0])
        widths[metric.name] = high - low
    truth = 2 * 1.96 / math.sqrt(items / alike)
    assert widths["accuracy"] < 0.5 * truth
    assert 0.7 * truth < widths["bits_per_character"] < 1.1 * truth
    part = next(iter(draws(1000, running=True)))
    assert (part.sum(1) == 1000).all() and (part >= 0).all()
    assert (next(iter(draws(7, running=True))).sum(1) >= 7).all()
