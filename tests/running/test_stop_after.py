"""A run that may take so long and no more: it stops as by Ctrl-C, and what was at work goes on."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from runs import cells

from posenc.cli import main
from posenc.records.store import Store
from posenc.running import driver
from posenc.running import local as engines
from posenc.running.driver import Outcome
from posenc.running.local import Events, LocalEngine
from posenc.running.queue import Schedule
from posenc.running.run_options import Means
from posenc.training.cell_terms import CellTerms


def test_its_time_lets_a_cell_end_its_step_and_starts_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo, started = cells("rope", "none", training__steps=10**6), list[str]()

    def clock() -> float:
        """A day ahead as soon as a cell has made a step: nothing depends on how fast the machine is."""
        return time.monotonic() + (1e5 if list(tmp_path.glob("cells/*/curve.jsonl")) else 0.0)

    monkeypatch.setattr(engines, "monotonic", clock)
    events = Events(
        started=lambda cell: started.append(cell.id), ended=lambda cell, record: None, tick=lambda: None,
        said=lambda line: None,
    )  # fmt: skip
    schedule = Schedule(todo, {})
    assert not LocalEngine(schedule, CellTerms("test", tmp_path), events, [None], time.monotonic() + 5e4).run()
    assert started == [todo[0].id] and schedule.unfinished
    assert not list(tmp_path.glob("cells/*/record.json"))
    assert (Store(tmp_path).cell_folder(todo[0].id) / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_one_that_is_done_in_its_time_was_not_stopped(tmp_path: Path) -> None:
    todo = cells("none")
    events = Events(started=lambda cell: None, ended=lambda *of: None, tick=lambda: None, said=lambda line: None)
    assert LocalEngine(Schedule(todo, {}), CellTerms("test", tmp_path), events, [None], math.inf).run()
    assert len(list(tmp_path.glob("cells/*/record.json"))) == 1


def test_the_option_is_the_whole_runs_in_both_ways_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posenc

    asked: list[Means] = []

    def run(suite: str, *, means: Means, **given: object) -> Outcome:
        asked.append(means)
        return Outcome(Store(tmp_path), stopped=True)

    monkeypatch.setattr(driver, "run", run)
    monkeypatch.setattr("posenc.report.terminal_table", lambda store: "")
    done = CliRunner().invoke(main, ["run", "quick", "--stop-after", "8m"])
    assert (done.exit_code, asked[0].stop_after, asked[0].time_limit) == (130, 480.0, None)
    assert "the same command goes on" in done.output
    posenc.run("quick", stop_after="1h")
    assert asked[1].stop_after == 3600.0
    assert CliRunner().invoke(main, ["run", "quick", "--stop-after", "soon"]).exit_code == 2
