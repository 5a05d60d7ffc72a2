"""Cells that measure trained models: from whose weights, what they keep, and what the report shows of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import pages, simple_store, visible

from posenc import trained
from posenc.common.errors import ConfigError
from posenc.config.task import task_at
from posenc.objectives.measuring import ANATOMY, BY_HEAD
from posenc.objectives.windows import separate
from posenc.plan.cell import Cell
from posenc.plan.plan import Plan, Selection, find_suite, make
from posenc.properties.anatomy import look
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.report.view import View
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = """
"backbone.layers" = 1
"backbone.width" = 32
"backbone.heads" = 2
"backbone.feedforward" = 32
"backbone.attention" = "softmax"
"evaluation.tokens" = 256
"""
SUITE = f"""
name = "mine"
title = "Mine"
baseline = "none"
seeds = [0, 1]

[[grid]]
tasks = ["enwik8"]
encodings = ["alibi"]
lengths = [16]
[grid.set]
"training.steps" = 20
"training.batch" = 4
"training.validate_every" = 10
{SHAPE}

[[grid]]
tasks = ["anatomy"]
encodings = ["alibi"]
lengths = [16]
vary = {{ start = ["scratch", "enwik8"] }}
[grid.set]
{SHAPE}

[[grid]]
tasks = ["anatomy"]
encodings = ["learned"]
lengths = [16]
seeds = [0]
[grid.set]
start = "scratch"
{SHAPE}
"""


def run(plan: Plan, folder: Path) -> dict[str, Record]:
    """The records of a plan by the names of its cells."""
    found = {}
    for cell in plan.cells:
        terms = CellTerms(plan.suite.name, folder, keep=frozenset(each.id for each in plan.cells), for_owner=True)
        record = training.train(cell, terms)
        assert record is not None and record["status"] == "done", record and record["traceback"]
        found[cell.name] = record
    Store(folder).write_manifest(plan.manifest("", "2026-01-01T00:00:00+00:00"))
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, dict[str, Record]]:
    folder = tmp_path_factory.mktemp("anatomy")
    (folder / "mine.toml").write_text(SUITE)
    plan = make(find_suite(str(folder / "mine.toml")), Selection())
    return Store(folder / "mine"), plan, run(plan, folder / "mine")


def test_a_trained_models_very_weights_are_measured(ran: tuple[Store, Plan, dict[str, Record]]) -> None:
    store, _, records = ran
    measured = records["anatomy/softmax/alibi/L16/start=enwik8/s0"]
    parent = trained.load(store.folder, "enwik8/softmax/alibi/L16/s0")
    assert measured["checkpoint"]["digest"] == parent.record["checkpoint"]["digest"]
    assert measured["best_step"] == parent.record["best_step"] and measured["tokens_seen"] == 0
    items = store.read_items(measured)
    made = trained.load(store.folder, measured["id"])
    assert repr(made) and made.settings.objective == "anatomy"
    objective = _objective(measured)
    (side_by_side,) = separate(objective.targets_of("test"), 16)
    batches = side_by_side.batches(objective.splits["test"], objective.evaluation.batch_tokens)
    windows = torch.from_numpy(np.concatenate(list(batches)))[:, :-1]
    mine = look(parent.model, windows)
    torch.testing.assert_close(torch.from_numpy(items["anatomy/16/mean_distance"]), mine.mean_distance.float())
    before = store.read_items(records["anatomy/softmax/alibi/L16/start=scratch/s0"])
    assert (before["anatomy/16/entropy"] != items["anatomy/16/entropy"]).all()
    for arrays in (before, items):  # the first head's slope is the steeper
        away = arrays["anatomy/64/mean_distance"]
        assert away[0, 0] < away[0, 1]
    assert (before["anatomy/16/similarity"] == items["anatomy/16/similarity"]).all(), "ALiBi learns nothing"


def _objective(record: Record) -> Any:
    from posenc.config.settings import Settings
    from posenc.objectives import factory

    return factory.make(Settings.of(record["config"]), None)


def test_it_has_every_metric_at_each_length_or_says_why(ran: tuple[Store, Plan, dict[str, Record]]) -> None:
    store, _, records = ran
    for name, record in records.items():
        if not name.startswith("anatomy"):
            continue
        rows = {(row["length"], row["metric"]): row for row in record["scores"]}
        assert set(rows) == {(length, metric.name) for length in (16, 64) for metric in ANATOMY}
        assert all(rows[16, metric.name]["value"] is not None for metric in ANATOMY)
        missing = {length for (length, _), row in rows.items() if row["value"] is None}
        assert missing == ({64} if "learned" in name else set())
        items = store.read_items(record)
        for metric in BY_HEAD:
            assert items[f"anatomy/16/{metric}"].shape == (1, 2)
            assert items[f"anatomy/16/{metric}"].mean() == pytest.approx(rows[16, metric]["value"], rel=1e-5)
        assert items["anatomy/16/maps"].shape == (1, 2, 16, 16) and items["anatomy/16/score"].shape == (1, 2, 16)


def test_measured_twice_it_is_the_same(ran: tuple[Store, Plan, dict[str, Record]]) -> None:
    store, plan, records = ran
    cell = next(cell for cell in plan.cells if cell.name == "anatomy/softmax/alibi/L16/start=enwik8/s1")
    first = records[cell.name]
    store.remove(cell.id)
    second = training.train(cell, CellTerms("mine", store.folder))
    assert second is not None and second["scores"] == first["scores"] and second["items"] == first["items"]


def test_the_report_draws_it_and_claims_nothing(ran: tuple[Store, Plan, dict[str, Record]]) -> None:
    store, _, _ = ran
    html, page = pages(store)
    drawn = {path.stem for path in (store.folder / "report" / "figures").glob("anatomy-*.svg")}
    kinds = ("similarity", "score", "weight", "heads", "bars", "maps")
    assert drawn == {f"anatomy-{kind}-anatomy-smoke-softmax-L16" for kind in kinds}
    assert "Anatomy: what heads do with position" in visible(html) and "alibi, before training" in page
    assert "learned at 64: not possible" in visible(html)
    view = View(store)
    assert set(view.summary["task"]) == {"enwik8"} and not view.unread
    assert not view.measured[view.measured["task"] == "anatomy"]["named"].any()


def test_where_no_model_was_measured_there_is_no_such_section(tmp_path: Path) -> None:
    assert "what heads do with position" not in pages(simple_store(tmp_path, {"none": [2.0], "rope": [1.9]}))[0]


@pytest.mark.parametrize(("mine", "theirs"), [("anatomy", "enwik8"), ("anatomy-mlm", "mlm")])
def test_its_backbone_is_that_of_the_task_that_it_measures(mine: str, theirs: str) -> None:
    for scale in ("smoke", "small", "paper"):
        ours, other = task_at(mine, scale, {}), task_at(theirs, scale, {})
        assert (ours.backbone, ours.length, ours.start) == (other.backbone, other.length, theirs)
        assert replace(ours.data, held_out=other.data.held_out) == other.data


def test_another_backbone_than_the_trained_one_is_refused(tmp_path: Path) -> None:
    text = SUITE.replace("vary = { start", 'vary = { "backbone.norm" = ["post"], start')
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"must be the model of enwik8/.*: backbone.norm is 'pre' there and 'post'"):
        make(find_suite(str(tmp_path / "mine.toml")), Selection())


@pytest.mark.slow
def test_a_masked_model_is_measured_with_its_own_head(tmp_path: Path) -> None:
    changes = {"backbone.layers": 1, "backbone.width": 32, "backbone.heads": 2, "backbone.feedforward": 32}
    changes |= {"backbone.vocabulary": 300, "evaluation.tokens": 512, "evaluation.length_factors": [1]}
    plan = make(find_suite("anatomy-mlm"), Selection(scale="smoke", encodings=["none"], seeds=[0], changes=changes))
    parent, child = plan.cells
    short = {**parent.config["training"], "steps": 4, "batch": 4, "validate_every": 4}
    parent = Cell.of({**parent.config, "training": short}, parent.name)
    child = Cell.of({**child.config, "parent": parent.id}, child.name)
    found = run(Plan(plan.suite, [parent, child]), tmp_path)[child.name]
    assert found["checkpoint"]["digest"] == Store(tmp_path).read_record(parent.id)["checkpoint"]["digest"]  # type: ignore[index]
    rows = {row["metric"]: row for row in found["scores"]}
    assert rows["kl_shuffled"]["value"] == pytest.approx(0, abs=1e-6), "no encoding, both ways: order is nothing"
    assert rows["kl_shuffled"]["details"]["loss"] > 0
