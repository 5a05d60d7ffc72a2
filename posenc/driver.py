"""A run from its plan to its report: what the command line and `posenc.run` both call."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posenc import plan as planning
from posenc import provenance, training
from posenc.config import available
from posenc.engines import Events, LocalEngine
from posenc.errors import ConfigError, StoreError, UnknownNameError
from posenc.plan import Cell, Choice, Plan
from posenc.progress import Progress
from posenc.report import write_report
from posenc.store import Record, Store
from posenc.tracking import Mirror, default_uri

RERUN = ("missing", "failed", "stale", "all")
MIRROR_SECONDS = 5.0


@dataclass
class Outcome:
    """How a run ended: records by status, the report's page, whether it was stopped before the end."""

    store: Store
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Record] = field(default_factory=list)
    report: Path | None = None
    stopped: bool = False

    @property
    def exit_status(self) -> int:
        """0 all done, 3 some cells failed, 130 stopped."""
        return 130 if self.stopped else 3 if self.failed else 0


def data_folder(given: str | Path | None) -> Path | None:
    """--data, else POSENC_DATA, else None.

    Raises:
        ConfigError: it is no folder.
    """
    source = "--data" if given else "POSENC_DATA"
    chosen = given or os.environ.get("POSENC_DATA")
    if not chosen:
        return None
    folder = Path(chosen)
    if not folder.is_dir():
        raise ConfigError(f"{source} {folder}: no such folder")
    return folder.absolute()


def store_for(suite: str, results: str | Path) -> Store:
    """The results of a suite, by its name, its TOML's path, or a task's name."""
    known = suite in available("suites") or suite in available("tasks") or suite.endswith(".toml")
    return Store(Path(results) / (planning.find_suite(suite).name if known else suite))


def jobs_for(plan: Plan, jobs: int | None) -> int:
    """How many cells run at once: as many as cores over threads a cell, on a GPU one, unless said otherwise."""
    if jobs is not None:
        if jobs < 1:
            raise ConfigError(f"--jobs {jobs}: at least 1 is wanted")
        return jobs
    runtimes = [cell.config["runtime"] for cell in plan.cells]
    if any(runtime["device"] == "cuda" for runtime in runtimes):
        return 1
    return max(1, provenance.cores() // max(runtime["threads"] for runtime in runtimes))


def is_stale(record: Record) -> bool:
    """Whether other code made a record: another commit, or changes that no commit holds, then or now."""
    now = provenance.code()
    return bool(record["code"] != now or now["dirty"])


def select(plan: Plan, store: Store, rerun: str, say: Callable[[str], None]) -> list[Cell]:
    """The cells that run: those without a record, and those whose record `rerun` wants made again.

    A record that was cut off, changed by hand or has another schema is named, set aside, and its cell runs again.
    """
    chosen = []
    for cell in plan.cells:
        try:
            record = store.read_record(cell.id)
        except StoreError as error:
            say(f"{error}; kept as {store.set_aside(cell.id).name}")
            record = None
        again = record is not None and (
            rerun == "all"
            or (rerun == "failed" and record["status"] in ("failed", "timed_out"))
            or (rerun == "stale" and is_stale(record))
        )
        if again:
            store.remove(cell.id)
        if record is None or again:  # without a record, it goes on from its checkpoint where there is one
            chosen.append(cell)
    return chosen


def check_device(plan: Plan) -> None:
    """Raise NotPossibleError where a cell's device is not there, before anything runs or is written."""
    for device in {cell.config["runtime"]["device"] for cell in plan.cells}:
        training.require_device(device)


def run(
    suite: str,
    *,
    choice: Choice | None = None,
    results: str | Path = "results",
    jobs: int | None = None,
    rerun: str = "missing",
    command: str | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Run what is missing of a suite, mirror it to MLflow, write the report.

    Args:
        suite: a suite's name, the path of its TOML, or a task's name.
        choice: what to change of it.
        command: how this run was asked for, for the report.
        say: where lines for people go.

    A script guards the call by `if __name__ == "__main__":`, since worker processes import the script again.

    Raises:
        PosencError: bad input or missing data; nothing has run or been written.
    """
    if multiprocessing.parent_process() is not None:
        raise ConfigError(
            "posenc.run was called again inside a worker process: guard it by `if __name__ == '__main__':`"
        )
    choice = choice or Choice()
    if rerun not in RERUN:
        raise UnknownNameError("choice", rerun, RERUN, "--rerun")
    plan = planning.make(planning.find_suite(suite), choice)
    check_device(plan)
    workers = jobs_for(plan, jobs)
    store = Store(Path(results) / plan.suite.name)
    asked = command or f"posenc.run({suite!r})"
    with store.locked(asked):
        store.write_manifest(plan.manifest(asked, datetime.now(UTC).isoformat(timespec="seconds")))
        cells = select(plan, store, rerun, say)
        counts = f"{len(plan.cells)} cells, {len(plan.cells) - len(cells)} finished before, {workers} at once"
        say(f"{plan.suite.name}: {counts}, in {store.folder}")
        outcome = Outcome(store)
        mirror = Mirror(store, default_uri(store.folder.parent), say)
        outcome.stopped = not _run_cells(plan, cells, store, workers, choice.data, mirror)
        for record in store.records():
            outcome.counts[record["status"]] += 1
            if record["status"] in ("failed", "timed_out"):
                outcome.failed.append(record)
        outcome.report = write_report(store, store.folder / "report")
        mirror.finish(store.folder / "report")
    return outcome


def _run_cells(plan: Plan, cells: list[Cell], store: Store, workers: int, data: Path | None, mirror: Mirror) -> bool:
    """Run cells with their progress shown and mirrored. Returns False where it was stopped."""
    name = plan.suite.name
    with Progress(store, [cell.manifest() for cell in plan.cells]) as progress:
        for cell in plan.cells:
            if cell not in cells:
                record = store.read_record(cell.id)
                assert record is not None
                progress.ended(cell.id, record["status"], record["reason"])
        possible = []
        for cell in cells:
            if cell.why_not:
                training.not_run(cell, name, store, "not_possible", cell.why_not)
                progress.ended(cell.id, "not_possible", cell.why_not)
            else:
                possible.append(cell)
        last = [time.monotonic()]

        def tick() -> None:
            progress.refresh()
            if time.monotonic() - last[0] > MIRROR_SECONDS:
                mirror.update()
                last[0] = time.monotonic()

        events = Events(
            started=lambda cell: progress.started(cell.id),
            ended=lambda cell, record: progress.ended(cell.id, record["status"], record["reason"]),
            tick=tick,
        )
        done = LocalEngine(workers, name, store, data).run(possible, events)
    mirror.update()
    return done


def status(suite: str, results: str | Path = "results") -> dict[str, Any]:
    """Counts of a suite's cells: done, failed, not possible, timed out, started (a curve but no record), left.

    `other_code` counts records made by another commit, or with uncommitted changes.

    Raises:
        StoreError: it never ran here, or a record is damaged.
    """
    store = store_for(suite, results)
    counts: Counter[str] = Counter()
    failed = []
    for cell in store.read_manifest()["cells"]:
        record = store.read_record(cell["id"])
        if record is None:
            counts["started" if store.curve(cell["id"]) else "left"] += 1
            continue
        counts[record["status"]] += 1
        counts["other_code"] += is_stale(record)
        if record["status"] in ("failed", "timed_out"):
            failed.append(record)
    return {"counts": counts, "failed": failed, "store": store}
