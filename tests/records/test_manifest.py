"""A command line that chose a part of a suite narrows what runs, not what was planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import cell

from posenc.cli import main
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.manifest import union
from posenc.records.store import Store
from posenc.running import driver

SUITE = """name = "mine"
title = "x"
baseline = "none"
seeds = [0, 1]
[[grid]]
tasks = ["enwik8"]
encodings = ["none", "rope", "t5"]
lengths = [16]
"""


def manifest(*cells: dict[str, Any], definition: str | None = "d", **more: Any) -> dict[str, Any]:
    suite = {"name": "fake", "definition": definition} if definition else {"name": "fake"}
    return {"schema": 1, "suite": suite, "cells": list(cells), "tasks": {"enwik8": {"title": "x"}}, **more}


def names(found: dict[str, Any]) -> list[str]:
    return [one["name"] for one in found["cells"]]


def test_a_part_of_a_suite_keeps_the_rest_in_its_order() -> None:
    whole = [cell(name, seed) for seed in (0, 1) for name in ("none", "rope", "t5")]
    part = [cell("mine", 0), cell("t5", 0), cell("rope", 0), cell("rope", 2)]
    found = union(manifest(*whole, command="a"), manifest(*part, command="b"))
    assert names(found) == [
        cell(name, seed)["name"]
        for name, seed in (
            ("none", 0), ("rope", 0), ("t5", 0), ("mine", 0), ("none", 1), ("rope", 1), ("t5", 1), ("rope", 2),
        )
    ]  # fmt: skip
    assert found["command"] == "b"
    all_of_it = union(manifest(*part), manifest(*whole, part[0], part[3]))
    assert {key: value for key, value in all_of_it.items() if key != "asked"} == manifest(*whole, part[0], part[3])


def test_what_is_planned_anew_takes_the_place_of_what_was() -> None:
    old, new, other = cell("rope", 0), cell("rope", 0), cell("t5", 0)
    new["id"] = "f" * 16  # another version of the encoding
    found = union(manifest(old, other), manifest(new))
    assert [one["id"] for one in found["cells"]] == [new["id"], other["id"]]


def test_what_is_another_suite_or_read_other_data_is_not_kept() -> None:
    old, new = cell("none", 0), cell("rope", 0)
    assert names(union(manifest(old), manifest(new, definition="other"))) == [new["name"]]
    assert names(union(None, manifest(new))) == [new["name"]]
    elsewhere = {**old, "config": {**old["config"], "data": {"source": "stdlib", "digest": "e" * 64}}}
    assert names(union(manifest(elsewhere), manifest(new))) == [new["name"]]
    of_another_task = {**elsewhere, "config": {**elsewhere["config"], "task": "wnli"}}
    assert names(union(manifest(of_another_task), manifest(new))) == [old["name"], new["name"]]


def test_a_manifest_of_an_older_posenc_is_known_by_a_cell_that_both_have() -> None:
    old, new = cell("none", 0), cell("rope", 0)
    assert names(union(manifest(old, new, definition=None), manifest(new))) == [old["name"], new["name"]]
    assert names(union(manifest(old, definition=None), manifest(new))) == [new["name"]]


def test_a_definition_hangs_on_all_but_what_a_command_line_narrows(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)

    def definition(**choice: Any) -> str:
        return make(find_suite(str(path)), Selection(**choice)).definition

    narrowed = {"encodings": ["rope", "nezha"], "lengths": [32], "seeds": [7], "tasks": ["enwik8"]}
    assert definition(**narrowed) == definition()
    assert definition(changes={"training.steps": 7}) != definition()
    before = definition()
    path.write_text(SUITE.replace('title = "x"', 'title = "y"'))
    assert definition() == before
    path.write_text(SUITE + 'set = { "training.steps" = 7 }\n')
    assert definition() != before


def test_a_choice_narrows_what_runs_and_not_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's own part: no cell needs to train for it."""
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    planned: list[list[str]] = []

    def cells_run(plan: Any, cells: Any, terms: Any, *more: Any) -> bool:
        planned.append([one.name for one in cells])
        for one in cells:
            driver.not_run(one, "mine", Store(terms.store), "failed", "a reason")
        return True

    monkeypatch.setattr(driver, "_run_cells", cells_run)
    monkeypatch.setattr(driver.Mirror, "finish", lambda *_: None)
    results = tmp_path / "results"

    def run(*encodings: str) -> driver.Outcome:
        return driver.run(str(path), choice=Selection(encodings=list(encodings) or None), results=results, say=print)

    assert len(run().failed) == 6
    store = Store(results / "mine")
    whole = store.read_manifest()["cells"]
    narrowed = run("rope", "t5")
    assert store.read_manifest()["cells"] == whole
    assert (planned[1], narrowed.counts, len(narrowed.failed)) == ([], {"failed": 4}, 4)
    found = CliRunner().invoke(main, ["status", str(path), "--results", str(results)])
    assert "failed        6" in found.output
    assert "none" in (store.folder / "report" / "report.md").read_text()
    assert run("nezha").counts == {"failed": 2}
    assert len(store.read_manifest()["cells"]) == 8
    store.manifest_path.write_text("null")
    run("rope")
    assert len(store.read_manifest()["cells"]) == 2
