"""The table after each seed: in a terminal, once a seed, and never instead of the run."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made import cell, make_store, record
from rich.console import Console

from posenc.plan.cell import Cell
from posenc.plan.plan import Plan
from posenc.records.store import Store
from posenc.running import driver, table_so_far
from posenc.running.progress import Progress
from posenc.running.run_options import Means
from posenc.running.table_so_far import SoFar
from posenc.training.cell_terms import CellTerms

NAMES = ("sinusoidal", "rope")


def run(folder: Path, order: list[tuple[str, int]], terminal: bool = True, failing: bool = False) -> list[str]:
    """What is shown after each of some cells has ended."""
    cells = {(name, seed): cell(name, seed) for seed in range(3) for name in NAMES}
    store = make_store(folder, list(cells.values()), [])
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=terminal, color_system=None)
    shown = []
    with Progress(store, list(cells.values()), console) as progress:
        told = SoFar(progress, store, [Cell(one["id"], one["name"], one["config"]) for one in cells.values()])
        for place in order:
            one = cells[place]
            if not failing:
                store.write_record(record(one, 3.0 + place[1] / 10, 4.0))
            before = len(stream.getvalue())
            told.ended(Cell(one["id"], one["name"], one["config"]))
            shown.append(stream.getvalue()[before:])
    return shown


def test_the_first_comparison_stands_after_the_first_seed(tmp_path: Path) -> None:
    order = [(name, seed) for seed in range(3) for name in NAMES]
    shown = run(tmp_path, order)
    assert [bool(text) for text in shown] == [False, True, False, True, False, False], "the last is the run's own table"
    assert "So far, with seed 0: 1 of 3 seeds are done" in shown[1]
    assert "3.000" in shown[1] and "baseline" in shown[1] and "1 of 3 seeds" in shown[1]
    assert "2 of 3 seeds are done" in shown[3] and "3.050" in shown[3]


def test_it_waits_for_the_last_cell_of_a_seed_whatever_the_order(tmp_path: Path) -> None:
    order = [("rope", 0), ("rope", 1), ("sinusoidal", 1), ("rope", 2), ("sinusoidal", 0)]
    shown = run(tmp_path, order)
    assert [bool(text) for text in shown] == [False, False, True, False, True]
    assert "with seed 1: 1 of 3" in shown[2] and "with seed 0: 2 of 3" in shown[4]


def test_a_log_has_none(tmp_path: Path) -> None:
    assert not any(run(tmp_path, [(name, 0) for name in NAMES], terminal=False))


def test_cells_that_failed_count_as_ended(tmp_path: Path) -> None:
    assert "not run yet" in run(tmp_path, [(name, 0) for name in NAMES], failing=True)[1]


def test_a_table_that_cannot_be_made_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(store: Store) -> Any:
        raise ZeroDivisionError("broken \x1b[2J")

    monkeypatch.setattr(table_so_far, "terminal_table", fails)
    shown = run(tmp_path, [(name, 0) for name in NAMES])
    assert "the table so far cannot be made: broken \\x1b[2J" in shown[1]


def test_a_run_tells_it_of_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that it runs: what had ended before is no part of a seed that ends now."""
    described = [cell(name, seed) for seed in range(2) for name in NAMES]
    store = make_store(tmp_path, described, [record(described[0], 3.0, 4.0)])
    cells = [Cell(one["id"], one["name"], one["config"]) for one in described]
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, color_system=None)
    monkeypatch.setattr(driver, "Progress", functools.partial(Progress, console=console))

    def engine(plan: Plan, schedule: Any, terms: CellTerms, events: Any, *more: Any) -> Any:
        def run() -> bool:
            while one := schedule.take():
                events.started(one)
                made = record(next(of for of in described if of["id"] == one.id), 3.5, 4.5)
                store.write_record(made)
                events.ended(one, made)
            return True

        return SimpleNamespace(run=run)

    monkeypatch.setattr(driver, "_engine", engine)
    plan = Plan(None, cells)  # type: ignore[arg-type]
    terms = CellTerms("fake", store.folder)
    mirror = SimpleNamespace(update=lambda: None)
    assert driver._run_cells(plan, cells[1:], terms, Means(), [None], mirror, None)  # type: ignore[arg-type]
    text = stream.getvalue()
    assert text.count("So far") == 1
    assert text.index("/rope/L64/s0 done") < text.index("So far, with seed 0") < text.index("/sinusoidal/L64/s1 done")
