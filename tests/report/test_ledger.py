"""The ledger of claims: each verdict, one family by Holm, what is not tested, the pages; a null simulation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import cell, make_store, pages, record, visible
from scipy import stats

from posenc.records.manifest import union, with_claims
from posenc.records.record import without_seed
from posenc.records.store import Store
from posenc.report.statistics import ledger
from posenc.report.statistics.intervals import interval, power
from posenc.report.view import View

BASE = [3.2, 3.3, 3.25, 3.31, 3.19]
LOWER = [3.0, 3.1, 3.06, 3.12, 3.0]
NEAR = [3.21, 3.29, 3.26, 3.3, 3.2]
SCORES: dict[str, list[Any]] = {"sinusoidal": BASE, "rope": LOWER, "t5": NEAR, "alibi": LOWER[:3]}


def comparison(encoding: str, baseline: str = "sinusoidal", **changes: Any) -> dict[str, Any]:
    arms = {"mine": without_seed(cell(encoding, 0)["config"]), "theirs": without_seed(cell(baseline, 0)["config"])}
    own = {
        "encoding": encoding,
        "baseline": baseline,
        "metric": "",
        "metric_theirs": "",
        "holds": "better",
        "margin": 0.0,
    }
    figure = {"metric": "perplexity", "encoding": 18.41, "baseline": 31.58, "spread": "", "says": ""}
    figure |= {"source": "Table 2", "second_hand": True}
    return {**own, **arms, "evaluated": 64, "evaluated_theirs": 64, "published": [figure], **changes}


def claim(name: str, *compare: dict[str, Any], why_not: str = "") -> dict[str, Any]:
    told = {"title": f"Title of {name}", "who": "Someone et al. 2020", "paper": "arXiv:2001.00001", "where": "Table 2"}
    published = [] if compare else [{**comparison("rope")["published"][0], "second_hand": False}]
    return {
        "name": name,
        **told,
        "says": "As it says",
        "why_not": why_not,
        "published": published,
        "compare": list(compare),
    }


def store_of(folder: Path, scores: dict[str, list[Any]], told: list[dict[str, Any]], **more: Any) -> Store:
    """A score a seed, worse by 1 at four times the length; None is a cell that has not run, a table a failure."""
    cells, records = [], []
    for name, values in scores.items():
        for seed, value in enumerate(values):
            cells.append(cell(name, seed))
            if isinstance(value, dict):
                records.append(record(cells[-1], status="failed", **value))
            elif value is not None:
                records.append(record(cells[-1], value, value + 1))
    store = make_store(folder, cells, records, claim="")
    store.write_manifest({**store.read_manifest(), "claims": told, **more})
    return store


def verdicts(store: Store) -> list[tuple[str, str]]:
    return [(row["verdict"], row["why"]) for row in View(store).ledger.to_dict("records")]


def test_each_verdict(tmp_path: Path) -> None:
    told = [
        claim("a", comparison("rope"), comparison("rope", holds="worse"), comparison("t5"), comparison("alibi")),
        claim("b", comparison("t5", holds="same", margin=0.05), comparison("rope", holds="same", margin=0.05)),
        claim("c", why_not="it needs images"),
        claim("d", comparison("rope", "rope", evaluated=256, holds="worse")),
        claim("e", comparison("t5", mine="", evaluated=None)),
    ]
    store = store_of(tmp_path, SCORES, told)
    found = View(store).ledger
    assert list(found["verdict"]) == [
        "holds here", "opposite here", "cannot tell", "not yet", "holds here", "opposite here", "not at this scale",
        "cannot tell", "not yet",
    ]  # fmt: skip
    assert list(found["why"])[3] == "3 of 5 seeds" and list(found["why"])[6] == "it needs images"
    assert "without a spread" in found["why"][7]  # everywhere worse by exactly 1
    assert found["why"][8] == "0 of 5 seeds"
    html, markdown = pages(store)
    for text in (visible(html), markdown):
        assert "perplexity: 18.41 against 31.58 (Table 2; second hand)" in text
        assert "not yet: 3 of 5 seeds" in text and "not at this scale: it needs images" in text
        assert "holds here: 2, opposite here: 2, cannot tell: 2, not yet: 2, not at this scale: 1" in text
    assert html.index('id="ledger"') < html.index('id="answer"')
    written = pd.read_csv(store.folder / "report" / "tables" / "ledger.csv")
    assert list(written["verdict"]) == list(found["verdict"])


def holm_by_definition(ps: list[float]) -> list[float]:
    """Holm 1979: the smallest times m, the next times m - 1, ..., none below the one before."""
    found, before = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        found[index] = before = min(1.0, max(before, (len(ps) - rank) * ps[index]))
    return found


def test_holm_over_the_family_by_its_definition_and_alpha_spent_over_looks(tmp_path: Path) -> None:
    told = [claim("a", comparison("rope"), comparison("t5"), comparison("alibi")), claim("b", why_not="no")]
    found = View(store_of(tmp_path, SCORES, told)).ledger
    ps = [stats.ttest_rel(SCORES[name], BASE).pvalue for name in ("rope", "t5")]
    expected = np.array(holm_by_definition([*ps, 1.0]))  # alibi's seeds are few: it is of the family all the same
    assert list(found["p_holm"][:2]) == pytest.approx(np.minimum(1, expected[:2] / 0.9))
    assert math.isnan(found["p_holm"][2]) and math.isnan(found["p_holm"][3])
    again = store_of(
        tmp_path / "again", SCORES, told, asked=[{"seeds": [0, 1, 2, 3, 4]}, {"seeds": [0, 1, 2, 3, 4, 5]}]
    )
    assert list(View(again).ledger["p_holm"][:2]) == pytest.approx(np.minimum(1, expected[:2] / 0.09))


def test_the_smallest_difference_is_found_four_times_in_five(tmp_path: Path) -> None:
    row = View(store_of(tmp_path, SCORES, [claim("a", comparison("t5"))])).ledger.to_dict("records")[0]
    sd = float(np.std(np.subtract(NEAR, BASE), ddof=1))
    assert row["verdict"] == "cannot tell" and row["level"] == pytest.approx(0.045)
    assert power(row["smallest"] / sd, 5, 0.045) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("lost", "verdict", "why"),
    [
        (
            {"reason": "loss is not finite"},
            "cannot tell",
            "seeds are missing: rope, 1 seed (5: failed: loss is not finite",
        ),
        ({"reason": "killed", "cause": "machine"}, "holds here", ""),
        (None, "not yet", "5 of 6 seeds"),  # a look at five and one at six are two chances, and one is known of
    ],
)
def test_what_is_lost_in_training_or_still_to_come_bars_a_verdict(
    tmp_path: Path, lost: Any, verdict: str, why: str
) -> None:
    scores = {"sinusoidal": [*BASE, 3.27], "rope": [*LOWER, lost]}
    found = verdicts(store_of(tmp_path, scores, [claim("a", comparison("rope"))]))
    assert found[0][0] == verdict and found[0][1].startswith(why)


def test_scores_at_the_floor_and_contradicted_ones_are_no_verdict(tmp_path: Path) -> None:
    floor = {name: [value + 2 for value in values] for name, values in SCORES.items()}  # a unigram has 4.71
    found = verdicts(store_of(tmp_path, floor, [claim("a", comparison("rope"))]))
    assert found == [("not at this scale", "at the floor: neither is above unigram (4.71)")]
    skewed = {"sinusoidal": [2.997, 3.001, 3.001, 3.003, 2.998, 3.003], "rope": [2.94, 2.67, 2.73, 2.56, 2.94, 2.65]}
    found = verdicts(store_of(tmp_path / "skewed", skewed, [claim("a", comparison("rope"))]))
    assert found[0][0] == "cannot tell" and "but not a t-test that allows for skewed scores" in found[0][1]


def test_a_margin_is_tested_from_both_sides() -> None:
    differences = np.array([0.02, -0.01, 0.015, 0.0, -0.005])
    mine, theirs = 3 + differences, np.full(5, 3.0)
    found = ledger.paired(list(mine), list(theirs), 0.1)
    ends = [stats.ttest_1samp(differences, -0.1, alternative="greater").pvalue]
    ends.append(stats.ttest_1samp(differences, 0.1, alternative="less").pvalue)
    assert found["p"] == pytest.approx(2 * max(ends)) and found["p_flips"] == pytest.approx(2 / 32)
    far = ledger.paired(list(mine + 0.3), list(theirs), 0.1)
    assert far["p"] == pytest.approx(2 * stats.ttest_1samp(differences + 0.3, 0.1, alternative="greater").pvalue)


def test_a_run_of_other_tasks_forgets_no_claims_cells() -> None:
    cells = [cell("rope", 0), cell("sinusoidal", 0)]
    whole = {"cells": cells, "claims": [claim("a", comparison("rope"))], "suite": {"definition": "1"}}
    part = {**whole, "claims": [claim("a", comparison("rope", mine="", theirs=""))], "cells": cells[:1]}
    assert union(whole, part)["claims"] == whole["claims"] == with_claims([part, whole])["claims"]


@pytest.mark.slow
def test_without_any_difference_at_most_one_ledger_in_twenty_says_one() -> None:
    """2,000 ledgers of eight lines over five seeds, half of them with heavy tails; the arms of a line share luck."""
    generator = np.random.default_rng(0)
    ledgers, lines, wrong = 2000, 8, 0
    for _ in range(ledgers):
        rows = []
        for line in range(lines):
            noise = generator.normal(size=(2, 5)) if line % 2 else generator.standard_t(3, size=(2, 5))
            mine, theirs = (list(one) for one in generator.normal(3, 0.1, 5) + 0.05 * noise)
            found = interval([a - b for a, b in zip(mine, theirs, strict=True)])
            common = {"pairs": 5, "verdict": "", "why": "", "at_floor": "", "lacking": "", "margin": 0.0, "to_come": 0}
            common |= {"holds": "better", "better": "lower", "difference": found.mean, "difference_sd": found.sd}
            rows.append({**common, **ledger.paired(mine, theirs)})
        told = ledger.judged(pd.DataFrame(rows), looks=1)["verdict"]
        wrong += bool(told.isin([ledger.HOLDS, ledger.OPPOSITE]).any())
    assert 0 < wrong <= 0.05 * ledgers, f"{wrong} of {ledgers} ledgers"
