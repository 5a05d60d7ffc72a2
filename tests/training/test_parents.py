"""Cells that start from another's weights: the graph, the fit, what is kept and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SETTINGS, install_faulty, options, posenc

from posenc.common.errors import ConfigError, StoreError, UnknownNameError
from posenc.plan.plan import Plan, Selection, find_suite, make
from posenc.records.store import KEPT, Store
from posenc.running import driver
from posenc.running.driver import Means
from posenc.training import checkpoint
from posenc.training.cell_terms import CellTerms
from posenc.training.loop import Loop

SUITE = """name = "longer"
title = "Trained on at a greater length"
baseline = "rope"
seeds = [0]
"""
FIRST = '[[grid]]\ntasks = ["enwik8"]\nencodings = ["rope", "t5", "learned"]\nlengths = [16]\n'
LONGER = (
    '[[grid]]\ntasks = ["enwik8"]\nencodings = ["rope", "t5", "learned"]\nlengths = [32]\nset = { start = "enwik8" }\n'
)


def plan(folder: Path, text: str, **choice: Any) -> Plan:
    path = folder / "longer.toml"
    path.write_text(SUITE + text)
    return make(find_suite(str(path)), Selection(changes=SETTINGS, **choice))


def test_each_cell_starts_from_its_own_encoding_and_seed(tmp_path: Path) -> None:
    made = plan(tmp_path, LONGER + FIRST, seeds=[0, 1])
    cells = {cell.id: cell for cell in made.cells}
    children = [cell for cell in made.cells if cell.parent]
    assert len(cells) == 12
    assert len(children) == 6
    for child in children:
        parent = cells[child.parent or ""]
        assert (parent.config["encoding"], parent.config["seed"]) == (child.config["encoding"], child.config["seed"])
        assert parent.config["length"] == 16
        assert made.cells.index(parent) < made.cells.index(child)
        assert child.config["parent"] == parent.id
        assert "/L32/from-enwik8/" in child.name
    names = {child.config["encoding"]["name"]: child.why_not for child in children}
    assert names["rope"] is names["t5"] is None
    assert "decoder.encoding.table" in str(names["learned"]) and "(16, 16)" in str(names["learned"])


def test_a_parent_that_no_grid_has_is_made_at_its_tasks_own_settings(tmp_path: Path) -> None:
    made = plan(tmp_path, LONGER)
    parents = [cell for cell in made.cells if not cell.parent]
    assert {cell.config["length"] for cell in parents} == {64}
    assert {cell.config["training"]["steps"] for cell in parents} == {10}, "--set goes to every task"
    children = [cell for cell in made.cells if cell.parent]
    assert all(child.config["max_length"] == 64 for child in children)
    assert all(child.why_not is None for child in children), "learned has its parent's table"


def test_the_parents_identity_is_in_the_childs(tmp_path: Path) -> None:
    one = plan(tmp_path, FIRST + LONGER)
    other = plan(tmp_path, FIRST.replace("lengths = [16]", "lengths = [16]\nset = { 'training.warmup' = 1 }") + LONGER)
    ids = [{cell.id for cell in made.cells if cell.parent} for made in (one, other)]
    assert not ids[0] & ids[1]


def test_what_cannot_be_settled_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"start = 'enwik8' may be any of .*L16/s0, .*L24/s0"):
        plan(tmp_path, FIRST.replace("[16]", "[16, 24]") + LONGER)
    with pytest.raises(UnknownNameError, match=r"unknown task 'elsewhere' \(grid 1 of suite longer: start\)"):
        plan(tmp_path, LONGER.replace('start = "enwik8"', 'start = "elsewhere"'))
    with pytest.raises(ConfigError, match=r"is \(32,\) in its parent .* and \(16,\) here"):
        make(
            find_suite(str(_write(tmp_path, FIRST.replace("[16]", "[16]\nset = { 'backbone.width' = 32 }") + LONGER))),
            Selection(changes={key: value for key, value in SETTINGS.items() if key != "backbone.width"}),
        )


def _write(folder: Path, text: str) -> Path:
    path = folder / "longer.toml"
    path.write_text(SUITE + text.replace('start = "enwik8"', 'start = "enwik8", "backbone.width" = 16'))
    return path


def run(folder: Path, text: str, encodings: list[str], **means: Any) -> driver.Outcome:
    path = folder / "longer.toml"
    path.write_text(SUITE + text)
    choice = Selection(changes=SETTINGS, encodings=encodings)
    return driver.run(str(path), choice=choice, means=Means(**means), results=folder, say=lambda line: None)


@pytest.mark.slow
def test_a_child_starts_from_its_parents_weights_which_are_dropped_when_nobody_waits(tmp_path: Path) -> None:
    outcome = run(tmp_path, FIRST + LONGER, ["rope", "learned"], keep=True)
    assert outcome.counts == {"done": 3, "not_possible": 1}
    store = outcome.store
    made = plan(tmp_path, FIRST + LONGER, encodings=["rope"]).cells
    parent, child = made
    record = store.read_record(parent.id)
    assert record
    kept = checkpoint.load_weights(store.weights_path(parent.id), record["checkpoint"]["digest"])
    loop = Loop(child, CellTerms("longer", store.folder), lambda: False)
    before = [value.clone() for value in loop.model.parameters()]
    loop.resume()
    for name, value in loop.model.named_parameters():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, loop.model.parameters(), strict=True))
    first = store.read_record(child.id)
    run(tmp_path, FIRST + LONGER, ["rope", "learned"])
    assert store.weights_path(parent.id).is_file(), "once asked to be kept, they are"
    store.remove(child.id)
    run(tmp_path, FIRST + LONGER, ["rope", "learned"])
    assert store.weights_path(parent.id).is_file(), "nor does a later run take its owner's model away"
    (store.cell_folder(parent.id) / KEPT).unlink()  # as if nobody had asked to keep it
    store.remove(child.id)
    run(tmp_path, FIRST + LONGER, ["rope", "learned"])
    assert not store.weights_path(parent.id).is_file(), "nobody waits for them any more"
    store.remove(child.id)
    run(tmp_path, FIRST + LONGER, ["rope", "learned"])
    again, other = store.read_record(child.id), store.read_record(parent.id)
    assert first and again and other
    assert (again["scores"], again["checkpoint"]) == (first["scores"], first["checkpoint"])
    assert other["times"] != record["times"], "the parent ran again"
    assert other["checkpoint"] == record["checkpoint"]


def test_weights_from_elsewhere_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(StoreError, match="are not there"):
        checkpoint.load_weights(path, "0")
    weights = {"a": torch.ones(2)}
    checkpoint.save_weights(path, weights)
    assert checkpoint.load_weights(path, checkpoint.digest(weights)).keys() == {"a"}
    with pytest.raises(StoreError, match="not those that the record"):
        checkpoint.load_weights(path, checkpoint.digest({"a": torch.zeros(2)}))
    torch.save({"a": Path}, path)
    with pytest.raises(StoreError, match="cannot be used"):
        checkpoint.load_weights(path, "0")


@pytest.mark.slow
def test_a_child_says_that_its_parent_failed_and_both_run_again(tmp_path: Path) -> None:
    package = install_faulty(tmp_path / "package")
    path = tmp_path / "longer.toml"
    path.write_text(SUITE + FIRST + LONGER)
    arguments = ["run", str(path), "--encodings", "rope,raises", *options()]
    posenc(tmp_path, *arguments, status=3, PYTHONPATH=package)
    store = Store(tmp_path / "results/longer")
    records = [record for record in store.records() if record["config"]["encoding"]["name"] == "raises"]
    parent, child = records
    cause = "hook embed of Raises raised RuntimeError: broken on purpose"
    assert child["reason"] == f"not started: its parent {parent['name']} failed: {cause}"
    assert (parent["status"], child["status"]) == ("failed", "failed")
    output = posenc(tmp_path, *arguments, "--rerun", "failed", status=3, PYTHONPATH=package)
    assert "4 cells, 2 finished before" in output
