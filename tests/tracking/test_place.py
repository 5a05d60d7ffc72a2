"""Where MLflow's data lie: a database made by several processes at once, a copied folder, passwords in URIs."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from mirrored import Told, client_of, make_cell, make_store, runs_of, strict_mirror, write_record
from runs import posenc

from posenc.common.errors import StoreError
from posenc.common.text import masked
from posenc.records.store import Store
from posenc.tracking.mirror import Mirror, sync

mlflow = pytest.importorskip("mlflow")
SECRET = "c0rrect-h0rse"


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def mirror_at_once(folder: Path, seed: int, name: str, uri: str, ready: Any, go: Any, told: Any) -> None:
    """In a process of its own: a suite's first update, when all have come to it."""
    from posenc.tracking import mirror

    store, cell = Store(folder / str(seed)), make_cell(seed=seed)
    store.write_manifest({"schema": 1, "suite": {"name": name, "title": name, "description": ""}, "cells": [cell]})
    write_record(store, cell)
    ours = mirror.Mirror(store, uri, told.put)
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # what takes seconds, before they go together

    ready.release()
    go.wait()
    ours.update()
    told.put("")


@pytest.mark.slow
@pytest.mark.parametrize("names", [("one", "two", "three"), ("same", "same")])
def test_suites_that_start_together_in_a_new_folder_all_have_their_mirror(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    context = multiprocessing.get_context("spawn")
    ready, go, told = context.Semaphore(0), context.Event(), context.SimpleQueue()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    processes = [
        context.Process(target=mirror_at_once, args=(tmp_path, index, name, uri, ready, go, told))
        for index, name in enumerate(names)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire()
    go.set()
    said: list[str] = []
    while said.count("") < len(processes):
        said.append(told.get())
    for process in processes:
        process.join()
    assert set(said) == {""}
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = [e for e in client.search_experiments() if e.name in names]
    assert {experiment.name for experiment in found} == set(names)
    for experiment in found:
        assert len(client.search_runs([experiment.experiment_id])) == names.count(experiment.name)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "mlartifacts").rglob("*") if p.is_file()}


def places(store: Store) -> list[Path]:
    """Where MLflow looks for the files of an experiment and of its runs."""
    client = client_of(store)
    experiment = client.get_experiment_by_name("quick")
    uris = [experiment.artifact_location, *(run.info.artifact_uri for run in runs_of(store).values())]
    return [Path(unquote(urlsplit(uri).path)) for uri in uris]


def test_a_copied_folder_writes_its_files_into_itself(tmp_path: Path) -> None:
    cells = [make_cell(seed=seed) for seed in range(3)]
    store = make_store(tmp_path / "the original", cells)
    write_record(store, cells[0])
    strict_mirror(store).update()
    original, copy = store.folder.parent, tmp_path / "a copy" / "results"
    before = files(original)
    assert len(before) == 1
    shutil.copytree(original, copy)
    copied = Store(copy / "quick")
    write_record(copied, cells[1])
    report = copied.folder / "report"
    report.mkdir()
    (report / "report.md").write_text("# Report")
    mirror = strict_mirror(copied)
    mirror.update()
    mirror.finish(report)
    assert files(original) == before
    assert len(files(copy)) == 3
    assert all(place.is_relative_to(copy) for place in places(copied))
    assert all(place.is_relative_to(original) for place in places(store))
    client = client_of(copied)
    for run in (run for run in runs_of(copied).values() if "posenc.cell_id" in run.data.tags):
        (path,) = client.list_artifacts(run.info.run_id)
        held = Path(client.download_artifacts(run.info.run_id, path.path, str(tmp_path)))
        assert run.data.tags["posenc.cell_id"] in held.read_text()


def test_an_experiment_that_is_not_ours_keeps_its_place(tmp_path: Path) -> None:
    store = make_store(tmp_path, [make_cell()])
    write_record(store, make_cell())
    strict_mirror(store).update()
    elsewhere = (tmp_path / "mine" / "mlartifacts").as_uri()
    client = client_of(store)
    made = client.create_experiment("mine", elsewhere)
    run = client.create_run(made)
    copy = tmp_path / "copy"
    shutil.copytree(store.folder.parent, copy)
    strict_mirror(Store(copy / "quick")).update()
    client = client_of(Store(copy / "quick"))
    assert client.get_experiment(made).artifact_location == elsewhere
    assert client.get_run(run.info.run_id).info.artifact_uri.startswith(elsewhere)


def test_a_database_that_came_without_its_files_has_them_sent_again(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path / "original", [cell])
    write_record(store, cell)
    (store.folder / "report").mkdir()
    (store.folder / "report/report.md").write_text("# Report")
    assert sync(store, f"sqlite:///{store.folder.parent / 'mlflow.db'}") == 1
    copy = tmp_path / "copy"
    shutil.copytree(store.folder.parent, copy, ignore=shutil.ignore_patterns("mlartifacts"))
    copied = Store(copy / "quick")
    for _ in range(2):
        assert sync(copied, f"sqlite:///{copy / 'mlflow.db'}") == 1
        assert sorted(Path(name).name for name in files(copy)) == ["record.json", "report.md"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://user:{SECRET}@host:5000/x", "http://user:***@host:5000/x"),
        (
            f"at https://user:{SECRET}@p@ss@host, twice http://:{SECRET}@h",
            "at https://user:***@host, twice http://:***@h",
        ),
        (f"postgresql+psycopg2://u:{SECRET}@h/db", "postgresql+psycopg2://u:***@h/db"),
        (f"postgresql://h/db?user=u&password={SECRET}&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        (f"(url 'http://u:{SECRET}/@h')", "(url 'http://u:***@h')"),
        ("sqlite:////home/a:b@c/mlflow.db", "sqlite:////home/a:b@c/mlflow.db"),
        ("http://127.0.0.1:5000 shows a@b", "http://127.0.0.1:5000 shows a@b"),
    ],
)
def test_a_password_is_masked_and_nothing_else(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("uri", [f"http://user:{SECRET}@127.0.0.1:9", f"postgresql://user:{SECRET}@127.0.0.1:9/x"])
def test_a_password_is_never_told(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_record(store, cell)
    told = Told()
    Mirror(store, uri, told).update()
    assert len(told) == 1
    assert SECRET not in told[0]
    with pytest.raises(StoreError) as caught:
        sync(store, uri)
    assert "user:***@127.0.0.1:9" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


def test_the_command_line_tells_no_password(tmp_path: Path) -> None:
    store = make_store(tmp_path, [make_cell()])
    write_record(store, make_cell())
    server = f"http://user:{SECRET}@127.0.0.1:9"
    for command in ("sync quick", "ui"):
        output = posenc(tmp_path, *command.split(), status=2, MLFLOW_TRACKING_URI=server)
        assert "http://user:***@127.0.0.1:9" in output
        assert SECRET not in output
        assert len(output.splitlines()) == 1
