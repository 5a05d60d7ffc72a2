"""What MLflow's pages show of a suite: colours, order, notes, datasets; told once, and told anew by another version."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from made import cell, make_store, pages, record
from mirrored import client_of, rows_in_database, strict_mirror

from posenc.api.looks import colours, slots
from posenc.records.store import KEPT, Store
from posenc.tracking import mirror, run
from posenc.tracking.mirror import sync
from posenc.tracking.place import default_uri, open_client, quietly
from posenc.tracking.told import ANSWER

pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and no runs: to make one takes seconds."""
    database = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with quietly():
        open_client(f"sqlite:///{database}")
    return database


@pytest.fixture
def results(tmp_path: Path, empty: Path) -> Path:
    """A results folder with such a database."""
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(empty, folder)
    return folder


def make_suite(results: Path, *encodings: str) -> Store:
    """A finished suite, a minute a cell, with a report of a line."""
    cells = [cell(name, seed) for seed in range(2) for name in encodings]
    records = []
    for index, of in enumerate(cells):
        times = {"started": f"2026-11-23T09:{index:02}:00+00:00", "ended": f"2026-11-23T09:{index:02}:50+00:00"}
        records.append(record(of, 3.0 + index, times=times))
    store = make_store(results, cells, records)
    report = store.folder / "report"
    report.mkdir()
    (report / "report.md").write_text(f"# A fake suite\n\n{ANSWER}\n\nNot told apart.\n")
    return store


def synced(store: Store) -> list[Any]:
    """The runs, in the order in which MLflow's page lists them."""
    sync(store, default_uri(store.folder.parent))
    client = client_of(store)
    experiment = client.get_experiment_by_name("fake")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]))


def names(runs: list[Any]) -> list[str]:
    return [run.info.run_name for run in runs]


def everything(store: Store) -> list[Any]:
    with sqlite3.connect(store.folder.parent / "mlflow.db") as connection:
        tables = ("datasets", "inputs", "input_tags", "experiment_tags")
        return [rows_in_database(store), *(connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables)]


def test_what_the_page_shows(results: Path) -> None:
    store = make_suite(results, "sinusoidal", "rope", "mine")
    shutil.rmtree(store.folder / "report")
    pages(store)  # a real one
    (store.cell_folder(store.read_manifest()["cells"][0]["id"]) / KEPT).write_text("{}")
    runs = synced(store)
    assert names(runs) == [
        *("mine/L64/s1", "rope/L64/s1", "sinusoidal/L64/s1", "mine/L64/s0", "rope/L64/s0", "sinusoidal/L64/s0"),
        *("summary", "summary sinusoidal", "summary rope", "summary mine"),
    ]
    hues = colours(["sinusoidal", "rope", "mine"])
    for one in runs:
        tags = one.data.tags
        assert tags.get("mlflow.runColor") == hues.get(one.data.params.get("encoding"))
        assert tags["mlflow.user"] == one.info.user_id == run.user()
        assert tags["mlflow.source.name"] == "posenc run fake"
        inputs = [(i.dataset.name, i.dataset.digest) for i in one.inputs.dataset_inputs]
        assert inputs == ([] if "summary" in one.info.run_name else [("Python standard library", "d" * 36)])
        assert not [name for name in one.data.metrics if "unigram" in name]
    assert runs[0].data.tags["unigram"] == "4.71"
    assert runs[0].data.tags["mlflow.source.git.commit"] == "abc123"
    assert runs[0].data.params["training.steps"] == "400"
    cell_id = runs[5].data.params["id"]
    assert [one.data.tags.get("model") for one in runs[4:6]] == [None, f"posenc.load('results/fake', '{cell_id}')"]
    note = runs[6].data.tags["mlflow.note.content"]
    assert note.startswith("rope against sinusoidal")
    assert (runs[6].info.end_time - runs[6].info.start_time) // 1000 == 5 * 60 + 50
    assert runs[6].data.tags["command"] == "posenc run fake"


def test_it_is_told_once_and_rebuilt_the_same(results: Path) -> None:
    store = make_suite(results, "sinusoidal", "rope")
    first = synced(store)
    notes = {one.data.tags.get("mlflow.note.content") for one in first}
    assert notes == {None, "Not told apart."}
    before = everything(store)
    again = strict_mirror(store)
    again.update()
    again.finish(store.folder / "report")
    assert everything(store) == before
    client = client_of(store)
    for one in first:
        client.delete_run(one.info.run_id)

    def content(runs: list[Any]) -> list[Any]:
        return [(r.info.run_name, r.info.start_time, r.info.end_time, r.data.to_dictionary()) for r in runs]

    anew = synced(store)
    assert content(anew) == content(first)
    assert not {one.info.run_id for one in anew} & {one.info.run_id for one in first}


def test_more_encodings_change_no_run_but_its_colour(results: Path) -> None:
    store = make_suite(results, "mine", "rope")
    before = {one.info.run_name: one for one in synced(store)}
    manifest = store.read_manifest()
    # One that would have the same colour, and comes first.
    first = next(
        name for name in (f"other{index}" for index in range(999)) if slots([name])[name] == slots(["mine"])["mine"]
    )
    more = cell(first, 0)
    store.write_manifest({**manifest, "cells": [more, *manifest["cells"]]})
    store.write_record(record(more, 5.0))
    after = {one.info.run_name: one for one in synced(store)}
    hues = colours([first, "mine", "rope"])
    assert hues["mine"] != colours(["mine", "rope"])["mine"]
    for name in ("mine/L64/s0", "rope/L64/s1", "summary mine"):
        assert after[name].info.run_id == before[name].info.run_id
        assert after[name].data.tags["mlflow.runColor"] == hues[after[name].data.params["encoding"]]


def test_an_earlier_cell_comes_before_the_summaries_all_the_same(results: Path) -> None:
    store = make_suite(results, "rope", "mine")
    synced(store)
    manifest = store.read_manifest()
    early = cell("none", 0)
    store.write_manifest({**manifest, "cells": [*manifest["cells"], early]})
    store.write_record(record(early, 5.0, times={"started": "2020-01-01T00:00:00+00:00"}))
    runs = synced(store)
    assert names(runs)[-5:] == ["none/L64/s0", "summary", "summary rope", "summary mine", "summary none"]


def test_what_another_version_told_is_told_anew(results: Path) -> None:
    store = make_suite(results, "sinusoidal", "rope")
    before = synced(store)
    with sqlite3.connect(store.folder.parent / "mlflow.db") as connection:
        connection.execute("DELETE FROM tags WHERE key = 'posenc.form'")
        connection.execute("DELETE FROM experiment_tags WHERE key LIKE 'mlflow.sharedViewState.%'")
        connection.execute("UPDATE params SET value = 'old' WHERE key = 'training.steps'")
    after = synced(store)
    assert names(after) == names(before)
    assert not {one.info.run_id for one in after} & {one.info.run_id for one in before}
    assert {one.data.params.get("training.steps") for one in after} == {"400", None}
    assert json.loads(client_of(store).get_experiment_by_name("fake").tags["mlflow.sharedViewState.posenc"])


def test_a_run_whose_params_were_cut_off_gets_them(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_suite(results, "rope")
    wide = cell("mine", 0, **{f"key{index:03}": index for index in range(250)})  # more than MLflow takes at once
    manifest = store.read_manifest()
    store.write_manifest({**manifest, "cells": [wide, *manifest["cells"]]})
    store.write_record(record(wide, 5.0))

    def cut_off(*arguments: Any) -> None:
        raise OSError("no more")

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "log", cut_off)
        mirror.Mirror(store, default_uri(store.folder.parent), told.append).update()
    assert len(told) == 1
    found = {one.data.params.get("encoding"): one for one in synced(store) if "summary" not in one.info.run_name}
    assert set(found) == {"rope", "mine"}
    assert [found["mine"].data.params[f"training.key{index:03}"] for index in (0, 249)] == ["0", "249"]
    assert found["mine"].data.tags["status"] == "done"


def test_no_name_for_the_user_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyError("uid"), OSError("uid"), ImportError("pwd")):

        def nobody(error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(run.getpass, "getuser", nobody)
        assert run.user() == "unknown"
