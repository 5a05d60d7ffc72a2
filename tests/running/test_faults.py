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
from runs import environment, install_faulty, numbers, options, posenc, start, stop, wait_until, workers_of
from warm import Process

from posenc.records.record import is_failure
from posenc.records.store import Store
from posenc.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
LONG = options(training__steps=600, training__validate_every=100)


def run_of(*more: str, encodings: str = "rope,learned,t5", seeds: str = "0,1") -> list[str]:
    return ["run", "quick", "--seeds", seeds, "--lengths", "16", "--encodings", encodings, *LONG, *more]


def workers_or_end(process: Process) -> bool:
    return bool(workers_of(process)) or process.poll() is not None


def progress(store: Store) -> int:
    """Steps that a run's cells have made so far, by their curves."""
    total = 0
    for path in store.folder.glob("cells/*/curve.jsonl"):
        with suppress(OSError, IndexError, ValueError):
            total += int(json.loads(path.read_text().split("\n")[-2])["step"])
    return total


def moment(process: Process, store: Store, enough: float, late: float) -> bool:
    """Whether a run has made enough steps, or it is late, or it has ended."""
    return progress(store) > enough or time.monotonic() > late or process.poll() is not None


def good_records(store: Store) -> dict[str, bytes]:
    """The records, byte for byte, of the cells that have not failed."""
    contents = {path.parent.name: path.read_bytes() for path in store.folder.glob("cells/*/record.json")}
    return {cell: content for cell, content in contents.items() if not is_failure(json.loads(content))}


KINDS = """name = "kinds"
title = "One cell of each kind"
baseline = "none"
seeds = [0]

[[grid]]
tasks = ["enwik8"]
encodings = ["rope"]
lengths = [16]

[[grid]]
tasks = ["enwik8"]
encodings = ["t5"]
lengths = [16]
set = { "training.average" = 4 }

[[grid]]
tasks = ["zh-mlm"]
encodings = ["learned"]
lengths = [16]
[grid.set]
"training.stages" = [
    { length = 16, batch = 4, steps = 700 }, { length = 8, batch = 8, steps = 300 },
    { length = 16, batch = 2, accumulate = 2, steps = 200 },
]

[[grid]]
tasks = ["enwik8"]
encodings = ["none"]
lengths = [16]
tune = { "training.learning_rate" = [1e-3, 2e-3] }

[[grid]]
tasks = ["enwik8"]
encodings = ["rope"]
lengths = [32]
set = { start = "enwik8" }
"""


def test_twenty_kills_lose_nothing_and_change_no_number(tmp_path: Path) -> None:
    """The driver or a worker, by kill -9 at a random moment, also while they start, save, score or end.

    The cells: a plain one, one with averaged weights, one in stages, two that are tuned, and one that starts from
    another's weights. Half of the moments are so many steps after the last kill, so that the run lasts for all of them
    however fast the machine is and whatever else it does; the others so many seconds, in which it may not have made a
    step.
    """
    steps, kills = 1200, 20
    (tmp_path / "kinds.toml").write_text(KINDS)
    arguments = ["run", "kinds.toml", "--checkpoint-every", "0.2s"]
    arguments += options(training__steps=steps, training__validate_every=100, training__log_every=5)
    posenc(tmp_path, *arguments, "--results", "undisturbed")
    undisturbed = Store(tmp_path / "undisturbed/kinds")
    cells = [cell["id"] for cell in undisturbed.read_manifest()["cells"]]
    most = len(cells) * steps // (2 * kills)  # on the average: the last kill comes well before the end
    store, dice = Store(tmp_path / "results/kinds"), random.Random(20)
    finished: dict[str, bytes] = {}
    killed: list[str] = []
    process = start(tmp_path, *arguments)
    try:
        while len(killed) < kills:
            enough = progress(store) + most * dice.uniform(0.2, 1.8)
            pause = dice.uniform(0.0, 3.0) if dice.random() < 0.5 else 200.0
            wait_until(partial(moment, process, store, enough, time.monotonic() + pause))
            if process.poll() is not None:
                # A cell whose worker was killed twice in one run has failed, and its child with it: others were done.
                output, _ = process.communicate()
                assert process.returncode == 3, f"all done after {len(killed)} kills: the cells are too short\n{output}"
                process = start(tmp_path, *arguments, "--rerun", "failed")
                continue
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
            now = good_records(store)
            assert finished.items() <= now.items(), "a finished record was lost or made again"
            finished = now
            process = start(tmp_path, *arguments, "--rerun", "failed")
    finally:
        stop(process)
    drivers = killed.count("driver")
    print(f"\n{drivers} drivers and {kills - drivers} workers killed; {len(finished)} cells finished by then")
    output = posenc(tmp_path, *arguments, "--rerun", "failed")
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
    """A cell trains thirty steps slowly and waits until its disk is full."""
    common = ["run", "enwik8", "--lengths", "16", "--encodings", "waits", "--jobs", "1"]
    common += options(training__steps=300, training__validate_every=100)
    common += ["--checkpoint-every", "0.2s" if what == "checkpoint" else "1h"]
    more = {"PYTHONPATH": install_faulty(tmp_path / "package"), "FAULTY": str(tmp_path)}
    mirror = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}  # it is the results' disk that fills
    with small_disk(tmp_path / "disk", "3m") as disk:
        arguments = [*common, "--results", str(disk)]
        store = Store(disk / "enwik8")
        process = start(tmp_path, *arguments, **more, **mirror)
        try:
            pattern = "checkpoint.pt" if what == "checkpoint" else "curve.jsonl"
            wait_until(lambda: list(store.folder.glob(f"cells/*/{pattern}")))
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(b"0" * 4096)
            (tmp_path / "go").touch()
            output, _ = process.communicate()
        finally:
            stop(process)
        assert process.returncode == 1, output
        assert re.search(r"posenc: .*cannot be written \(No space left on device\)", output), output
        assert "the same command goes on" in output
        assert "Traceback" not in output
        assert not list(store.folder.glob("cells/*/record.json"))
        (cell,) = store.read_manifest()["cells"]
        saved, _ = checkpoint.load(store.cell_folder(cell["id"]) / "checkpoint.pt", cell["id"])
        if what == "checkpoint":
            assert saved and saved["step"] > 0, "the checkpoint before is whole"
        (disk / "filler").unlink()
        posenc(tmp_path, *arguments, **more, **mirror)
        posenc(tmp_path, *common, "--results", "whole", **more)
        assert numbers(store, cell["id"]) == numbers(Store(tmp_path / "whole/enwik8"), cell["id"])


def runs_in(database: Path) -> int:
    """Cells that MLflow shows as ended."""
    query = "SELECT count(*) FROM tags WHERE key = 'posenc.record_digest'"
    with sqlite3.connect(database) as connection:
        return int(connection.execute(query).fetchone()[0])


def points(database: Path) -> int:
    """Points of curves that MLflow has; none while its database is being made."""
    with suppress(sqlite3.Error), sqlite3.connect(database.resolve().as_uri() + "?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT count(*) FROM metrics WHERE key = 'train/loss'").fetchone()[0])
    return 0


def held(folder: Path, **more: str) -> Process:
    """A run of two cells, of which one trains thirty steps and waits for the file `go`."""
    more |= {"PYTHONPATH": install_faulty(folder / "package"), "FAULTY": str(folder)}
    return start(folder, *run_of(encodings="waits,none", seeds="0"), "--set", "training.steps=60", **more)


@pytest.mark.parametrize("fault", ["locked", "deleted", "damaged"])
def test_a_database_that_fails_costs_no_cell_and_sync_makes_it_whole(tmp_path: Path, fault: str) -> None:
    process = held(tmp_path)
    database = tmp_path / "results/mlflow.db"
    store = Store(tmp_path / "results/quick")
    try:
        wait_until(lambda: points(database) > 0 or process.poll() is not None)
        assert process.poll() is None
        holder = sqlite3.connect(database, timeout=30, isolation_level=None)
        if fault == "locked":
            holder.execute("BEGIN EXCLUSIVE")
        elif fault == "deleted":
            database.unlink()
        else:
            database.write_bytes(b"no database" * 1000)
        (tmp_path / "go").touch()
        output, _ = process.communicate()
        if fault == "locked":
            holder.execute("ROLLBACK")
        holder.close()
    finally:
        stop(process)
    assert process.returncode == 0, output
    assert output.count("MLflow is not written any more") == 1
    assert {record["status"] for record in store.records()} == {"done"}
    package = {"PYTHONPATH": str(tmp_path / "package")}
    if fault == "damaged":
        assert "move" in posenc(tmp_path, "sync", "quick", status=2, **package)
        database.unlink()
    assert "2 cells in sqlite" in posenc(tmp_path, "sync", "quick", **package)
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
    process = held(tmp_path, MLFLOW_TRACKING_URI=uri)
    store = Store(tmp_path / "results/quick")
    try:
        wait_until(lambda: points(tmp_path / "server.db") > 0 or process.poll() is not None)
        assert process.poll() is None, "curves come while cells train"
        os.killpg(tracking.pid, signal.SIGKILL)
        tracking.wait()
        (tmp_path / "go").touch()
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert output.count("MLflow is not written any more") == 1
        assert {record["status"] for record in store.records()} == {"done"}
        tracking = server(tmp_path, port)
        assert f"2 cells in {uri}" in posenc(
            tmp_path, "sync", "quick", MLFLOW_TRACKING_URI=uri, PYTHONPATH=str(tmp_path / "package")
        )
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
    assert "record.json has schema 0; this version reads 1" in posenc(tmp_path, "report", "enwik8")
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
        output, _ = process.communicate()  # waiting for the one that does not answer, it would never end
    finally:
        stop(process)
    assert process.returncode == 130, output
    assert len(list(store.folder.glob("cells/*/checkpoint.pt"))) == 2
