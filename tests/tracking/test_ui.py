"""`posenc ui`: announced once our own server answers; a port in use is said."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mirrored import make_cell, make_store, write_record
from runs import posenc, start, stop

from posenc.records.store import Store
from posenc.tracking import ui
from posenc.tracking.mirror import sync

pytest.importorskip("mlflow")
ODD = "\x1b[31m http://me:s3cret@host"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[int]:
    """The port of another server, which answers whatever it is asked."""
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The suite that ran last; another lies in the same folder."""
    cell = make_cell()
    made = make_store(tmp_path, [cell])
    write_record(made, cell)
    other = Store(made.folder.parent / "other")
    other.write_manifest({"schema": 1, "suite": {"name": ODD}, "cells": [cell]})
    early = {**(made.read_record(cell["id"]) or {}), "times": {"started": "2020-01-01T00:00:00+00:00"}}
    other.write_record(early)
    for store in (made, other):
        sync(store, f"sqlite:///{made.folder.parent / 'mlflow.db'}")
    return made


def test_a_port_in_use_is_a_line_and_status_2(tmp_path: Path, store: Store, other: int) -> None:
    output = posenc(tmp_path, "ui", "--port", str(other), status=2)
    assert output.splitlines() == [
        f"posenc: --port {other}: 127.0.0.1:{other} cannot be listened on (Address already in use); give another"
    ]
    assert "cannot be listened on" in posenc(tmp_path, "ui", "--host", "192.0.2.1", status=2)
    assert "70000" in posenc(tmp_path, "ui", "--port", "70000", status=2)


def test_another_server_is_not_taken_for_ours(other: int) -> None:
    assert not ui._answers("127.0.0.1", other, "ours")


@pytest.mark.slow
def test_a_server_that_loses_its_port_at_the_start_is_not_announced(
    tmp_path: Path, store: Store, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui, "_free", lambda host, port: port)  # another took it after it was looked at
    said: list[str] = []
    with pytest.raises(ui.StoreError, match="ended with status"):
        ui.serve(f"sqlite:///{store.folder.parent / 'mlflow.db'}", "127.0.0.1", other, said.append)
    assert said == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_what_is_announced_answers_and_ends(tmp_path: Path, store: Store, number: signal.Signals) -> None:
    process = start(tmp_path, "ui", "--port", "0")
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if " shows " in line)
        address = line.split()[0]
        suites = [process.stdout.readline().rstrip("\n") for _ in range(2)]
        shown = "runs?workflowType=machine_learning&compareRunsMode=CHART"
        assert suites == [
            f"quick: {address}/#/experiments/1/{shown}",
            f"\\x1b[31m http://me:***@host: {address}/#/experiments/2/{shown}",
        ]
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        process.communicate()
    finally:
        stop(process)
    assert process.returncode == 0
    with socket.socket() as trial:  # nothing of it listens any more
        assert trial.connect_ex(("127.0.0.1", int(address.rsplit(":", 1)[1]))) != 0
