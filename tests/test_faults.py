"""Whole runs under the faults that nights bring: kill -9, a full disk, an MLflow that goes away. `nox -s slow`."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from runs import environment, numbers, options, posenc, start, stop, wait_until, workers_of

from posenc import checkpoint
from posenc.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
LONG = options(training__steps=600, training__validate_every=100)


def run_of(*more: str, encodings: str = "rope,learned,t5", seeds: str = "0,1") -> list[str]:
    return ["run", "quick", "--seeds", seeds, "--lengths", "16", "--encodings", encodings, *LONG, *more]


def workers_or_end(process: subprocess.Popen[str]) -> bool:
    return bool(workers_of(process)) or process.poll() is not None


def progress(store: Store) -> int:
    """Steps that a run's cells have made so far, by their curves."""
    total = 0
    for path in store.folder.glob("cells/*/curve.jsonl"):
        with suppress(OSError, IndexError, ValueError):
            total += int(json.loads(path.read_text().split("\n")[-2])["step"])
    return total


def moment(process: subprocess.Popen[str], store: Store, enough: float, late: float) -> bool:
    """Whether a run has made enough steps, or it is late, or it has ended."""
    return progress(store) > enough or time.monotonic() > late or process.poll() is not None


def test_twenty_kills_lose_nothing_and_change_no_number(tmp_path: Path) -> None:
    """The driver or a worker, by kill -9 at a random moment, also while they start, save, score or end.

    Half of the moments are so many steps after the last kill, so that the run lasts for all of them however fast the
    machine is and whatever else it does; the others so many seconds, in which it may not have made a step.
    """
    steps, kills, seeds = 1200, 20, "0,1"
    arguments = run_of(
        "--checkpoint-every", "0.2s", "--set", f"training.steps={steps}", "--set", "training.validate_every=100",
        "--set", "training.log_every=5", seeds=seeds,
    )  # fmt: skip
    posenc(tmp_path, *arguments, "--results", "undisturbed", seconds=900)
    undisturbed = Store(tmp_path / "undisturbed/quick")
    cells = [cell["id"] for cell in undisturbed.read_manifest()["cells"]]
    most = len(cells) * steps // (kills + 5)  # on the average; the last kill comes before the end
    store, dice = Store(tmp_path / "results/quick"), random.Random(20)
    finished: dict[str, bytes] = {}
    killed: list[str] = []
    process = start(tmp_path, *arguments)
    try:
        while len(killed) < kills:
            enough = progress(store) + most * dice.uniform(0.2, 1.8)
            pause = dice.uniform(0.0, 3.0) if dice.random() < 0.5 else 200.0
            wait_until(partial(moment, process, store, enough, time.monotonic() + pause), seconds=400.0)
            assert process.poll() is None, f"all done after {len(killed)} kills: the cells are too short for this test"
            if dice.random() < 0.4:
                wait_until(partial(workers_or_end, process))
                for victim in workers_of(process)[:1]:
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                    killed.append("worker")
                continue
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            killed.append("driver")
            now = {path.parent.name: path.read_bytes() for path in store.folder.glob("cells/*/record.json")}
            assert finished.items() <= now.items(), "a finished record was lost or made again"
            finished = now
            process = start(tmp_path, *arguments)
    finally:
        stop(process)
    drivers = killed.count("driver")
    print(f"\n{drivers} drivers and {kills - drivers} workers killed; {len(finished)} cells finished by then")
    output = posenc(
        tmp_path, *arguments, "--rerun", "failed", seconds=900
    )  # a cell whose worker was killed twice in one run
    assert "6 cells" in output
    assert sorted(cells) == sorted(path.name for path in (store.folder / "cells").iterdir())
    for cell in cells:
        assert numbers(store, cell) == numbers(undisturbed, cell)
        left = {path.name for path in store.cell_folder(cell).iterdir()}
        assert left == {".lock", "curve.jsonl", "items.npz", "record.json"}


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("what", ["checkpoint", "record"])
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(tmp_path: Path, what: str) -> None:
    steps = options(training__steps=4000 if what == "checkpoint" else 150, training__validate_every=50)
    common = ["run", "enwik8", "--lengths", "16", "--encodings", "rope", *steps, "--jobs", "1"]
    common += ["--checkpoint-every", "0.2s" if what == "checkpoint" else "1h"]
    mirror = f"sqlite:///{tmp_path / 'mlflow.db'}"  # elsewhere: it is the results' disk that fills
    with small_disk(tmp_path / "disk", "3m") as disk:
        arguments = [*common, "--results", str(disk)]
        store = Store(disk / "enwik8")
        process = start(tmp_path, *arguments, MLFLOW_TRACKING_URI=mirror)
        try:
            pattern = "checkpoint.pt" if what == "checkpoint" else "curve.jsonl"
            wait_until(lambda: list(store.folder.glob(f"cells/*/{pattern}")))
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(b"0" * 4096)
            output, _ = process.communicate(timeout=120)
        finally:
            stop(process)
        assert process.returncode == 1, output
        assert re.search(r"posenc: .*cannot be written \(No space left on device\)", output), output
        assert "the same command goes on" in output
        assert "Traceback" not in output
        assert not list(store.folder.glob("cells/*/record.json"))
        (cell,) = store.read_manifest()["cells"]
        saved = checkpoint.load(store.cell_folder(cell["id"]) / "checkpoint.pt", cell["id"])
        if what == "checkpoint":
            assert saved and saved["step"] > 0, "the checkpoint before is whole"
        (disk / "filler").unlink()
        posenc(tmp_path, *arguments, MLFLOW_TRACKING_URI=mirror)
        posenc(tmp_path, *common, "--results", "whole")
        assert numbers(store, cell["id"]) == numbers(Store(tmp_path / "whole/enwik8"), cell["id"])


def runs_in(database: Path) -> int:
    """Cells that MLflow shows as ended."""
    query = "SELECT count(*) FROM tags WHERE key = 'posenc.record_digest'"
    with sqlite3.connect(database) as connection:
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.parametrize("fault", ["locked", "deleted", "damaged"])
def test_a_database_that_fails_costs_no_cell_and_sync_makes_it_whole(tmp_path: Path, fault: str) -> None:
    process = start(tmp_path, *run_of(encodings="rope,none", seeds="0"), "--set", "training.steps=12000")
    database = tmp_path / "results/mlflow.db"
    store = Store(tmp_path / "results/quick")
    try:
        wait_until(lambda: database.exists() and database.stat().st_size > 0)
        wait_until(lambda: sum(1 for path in store.folder.glob("cells/*/curve.jsonl")) == 2)
        time.sleep(7)  # until some points are there
        holder = sqlite3.connect(database, timeout=30, isolation_level=None)
        if fault == "locked":
            holder.execute("BEGIN EXCLUSIVE")
        elif fault == "deleted":
            database.unlink()
        else:
            database.write_bytes(b"no database" * 1000)
        output, _ = process.communicate(timeout=900)
        if fault == "locked":
            holder.execute("ROLLBACK")
        holder.close()
    finally:
        stop(process)
    assert process.returncode == 0, output
    assert output.count("MLflow is not written any more") == 1
    assert {record["status"] for record in store.records()} == {"done"}
    if fault == "damaged":
        assert "move" in posenc(tmp_path, "sync", "quick", status=2)
        database.unlink()
    assert "2 cells in sqlite" in posenc(tmp_path, "sync", "quick")
    assert runs_in(database) == 2


def server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A real tracking server on the loopback address."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    more = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        [*command, "--workers", "1"], cwd=folder, env=environment(**more),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def answers() -> bool:
        assert process.poll() is None
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).read())
        return False

    wait_until(answers)
    return process


def test_a_server_that_goes_in_the_middle_costs_no_cell_and_sync_makes_it_whole(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    tracking = server(tmp_path, port)
    process = start(
        tmp_path, *run_of(encodings="rope,none", seeds="0"), "--set", "training.steps=12000", MLFLOW_TRACKING_URI=uri
    )
    store = Store(tmp_path / "results/quick")
    try:
        live = "SELECT count(*) FROM metrics WHERE key = 'train/loss'"

        def points() -> int:
            with suppress(sqlite3.Error), sqlite3.connect(tmp_path / "server.db") as connection:
                return int(connection.execute(live).fetchone()[0])
            return 0

        wait_until(lambda: points() > 0)
        assert process.poll() is None and not list(store.folder.glob("cells/*/record.json")), (
            "curves come while cells train"
        )
        os.killpg(tracking.pid, signal.SIGKILL)
        tracking.wait()
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        assert output.count("MLflow is not written any more") == 1
        assert {record["status"] for record in store.records()} == {"done"}
        tracking = server(tmp_path, port)
        assert f"2 cells in {uri}" in posenc(tmp_path, "sync", "quick", MLFLOW_TRACKING_URI=uri)
        assert runs_in(tmp_path / "server.db") == 2
    finally:
        stop(process)
        with suppress(ProcessLookupError):
            os.killpg(tracking.pid, signal.SIGKILL)


def test_a_record_of_an_older_schema_is_named_and_made_again(tmp_path: Path) -> None:
    arguments = ["run", "enwik8", "--lengths", "16", "--encodings", "none", *options()]
    posenc(tmp_path, *arguments)
    store = Store(tmp_path / "results/enwik8")
    (record,) = store.records()
    path = store.cell_folder(record["id"]) / "record.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0', 1))
    status = posenc(tmp_path, "status", "enwik8")
    assert "unusable      1" in status and "has schema 0; this version reads 1" in status
    assert "has schema 0" in posenc(tmp_path, "report", "enwik8", status=2)
    output = posenc(tmp_path, *arguments)
    assert "has schema 0" in output and "record.unusable.json" in output
    (again,) = store.records()
    assert again["scores"] == record["scores"]


def test_a_second_ctrl_c_stops_at_once_and_loses_the_last_steps_at_most(tmp_path: Path) -> None:
    arguments = run_of("--checkpoint-every", "1s", "--set", "training.steps=100000", encodings="rope,none", seeds="0")
    process = start(tmp_path, *arguments)
    store = Store(tmp_path / "results/quick")
    try:
        wait_until(lambda: len(list(store.folder.glob("cells/*/checkpoint.pt"))) == 2)
        os.kill(workers_of(process)[0], signal.SIGSTOP)  # one that does not answer
        threading.Timer(2.0, lambda: os.killpg(process.pid, signal.SIGINT)).start()
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        output, _ = process.communicate(timeout=60)
        assert time.monotonic() - begun < 30
    finally:
        stop(process)
    assert process.returncode == 130, output
    assert len(list(store.folder.glob("cells/*/checkpoint.pt"))) == 2
