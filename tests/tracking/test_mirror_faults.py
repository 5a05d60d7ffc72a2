"""The mirror where something is wrong: databases, servers, records; and where it is looked at."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from mirrored import (
    Told,
    make_cell,
    make_store,
    runs_of,
    write_record,
    write_rows,
)
from runs import wait_until

from posenc.common.errors import StoreError
from posenc.tracking.mirror import Mirror, sync
from posenc.tracking.place import default_uri
from posenc.tracking.ui import ui_command

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_damaged_database_warns_once(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_record(store, cell)
    database = store.folder.parent / "mlflow.db"
    database.write_bytes(b"this is no database" * 1000)
    told = Told()
    mirror = Mirror(store, default_uri(store.folder.parent), told)
    mirror.update()
    mirror.update()
    mirror.finish(None)
    assert len(told) == 1
    assert "posenc sync" in told[0]
    with pytest.raises(StoreError, match=r"not a database.*move"):
        sync(store, default_uri(store.folder.parent))
    database.unlink()
    assert sync(store, default_uri(store.folder.parent)) == 1


@pytest.mark.slow
def test_a_database_damaged_or_locked_while_running(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell(seed=1)]
    for case in ("damaged", "locked"):
        store = make_store(tmp_path / case, cells)
        write_record(store, cells[0])
        told = Told()
        mirror = Mirror(store, default_uri(store.folder.parent), told)
        mirror.update()
        assert not told
        database = store.folder.parent / "mlflow.db"
        write_record(store, cells[1])
        connection = sqlite3.connect(database, isolation_level=None)
        if case == "locked":
            connection.execute("BEGIN EXCLUSIVE")
        else:
            database.write_bytes(b"no" * 100_000)
        mirror.update()
        mirror.update()
        assert len(told) == 1
        connection.close()


def test_no_mlflow_and_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_record(store, cell)
    told = Told()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mirror = Mirror(store, "http://127.0.0.1:9", told)
    mirror.update()
    mirror.update()
    assert len(told) == 1
    with pytest.raises(StoreError, match="server"):
        sync(store, "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    mirror = Mirror(store, default_uri(store.folder.parent), told)
    mirror.update()
    mirror.finish(None)
    assert len(told) == 2
    assert "install" in told[1]
    with pytest.raises(StoreError, match="install"):
        sync(store, default_uri(store.folder.parent))


def test_a_damaged_record_hides_no_other_cell(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell(seed=1), make_cell(seed=2)]
    store = make_store(tmp_path, cells)
    write_record(store, cells[0])
    (store.cell_folder(cells[0]["id"]) / "record.json").write_text('{"schema": 1')
    write_rows(store, cells[1], range(3))
    (store.cell_folder(cells[1]["id"]) / "curve.jsonl").write_text("{broken\n")
    write_record(store, cells[2])
    told = Told()
    mirror = Mirror(store, default_uri(store.folder.parent), told)
    mirror.update()
    mirror.update()
    assert len(told) == 2
    assert list(runs_of(store)) == ["rope/L64/s2"]
    with pytest.raises(StoreError, match="damaged"):
        sync(store, default_uri(store.folder.parent))


def test_nothing_on_the_streams(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_rows(store, cell, range(1, 5))
    write_record(store, cell)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom posenc.records.store import Store\n"
        "from posenc.tracking.mirror import Mirror, default_uri, sync\nstore = Store(sys.argv[1])\n"
        "mirror = Mirror(store, default_uri(store.folder.parent))\nmirror.update()\nmirror.finish(None)\n"
        "assert sync(store, default_uri(store.folder.parent)) == 1\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\nassert is_telemetry_disabled()\n"
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'\n"
    )
    environment = {key: value for key, value in os.environ.items() if "MLFLOW" not in key and key != "DO_NOT_TRACK"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_ui_answers(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_record(store, cell)
    uri = default_uri(store.folder.parent)
    sync(store, uri)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ui_command(uri, port=port)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    try:

        def answers() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()
            with suppress(OSError), urllib.request.urlopen(base) as answer:
                return bool(answer.status == 200)
            return False

        wait_until(answers)
        run = next(iter(runs_of(store).values()))
        address = f"{base}/get-artifact?path=record.json&run_uuid="
        cells = [run for run in runs_of(store).values() if "posenc.cell_id" in run.data.tags]
        with urllib.request.urlopen(address + cells[0].info.run_id) as answer:
            assert json.load(answer)["id"] == cell["id"]
        assert run.info.experiment_id
        # the same mirror through the server instead of the database: nothing new to write
        assert sync(store, base) == 1
        assert not (tmp_path / "mlruns").exists()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)
        log.close()
