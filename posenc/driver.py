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

from posenc import checkpoint, provenance, ray_engine
from posenc import plan as planning
from posenc.engines import Engine, Events, LocalEngine
from posenc.errors import ConfigError, StoreError, UnknownNameError
from posenc.loop import Terms, require_device
from posenc.plan import Cell, Choice, Plan
from posenc.progress import Progress
from posenc.report import write_report
from posenc.schedule import Schedule
from posenc.status import is_stale
from posenc.store import Record, Store
from posenc.tracking import Mirror, default_uri
from posenc.training import not_run

RERUN = ("missing", "failed", "stale", "all")
ENGINES = ("local", "ray")
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


@dataclass(frozen=True)
class Means:
    """How a run is carried out; none of it changes a number.

    Attributes:
        jobs: cells at once; by default as many as cores over threads a cell, or as GPUs.
        rerun: which finished cells run again: missing (none), failed, stale, all.
        engine: local or ray. address: of the Ray cluster.
        time_limit: seconds that a cell may take; None for what the suite says.
        checkpoint_seconds: of training, between two checkpoints.
        keep: keep the trained weights of every cell.
    """

    jobs: int | None = None
    rerun: str = "missing"
    engine: str = "local"
    address: str | None = None
    time_limit: float | None = None
    checkpoint_seconds: float = checkpoint.SECONDS
    keep: bool = False

    def __post_init__(self) -> None:
        if self.rerun not in RERUN:
            raise UnknownNameError("choice", self.rerun, RERUN, "--rerun")
        if self.engine not in ENGINES:
            raise UnknownNameError("engine", self.engine, ENGINES, "--engine")
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs {self.jobs}: at least 1 is wanted")
        if self.address is not None and self.engine != "ray":
            raise ConfigError(f"--address {self.address}: only --engine ray has one")


def slots(plan: Plan, jobs: int | None) -> list[str | None]:
    """For each worker process the GPUs it may use, as CUDA_VISIBLE_DEVICES has them; None on a CPU.

    Raises:
        NotPossibleError: a device is not there, before anything runs or is written.
        ConfigError: a cell wants more GPUs than there are.
    """
    runtimes = [cell.config["runtime"] for cell in plan.cells]
    for device in {runtime["device"] for runtime in runtimes}:
        require_device(device)
    together = max(runtime["processes"] for runtime in runtimes)
    if all(runtime["device"] == "cpu" for runtime in runtimes):
        threads = max(runtime["threads"] * runtime["processes"] for runtime in runtimes)
        return [None] * (jobs or max(1, provenance.cores() // threads))
    gpus = provenance.gpus()
    groups = [",".join(gpus[i : i + together]) for i in range(0, len(gpus) - together + 1, together)]
    if not groups:
        raise ConfigError(f"runtime.processes = {together}: this machine has {len(gpus)} GPUs")
    return [groups[index % len(groups)] for index in range(jobs or len(groups))]


def select(plan: Plan, store: Store, rerun: str, say: Callable[[str], None]) -> list[Cell]:
    """The cells that run: those without a record, and those whose record `rerun` wants made again.

    A record that was cut off, changed by hand or has another schema is named, set aside, and its cell runs again.
    A cell that ended well runs again where another starts from its weights and they are no longer there.
    """
    chosen: set[str] = set()
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
        if record is None or again:  # without a record, it goes on from its checkpoint where there is one
            chosen.add(cell.id)
        if record is not None and again:
            # What was cut short from outside (no traceback of its own) goes on; what failed by itself starts anew.
            store.remove(cell.id, restart=rerun != "failed" or record["traceback"] is not None)
    for cell in reversed(plan.cells):  # children before their parents, whose own parents may then be wanted too
        if cell.id in chosen and cell.parent and cell.parent not in chosen and not cell.why_not:
            record = store.read_record(cell.parent)
            assert record is not None  # else it was chosen
            if record["status"] == "done" and not store.weights_path(cell.parent).is_file():
                say(f"{record['name']} runs again: {cell.name} starts from its weights, which were not kept")
                store.remove(cell.parent)
                chosen.add(cell.parent)
    return [cell for cell in plan.cells if cell.id in chosen]


def run(
    suite: str,
    *,
    choice: Choice | None = None,
    means: Means | None = None,
    results: str | Path = "results",
    command: str | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Run what is missing of a suite, mirror it to MLflow, write the report.

    Args:
        suite: a suite's name, the path of its TOML, or a task's name.
        choice: what to change of it.
        means: how to run it.
        command: how this run was asked for, for the report.
        say: where lines for people go.

    A script guards the call by `if __name__ == "__main__":`, since worker processes import the script again.

    Raises:
        PosencError: bad input or missing data; nothing has run or been written.
        StorageError: a disk takes no more writes; what had ended is kept.
    """
    if multiprocessing.parent_process() is not None:
        raise ConfigError(
            "posenc.run was called again inside a worker process: guard it by `if __name__ == '__main__':`"
        )
    choice, means = choice or Choice(), means or Means()
    plan = planning.make(planning.find_suite(suite), choice)
    places = slots(plan, means.jobs) if means.engine == "local" else []
    if means.engine == "ray":
        ray_engine.address_of(means.address)
    store = Store(Path(results) / plan.suite.name)
    asked = command or f"posenc.run({suite!r})"
    limit = plan.suite.time_limit or None if means.time_limit is None else means.time_limit
    terms = Terms(
        suite=plan.suite.name,
        store=store.folder,
        data=choice.data,
        checkpoint_seconds=means.checkpoint_seconds,
        time_limit=limit,
        keep=frozenset(cell.id for cell in plan.cells) if means.keep else plan.parents(),
    )
    with store.locked(asked):
        store.write_manifest(plan.manifest(asked, datetime.now(UTC).isoformat(timespec="seconds")))
        cells = select(plan, store, means.rerun, say)
        at_once = f", {len(places)} at once" if places else " on Ray"
        counts = f"{len(plan.cells)} cells, {len(plan.cells) - len(cells)} finished before{at_once}"
        say(f"{plan.suite.name}: {counts}, in {store.folder}")
        outcome = Outcome(store)
        mirror = Mirror(store, default_uri(store.folder.parent), say)
        try:
            outcome.stopped = not _run_cells(plan, cells, terms, means, places, mirror)
        finally:
            if not means.keep:
                _drop_weights(plan, cells, store)
        for record in store.records():
            outcome.counts[record["status"]] += 1
            if record["status"] in ("failed", "timed_out"):
                outcome.failed.append(record)
        outcome.report = write_report(store, store.folder / "report")
        mirror.finish(store.folder / "report")
    return outcome


def _run_cells(
    plan: Plan, cells: list[Cell], terms: Terms, means: Means, places: list[str | None], mirror: Mirror
) -> bool:
    """Run cells with their progress shown and mirrored. Returns False where it was stopped."""
    store, statuses = Store(terms.store), {}
    with Progress(store, [cell.manifest() for cell in plan.cells]) as progress:
        for cell in plan.cells:
            if cell not in cells:
                record = store.read_record(cell.id)
                assert record is not None
                statuses[cell.id] = record["status"]
                progress.ended(cell.id, record["status"], record["reason"])
        possible = []
        for cell in cells:
            if cell.why_not:
                not_run(cell, terms.suite, store, "not_possible", cell.why_not)
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
            said=progress.say,
        )
        schedule = Schedule(possible, statuses)
        done = not possible or _engine(plan, schedule, terms, events, means, places).run()
    mirror.update()
    return done


def _engine(
    plan: Plan, schedule: Schedule, terms: Terms, events: Events, means: Means, places: list[str | None]
) -> Engine:
    if means.engine == "local":
        return LocalEngine(schedule, terms, events, places)
    runtimes = [cell.config["runtime"] for cell in plan.cells]
    cores = max(runtime["threads"] * runtime["processes"] for runtime in runtimes)
    gpus = max(runtime["processes"] if runtime["device"] == "cuda" else 0 for runtime in runtimes)
    return ray_engine.RayEngine(schedule, terms, events, means.address, means.jobs, cores, gpus)


def _drop_weights(plan: Plan, ran: list[Cell], store: Store) -> None:
    """Delete the weights from which cells of this run started and for which no cell waits; one that failed does."""
    waiting = set()
    for cell in plan.cells:
        record = store.read_record(cell.id)
        if cell.parent and (record is None or record["status"] not in ("done", "not_possible")):
            waiting.add(cell.parent)
    for parent in {cell.parent for cell in ran if cell.parent} - waiting:
        store.weights_path(parent).unlink(missing_ok=True)
