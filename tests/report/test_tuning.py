"""Values that a suite tries for every encoding alike, and rows with names of their own: from the TOML to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made import cell, make_store, pages, record, visible

from posenc.common.errors import ConfigError, PosencError
from posenc.config.task import task_at
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.report.statistics import tuning

RATES = (0.001, 0.002, 0.004)
SUITE = """
name = "tuned"
title = "Tuned"
baseline = "sinusoidal"
seeds = [0, 1]
[[grid]]
tasks = ["enwik8"]
encodings = ["sinusoidal", "rope"]
set = { "backbone.attention" = "softmax" }
tune = { "training.learning_rate" = [0.001, 0.002, 0.004] }
names = { rope = "RoFormer" }
"""


def suite_at(folder: Path, **changes: str) -> str:
    text = SUITE
    for old, new in changes.items():
        line = next(line for line in text.splitlines() if line.startswith(old))
        text = text.replace(line, new)
    path = folder / "tuned.toml"
    path.write_text(text)
    return str(path)


def test_every_encoding_gets_the_same_values(tmp_path: Path) -> None:
    plan = make(find_suite(suite_at(tmp_path)), Selection())
    assert len(plan.cells) == 2 * 3 * 2
    for name in ("sinusoidal", "rope"):
        mine = [one for one in plan.cells if one.config["encoding"]["name"] == name]
        assert {one.config["training"]["learning_rate"] for one in mine} == set(RATES)
        assert all(one.tuned == {"training.learning_rate": one.config["training"]["learning_rate"]} for one in mine)
        assert {one.label for one in mine} == {"RoFormer" if name == "rope" else ""}
    assert len({one.name for one in plan.cells}) == len(plan.cells)


def test_multiples_are_of_the_tasks_own_value_at_its_scale(tmp_path: Path) -> None:
    path = suite_at(tmp_path, tune='tune = { "training.learning_rate" = { times = [0.5, 1.0, 2.0] } }')
    for scale in ("smoke", "paper"):
        own = task_at("enwik8", scale, {}).training.learning_rate
        cells = make(find_suite(path), Selection(scale=scale), need_data=False).cells
        rates = {one.config["training"]["learning_rate"] for one in cells}
        assert rates == {float(f"{own * factor:.12g}") for factor in (0.5, 1.0, 2.0)}


@pytest.mark.parametrize(
    ("changes", "choice", "message"),
    [
        ({"tune": 'tune = { "backbone.layers" = [1, 2] }'}, {}, "must be keys of training"),
        ({"tune": 'tune = { "training.learning_rate" = [] }'}, {}, "at least one value"),
        ({"tune": 'tune = { "training.schedule" = { times = [2.0] } }'}, {}, "has no multiples"),
        ({"tune": 'tune = { "training.lr" = [0.1] }'}, {}, "unknown key training.lr"),
        ({"names": 'names = { ropee = "RoFormer" }'}, {}, "did you mean 'rope'"),
        ({}, {"changes": {"training.learning_rate": 0.1}}, "tunes over it"),
        (
            {"names": 'vary = { "training.learning_rate" = [0.1] }'},
            {},
            "stands in vary as well",
        ),
    ],
)
def test_bad_tuning_is_refused(tmp_path: Path, changes: dict[str, str], choice: dict[str, Any], message: str) -> None:
    with pytest.raises(PosencError, match=message):
        make(find_suite(suite_at(tmp_path, **changes)), Selection(**choice))


def test_no_value_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = suite_at(tmp_path, tune='tune = { "training.learning_rate" = [] }')
    with pytest.raises(ConfigError, match=r"tuned\.toml.*tune"):
        find_suite(path)


def tuned_store(folder: Path, scores: dict[tuple[str, float], list[tuple[float, float] | None]]) -> Store:
    """(validation, test) by encoding and rate, a pair for each seed; None for a cell that failed."""
    cells, records = [], []
    for (name, rate), pairs in scores.items():
        for seed, pair in enumerate(pairs):
            one = cell(name, seed, learning_rate=rate)
            one |= {"tuned": {"training.learning_rate": rate}, "label": "RoFormer" if name == "rope" else ""}
            cells.append(one)
            if pair is None:
                records.append(record(one, status="failed", reason="diverged"))
                continue
            records.append(record(one, pair[1]))
            records[-1]["scores"][-1]["value"] = pair[0]
    return make_store(folder, cells, records)


SCORES: dict[tuple[str, float], list[tuple[float, float] | None]] = {
    ("sinusoidal", 0.001): [(3.0, 3.11), (3.2, 3.31)],
    ("sinusoidal", 0.002): [(2.9, 3.51), (3.1, 3.71)],  # the best on validation, the worst on test
    ("rope", 0.001): [(2.8, 2.81), (2.8, 2.85)],
    ("rope", 0.002): [(1.0, 1.01), None],  # the best mean, but it fails on one seed
}


def test_validation_over_all_seeds_chooses_and_test_has_no_say(tmp_path: Path) -> None:
    store = tuned_store(tmp_path, SCORES)
    manifest, records, table = tuning.choose(store.read_manifest(), store.records())
    taken = table[table["taken"]].set_index("encoding")["setting"].to_dict()
    assert taken == {"sinusoidal": "learning_rate 0.002", "rope": "learning_rate 0.001"}
    assert len(manifest["cells"]) == len(records) == 4
    assert len(table) == 4
    assert set(table["variant"]) == {""}, "what is tuned is no variant"


def test_the_report_shows_what_was_taken_and_what_the_choice_mattered(tmp_path: Path) -> None:
    store = tuned_store(tmp_path, SCORES)
    html, markdown = pages(store)
    summary = pd.read_csv(store.folder / "report/tables/summary.csv")
    means = summary[summary["n"] > 0].set_index("encoding")["mean"]
    assert means.to_dict() == pytest.approx({"sinusoidal": 3.61, "rope": 2.83})
    text = visible(html)
    for said in (
        "Tuning",
        "RoFormer (rope)",
        "learning_rate 0.001",
        "3.100",
        "3.000",
        "taken",
        "1 of 2 seeds",
        "0.100",
    ):
        assert said in text, said
    assert "RoFormer (rope)" in markdown
    assert "learning_rate is 0.001, the baseline's 0.002" in text


def test_without_tuning_nothing_is_said_of_it(tmp_path: Path) -> None:
    one = cell("rope", 0)
    store = make_store(tmp_path, [one], [record(one, 3.0)])
    assert "Tuning" not in "".join(pages(store))
    assert not (store.folder / "report/tables/tuning.csv").exists()
