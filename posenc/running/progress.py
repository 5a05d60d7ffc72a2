"""What a run looks like while it runs: a live table on a terminal, plain lines anywhere else.

Reads only what the workers write: the ends of curves, and the record of a cell that has ended.
Names and reasons go to rich as text, never as markup, so that they may hold anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from posenc.common.errors import StoreError
from posenc.common.terminal import Terminal, fitted
from posenc.common.text import duration, harmless
from posenc.records.record import DONE, FAILED, FAILURES, NOT_POSSIBLE, STATUSES, Record, is_number
from posenc.records.store import Store
from posenc.running.forecast import Forecast

TAIL = 16_384  # bytes of a curve that are read: some dozens of rows
REDRAW = 0.5  # seconds between two drawings of a terminal
STATUS = 30.0  # seconds between two status lines elsewhere


def _texts(template: str, justify: JustifyMethod = "right") -> TextColumn:
    """A column of texts that are no markup; the names alone are folded where there is no room for them."""
    column = Column(no_wrap=justify == "right", overflow="fold", justify=justify)
    return TextColumn(template, markup=False, justify=justify, table_column=column)


COLUMNS: dict[str, Callable[[], ProgressColumn]] = {
    "name": lambda: _texts("{task.description}", "left"),
    "bar": lambda: BarColumn(bar_width=16),
    "steps": MofNCompleteColumn,
    "loss": lambda: _texts("{task.fields[loss]}"),
    "speed": lambda: _texts("{task.fields[speed]}"),
    "left": lambda: _texts("{task.fields[left]}"),
}
"""What is told of a running cell."""
SPARE = ("speed", "bar", "loss")
"""Columns that a narrow terminal does not show, the first to go first."""


@dataclass
class State:
    """How far one running cell is, from the end of its curve."""

    step: int = 0
    seconds: float = 0.0  # of training
    loss: float | None = None
    tokens_per_second: float | None = None
    seconds_per_step: float | None = None


def tail(path: Path, size: int = TAIL) -> list[dict[str, Any]]:
    """The last whole rows of a curve; a row that is damaged or still being written is left out."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            start = max(0, end - size)
            file.seek(start)
            lines = file.read(end - start).split(b"\n")
    except OSError:
        return []
    rows = []
    for line in lines[1 if start else 0 : -1]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def number(value: Any) -> float | None:
    """A finite number as a float, None for anything else that a row may hold."""
    return float(value) if is_number(value) else None


def state_of(rows: list[dict[str, Any]]) -> State:
    """The last step, and the speed over the rows given (so that a pause before a resume does not count)."""
    train = [row for row in rows if "split" not in row]
    if not train:
        return State()
    first, last = train[0], train[-1]
    state = State(last["step"], number(last.get("seconds")) or 0.0, number(last.get("loss")))
    tokens, seconds = number(last.get("tokens")), state.seconds
    if tokens is not None and len(train) > 1 and seconds > (number(first.get("seconds")) or 0.0):
        tokens, seconds = tokens - (number(first.get("tokens")) or 0.0), seconds - (number(first.get("seconds")) or 0.0)
    if tokens is not None and seconds > 0:
        state.tokens_per_second = tokens / seconds
    steps = last["step"] - first["step"]
    if steps > 0 and (took := state.seconds - (number(first.get("seconds")) or 0.0)) > 0:  # the first step is slow
        state.seconds_per_step = took / steps
    return state


def style_of(status: str) -> str:
    """The colour of a cell's end."""
    return "green" if status == DONE else "bold red" if status in FAILURES else "yellow"


def plain(text: object) -> str:
    """One line in which nothing can move the cursor or colour the screen."""
    return harmless(text).replace("\n", " ").replace("\t", " ")


def count(value: float | None) -> str:
    """A count for people: `950`, `20.5k`, `1.2M`."""
    if value is None:
        return ""
    return f"{value:.0f}" if value < 1000 else f"{value / 1000:.1f}k" if value < 1e6 else f"{value / 1e6:.1f}M"


def main_score(record: Record) -> str:
    """`bits per character 3.01`: the main metric on the test split, at the length trained on if it is there."""
    metric = record.get("metric") or {}
    found = [
        score
        for score in record.get("scores") or []
        if score.get("split") == "test"
        and score.get("metric") == metric.get("name")
        and number(score.get("value")) is not None
    ]
    found.sort(key=lambda score: score.get("length") != record["config"].get("length"))
    return f"{metric.get('title') or metric.get('name')} {found[0]['value']:.4g}" if found else ""


class Progress:
    """Shows a run as it goes; a context manager that the driver tells what starts and what has ended.

    Cells that have a record when the run begins count as ended, unless they are started again.

    Args:
        at_once: how many cells will run at the same time, as far as that is known.
    """

    def __init__(
        self, store: Store, cells: list[dict[str, Any]], console: Console | None = None, at_once: int = 1
    ) -> None:
        self.store = store
        self.console = console or Terminal()
        self._cells = {cell["id"]: cell for cell in cells}
        self._ended: dict[str, str] = {}
        self._running: dict[str, State] = {}
        self._live: Live | None = None
        self._start = self._drawn = monotonic()
        self._forecast = Forecast(self._cells)
        self._at_once = at_once
        self._kept: set[str] = set()

    def __enter__(self) -> Self:
        self._start = monotonic()
        self._drawn = -math.inf if self.console.is_terminal else self._start
        for cell_id in self._cells:
            with suppress(StoreError):  # a damaged record is the driver's to refuse
                if (record := self.store.read_record(cell_id)) is not None:
                    self._ended[cell_id] = record["status"]
                    self._learn(cell_id, record)
        self._kept = set(self._ended)
        before = f", {len(self._kept)} of them ended before" if self._kept else ""
        self._say(Text(f"{len(self._cells)} cells{before}; results in {plain(self.store.folder)}"))
        if self.console.is_terminal:
            self._live = Live(self._table(), console=self.console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
            self._live = None
        self._say(Text(f"{self.summary()}; {duration(monotonic() - self._start)}"))

    def started(self, cell_id: str) -> None:
        self._kept.discard(cell_id)
        self._ended.pop(cell_id, None)
        self._running[cell_id] = State()
        self._at_once = max(self._at_once, len(self._running))
        self._forecast.forget(cell_id)
        self._redraw()

    def ended(self, cell_id: str, status: str, reason: str | None = None) -> None:
        self._running.pop(cell_id, None)
        self._ended[cell_id] = status
        if cell_id in self._kept:
            return  # counted when the run began; nothing has happened now
        record: Record = {}
        try:
            record = self.store.read_record(cell_id) or {}
        except StoreError as error:
            reason = reason or str(error)
        self._learn(cell_id, record)
        self._say(self._end_line(cell_id, status, reason, record))
        self._redraw()

    def _learn(self, cell_id: str, record: Record) -> None:
        """A cell that failed at once must not make the rest look fast."""
        seconds = number((record.get("times") or {}).get("seconds"))
        if record.get("status") == DONE and seconds is not None:
            self._forecast.ended(cell_id, seconds)
        else:
            self._forecast.forget(cell_id)

    def refresh(self) -> None:
        """Read how far the running cells are and show it; as cheap as nothing when called too often."""
        now = monotonic()
        if now - self._drawn < (STATUS if self._live is None else REDRAW):
            return
        for cell_id in self._running:
            state = state_of(tail(self.store.cell_folder(cell_id) / "curve.jsonl"))
            self._running[cell_id] = state
            took = (state.seconds_per_step or 0.0) * state.step
            self._forecast.running(cell_id, took, self._part(cell_id, state))
        if self._live is None:
            self._drawn = now
            self._say(Text(f"{self.summary()}; left: {self.said_left()}"))
        else:
            self._redraw()

    def summary(self) -> str:
        """`12 done, 1 failed, 2 running, 12 left`."""
        statuses = list(self._ended.values())
        failed = sum(status in FAILURES for status in statuses)
        impossible = statuses.count(NOT_POSSIBLE)
        parts = [
            (len(statuses) - failed - impossible, STATUSES[DONE]),
            (failed, STATUSES[FAILED]),
            (impossible, STATUSES[NOT_POSSIBLE]),
        ]
        parts += [(len(self._running), "running"), (len(self._cells) - len(statuses) - len(self._running), "left")]
        return ", ".join(f"{n} {what}" for n, what in parts if n or what == STATUSES[DONE])

    def said_left(self) -> str:
        """`93 s`, and of which tasks nothing can be said yet: a task's time is told once a cell of it has ended."""
        to_come = [one for one in self._cells if one not in self._ended]
        untold = self._forecast.untold(to_come)
        if not untold:
            return duration(self.time_left())
        names = f"{', '.join(map(plain, untold[:3]))}{' ...' if untold[3:] else ''}"
        known = {one for one in to_come if not self._forecast.untold([one])}
        return f"{duration(self.time_left(known))} and {names}" if known else f"told once a cell of {names} has ended"

    def time_left(self, cells: Collection[str] | None = None) -> float:
        """Seconds to the end of all cells or of these, by what cells took so far and by their FLOPs."""
        cells = self._cells if cells is None else cells
        waiting = [one for one in self._cells if one in cells and one not in self._ended and one not in self._running]
        parts = {one: self._part(one, state) for one, state in self._running.items() if one in cells}
        return self._forecast.left(parts, waiting, self._at_once)

    def _part(self, cell_id: str, state: State) -> float:
        return min(1.0, state.step / self._steps(cell_id))

    def _steps(self, cell_id: str) -> int:
        return max(1, int((self._cells.get(cell_id, {}).get("config", {}).get("training") or {}).get("steps") or 1))

    def _name(self, cell_id: str) -> str:
        return plain(self._cells.get(cell_id, {}).get("name", cell_id))

    def _end_line(self, cell_id: str, status: str, reason: str | None, record: Record) -> Text:
        width = len(str(len(self._cells)))
        line = Text(f"[{len(self._ended):>{width}}/{len(self._cells)}] {self._name(cell_id)} ")
        line.append(STATUSES[status], style_of(status))
        seconds = number((record.get("times") or {}).get("seconds"))
        if seconds is not None and status != NOT_POSSIBLE:
            line.append(f" {duration(seconds)}")
        score = main_score(record) if status == DONE and record else ""
        if score or reason:
            line.append(f"  {plain(score or reason)}" if status == DONE else f": {plain(reason)}")
        return line

    def say(self, line: str) -> None:
        """Something that the one who runs this should know, as it happens."""
        self._say(Text(plain(line)))

    def _left(self, state: State, steps: int) -> str:
        """What a running cell still takes to train, or what it does before and after."""
        if state.step >= steps:
            return "scoring"
        rate = state.seconds_per_step
        return duration(rate * (steps - state.step)) if rate else "" if state.step else "starting"

    def show(self, renderable: RenderableType) -> None:
        """Something of several lines that stays, above what is running."""
        self.console.print(renderable)

    def _say(self, line: Text) -> None:
        """A line that stays; above the table on a terminal. Not folded, so that a log has one line an event."""
        self.console.print(line, soft_wrap=True)

    def _redraw(self) -> None:
        if self._live is not None and monotonic() - self._drawn >= REDRAW:
            self._drawn = monotonic()
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Group:
        shown = max(1, self.console.height - 4)
        rows = list(self._running.items())[:shown]
        table, _ = fitted(lambda columns: self._bars(rows, columns), tuple(COLUMNS), SPARE, self.console)
        foot = f"{self.summary()}; {duration(monotonic() - self._start)} so far, left: {self.said_left()}"
        if len(self._running) > shown:
            foot += f" ({len(self._running) - shown} running cells not shown)"
        return Group(table, Text(foot))

    def _bars(self, rows: Sequence[tuple[str, State]], columns: Sequence[str]) -> Table:
        """A line for each running cell, of some of COLUMNS."""
        bars = Bars(*(COLUMNS[column]() for column in columns), console=self.console, auto_refresh=False)
        for cell_id, state in rows:
            steps = self._steps(cell_id)
            bars.add_task(
                self._name(cell_id),
                total=steps,
                completed=min(state.step, steps),
                loss="diverged"
                if state.step and state.loss is None
                else f"loss {state.loss:.3f}"
                if state.step
                else "",
                speed=f"{count(state.tokens_per_second)} tokens/s" if state.tokens_per_second else "",
                left=self._left(state, steps),
            )
        return bars.make_tasks_table(bars.tasks)
