"""What records say on a terminal: nothing acts there, a closed pipe ends in silence, older records are read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import cell, make_store
from rich.text import Text
from runs import environment

from posenc import load_records
from posenc.cli import main
from posenc.common.terminal import Terminal
from posenc.records.record import FAILURES, STATUSES
from posenc.records.store import Store
from posenc.running import driver
from posenc.running.progress import Progress, style_of
from posenc.running.status import COUNTED
from posenc.tracking.mirror import RUN_STATUS

ACTS = "\x1b[2J\x1b]0;title\x07\u202e\x9b31m"


def minimal(of: dict[str, Any], status: str = "done", **more: Any) -> dict[str, Any]:
    """A record with what every version of posenc has written, and no more."""
    return {"schema": 1, "id": of["id"], "name": of["name"], "status": status, "config": of["config"], **more}


def hostile(folder: Path) -> Store:
    cells = [cell(name, 0) for name in ("sinusoidal", "rope")]
    for one in cells:
        one["name"] += ACTS
        one["label"] = f"label{ACTS}"
    records = [minimal(one, status, reason=f"reason{ACTS}") for one, status in zip(cells, FAILURES, strict=True)]
    return make_store(folder, cells, records, title=f"title{ACTS}", command=f"run{ACTS}")


def acts(text: str) -> set[str]:
    return {character for character in ACTS if not character.isprintable() and character in text}


@pytest.mark.parametrize(
    "arguments", [["status", "fake"], ["compare", "fake", "fake"], ["report", "none\x1b[2J"], ["show", "none\x1b[2J"]]
)
def test_nothing_that_records_or_names_say_acts_on_a_terminal(tmp_path: Path, arguments: list[str]) -> None:
    store = hostile(tmp_path)
    record = store.cell_folder("broken\x1b[2J") / "record.json"
    record.parent.mkdir()
    more = [] if arguments[0] == "show" else ["--results", str(tmp_path)]
    with store.locked(f"posenc run{ACTS}"):
        result = CliRunner().invoke(main, [*arguments, *more])
    assert acts(result.output) == set()
    assert "\\x1b[2J" in result.output or arguments[0] == "compare"


def test_a_terminal_shows_text_as_it_is_and_colours_of_its_own() -> None:
    stream = io.StringIO()
    console = Terminal(file=stream, force_terminal=True, color_system="standard", width=80)
    console.print(Text(f"[bold]x{ACTS}", style="red"), f"[link=http://x]y{ACTS}", highlight=False)
    assert stream.getvalue().startswith("\x1b[31m[bold]x\\x1b[2J")
    assert "[link=http://x]y\\x1b[2J" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue() and "\u202e" not in stream.getvalue()


def test_what_a_run_says_is_harmless(tmp_path: Path) -> None:
    told: list[str] = []
    driver._harmless(told.append)(f"x{ACTS}")
    assert acts(told[0]) == set()
    stream = io.StringIO()
    with Progress(Store(tmp_path), [cell("rope", 0)], Terminal(file=stream)) as shown:
        shown.say(f"x{ACTS}")
    assert acts(stream.getvalue()) == set()


@pytest.mark.parametrize("arguments", ["status fake", "list encodings", "--help", "compare fake fake"])
def test_a_closed_pipe_ends_in_silence(tmp_path: Path, arguments: str) -> None:
    cells = [cell("rope", 0)]
    make_store(tmp_path / "results", cells, [minimal(cells[0], "failed")])
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-m", "posenc", *arguments.split()], cwd=tmp_path, env=environment(), stdout=writes,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")


def test_records_and_manifests_of_an_older_posenc_are_read(tmp_path: Path) -> None:
    cells = [{key: one[key] for key in ("id", "name", "config")} for one in (cell("sinusoidal", 0), cell("rope", 0))]
    score = {"split": "test", "metric": "loss", "value": 1.5}
    store = Store(tmp_path / "fake")
    store.write_manifest({"schema": 1, "suite": {"name": "fake"}, "cells": cells})
    store.write_record(minimal(cells[0], scores=[score], metric={"name": "loss"}))
    store.write_record(minimal(cells[1], "timed_out"))
    assert load_records(store.folder)["value"].iloc[0] == 1.5
    for arguments in (["status", "fake"], ["report", "fake"], ["compare", "fake", "fake"]):
        result = CliRunner().invoke(main, [*arguments, "--results", str(tmp_path)])
        assert result.exit_code == 0, (result.output, result.exception)
    assert "timed out     1" in CliRunner().invoke(main, ["status", "fake", "--results", str(tmp_path)]).output


def test_every_status_has_its_words_colour_and_name_in_mlflow() -> None:
    assert {key: COUNTED[key] for key in STATUSES} == STATUSES
    assert [style_of(key) for key in STATUSES] == ["green", "bold red", "bold red", "yellow"]
    assert RUN_STATUS == {"done": "FINISHED", "failed": "FAILED", "timed_out": "KILLED", "not_possible": "FINISHED"}
