"""A run from its plan to its report: what `posenc run` and `posenc.run` (posenc.running.run) both call."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posenc.api import registry
from posenc.common.errors import ConfigError, NotPossibleError, StoreError
from posenc.common.text import harmless
from posenc.plan import plan as planning
from posenc.plan.cell import Cell
from posenc.plan.plan import Plan
from posenc.plan.selection import Selection, find_suite
from posenc.records import provenance
from posenc.records.manifest import union
from posenc.records.record import DATA, Record, is_failure
from posenc.records.store import KEPT, Store
from posenc.report import write_report
from posenc.running import ray as ray_engine
from posenc.running import torchrun
from posenc.running.local import Engine, Events, LocalEngine
from posenc.running.progress import Progress
from posenc.running.queue import Schedule
from posenc.running.run_options import Means
from posenc.running.sharing import cells_a_gpu
from posenc.running.status import is_stale
from posenc.running.table_so_far import SoFar
from posenc.tracking import current
from posenc.tracking.mirror import Mirror, default_uri
from posenc.training.cell import not_run
from posenc.training.cell_terms import CellTerms
from posenc.training.runtime import NOT_REPEATABLE, require_device

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
        """0 all done, 2 damaged data, 3 some cells failed, 130 stopped, by Ctrl-C or by its time."""
        if self.stopped:
            return 130
        if any(record.get("cause") == DATA for record in self.failed):
            return 2
        return 3 if self.failed else 0


def slots(
    plan: Plan, jobs: int | None, choice: Selection | None = None, say: Callable[[str], None] = lambda line: None
) -> list[str | None]:
    """For each worker process the GPUs it may use, as CUDA_VISIBLE_DEVICES has them; None on a CPU.

    Args:
        choice: what was typed, for errors. say: where the rule goes by which cells share a GPU.

    Raises:
        NotPossibleError: a device is not there, before anything runs or is written.
        ConfigError: a cell wants more GPUs than there are.
    """
    runtimes = [cell.settings.runtime for cell in plan.cells]
    choice = choice or Selection()
    for device in {runtime.device for runtime in runtimes}:
        try:
            require_device(device)
        except NotPossibleError as error:
            raise NotPossibleError(f"{choice.typed('runtime.device', device)}: {error}") from None
    together = max(runtime.processes for runtime in runtimes)
    if all(runtime.device == "cpu" for runtime in runtimes):
        threads = max(runtime.threads * runtime.processes for runtime in runtimes)
        return [None] * (jobs or max(1, provenance.cores() // threads))
    gpus = provenance.gpus()
    groups = [",".join(gpus[i : i + together]) for i in range(0, len(gpus) - together + 1, together)]
    if not groups:
        raise ConfigError(f"{choice.typed('runtime.processes', together)}: this machine has {len(gpus)} GPUs")
    if jobs is None:
        each, rule = cells_a_gpu(plan.cells, provenance.cores(), groups if together == 1 else gpus)
        jobs = each * len(groups)
        say(rule)
    return [groups[index % len(groups)] for index in range(jobs)]


def select(plan: Plan, store: Store, rerun: str, say: Callable[[str], None]) -> list[Cell]:
    """The cells that run: those without a record, and those whose record `rerun` wants made again.

    A cell that ended well runs again where another starts from its weights and they are no longer there.
    """
    chosen: set[str] = set()
    for cell in plan.cells:
        record = store.read_record(cell.id)
        again = record is not None and (
            rerun == "all" or (rerun == "failed" and is_failure(record)) or (rerun == "stale" and is_stale(record))
        )
        if record is None or again:  # without a record, it goes on from its checkpoint where there is one
            chosen.add(cell.id)
        if record is not None and again:
            # What failed goes on from its checkpoint, where it has one: what comes after is the same as before.
            store.remove(cell.id, restart=rerun != "failed")
    for cell in reversed(plan.cells):  # children before their parents, whose own parents may then be wanted too
        if cell.id in chosen and cell.parent and cell.parent not in chosen and not cell.why_not:
            record = store.read_record(cell.parent)
            assert record is not None  # else it was chosen
            if record["status"] == "done" and not store.weights_path(cell.parent).is_file():
                say(f"{record['name']} runs again: {cell.name} starts from its weights, which were not kept")
                store.remove(cell.parent)
                chosen.add(cell.parent)
    return [cell for cell in plan.cells if cell.id in chosen]


def _harmless(say: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: say(harmless(line))


def _planned_before(store: Store, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The manifest of the run before, if any; one that is damaged is named, and made anew."""
    if not store.manifest_path.exists():
        return None
    try:
        return store.read_manifest()
    except StoreError as error:
        say(f"{error}; it is renewed now, with the cells of this run alone")
        return None


def set_damaged_aside(cells: Iterable[str], store: Store, say: Callable[[str], None]) -> None:
    """Name each record that was cut off, changed by hand, or has another schema, and rename it: its cell runs again."""
    for cell_id in cells:
        try:
            store.read_record(cell_id)
        except StoreError as error:
            say(f"{error}; kept as {store.set_aside(cell_id).name}")


def run(
    suite: str,
    *,
    choice: Selection | None = None,
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

    Worker processes import posenc and no script: it may be called from a script, from standard input, in a notebook.

    Raises:
        PosencError: bad input or missing data; nothing has run or been written.
        StorageError: a disk takes no more writes; what had ended is kept.
    """
    if multiprocessing.parent_process() is not None:
        raise ConfigError(
            "posenc.run starts worker processes of its own, and was called inside one of a pool (or of a script that"
            " does not guard what it starts by `if __name__ == '__main__':`): call it from the main process"
        )
    begun = time.monotonic()
    choice, means, say = choice or Selection(), means or Means(), _harmless(say)
    plan = planning.make(find_suite(suite), choice)
    _require_workers_know(plan)
    places = slots(plan, means.jobs, choice, say) if means.engine == "local" else []
    if means.engine == "ray":
        ray_engine.address_of(means.address)
    store = Store(Path(results) / plan.suite.name)
    asked = command or f"posenc.run({suite!r})"
    stop_at = None if means.stop_after is None else begun + means.stop_after
    limit = plan.suite.time_limit or None if means.time_limit is None else means.time_limit
    terms = CellTerms(
        suite=plan.suite.name,
        store=store.folder,
        data=choice.data,
        checkpoint_seconds=means.checkpoint_seconds,
        time_limit=limit,
        keep=frozenset(cell.id for cell in plan.cells) if means.keep else plan.parents(),
        for_owner=means.keep,
    )
    with store.locked(asked):
        torchrun.sweep()
        manifest = plan.manifest(asked, datetime.now(UTC).isoformat(timespec="seconds"))
        _write_manifest(store, _planned_before(store, say), manifest)
        set_damaged_aside([cell["id"] for cell in store.read_manifest()["cells"]], store, say)
        cells = select(plan, store, means.rerun, say)
        if means.keep:
            _say_what_was_not_kept(plan, cells, store, say)
        at_once = f", {len(places)} at once" if places else " on Ray"
        counts = f"{len(plan.cells)} cells, {len(plan.cells) - len(cells)} finished before{at_once}"
        say(f"{plan.suite.name}: {counts}, in {store.folder}")
        if any(cell.settings.runtime.device == "cuda" for cell in cells):
            say(NOT_REPEATABLE)
        outcome = Outcome(store)
        mirror = Mirror(store, default_uri(store.folder.parent), say)
        report = store.folder / "report"
        try:
            outcome.stopped = not _run_cells(plan, cells, terms, means, places, mirror, stop_at)
        finally:
            if not means.keep:
                _drop_weights(plan, cells, store)
        if cells:
            mirror.update()
        mine = {cell.id for cell in plan.cells}
        for record in (one for one in store.records() if one["id"] in mine):
            outcome.counts[record["status"]] += 1
            if is_failure(record):
                outcome.failed.append(record)
        outcome.report = write_report(store, report)
        if cells or not current.is_current(store, mirror.uri, report):
            mirror.update()
            mirror.finish(report)
            if not mirror.off:
                current.note(store, mirror.uri, report)
    return outcome


def _say_what_was_not_kept(plan: Plan, cells: list[Cell], store: Store, say: Callable[[str], None]) -> None:
    """Cells that ended well before, without --keep, have no model left: that takes training them again."""
    before = [cell.id for cell in plan.cells if cell not in cells and not (store.cell_folder(cell.id) / KEPT).is_file()]
    records = [store.read_record(cell) for cell in before]
    if lost := sum(record is not None and record["status"] == "done" for record in records):
        how = "--rerun all trains them again, to the same numbers"
        say(f"--keep: {lost} finished cells were not kept when they ran: {how}")


def _write_manifest(store: Store, before: dict[str, Any] | None, manifest: dict[str, Any]) -> None:
    """What is asked for now, with what was planned before of the same suite. Where that is nothing new, the file stays,
    and with it the report made from it."""
    ended = sum((store.cell_folder(cell["id"]) / "record.json").is_file() for cell in (before or {}).get("cells", ()))
    own, whole = ("made", "digest"), json.loads(json.dumps(union(before, manifest, ended)))
    if {k: v for k, v in (before or {}).items() if k not in own} != {k: v for k, v in whole.items() if k not in own}:
        store.write_manifest(whole)


def _require_workers_know(plan: Plan) -> None:
    """Refuse encodings that no other process can make, before anything runs."""
    for encoding in dict.fromkeys(cell.config["encoding"]["name"] for cell in plan.cells):
        for name in registry.registered_here(encoding):
            raise ConfigError(
                f"encoding {name!r} is registered in this process alone, and cells run in others: put its class in a"
                f" file and name it ./FILE.py:CLASS in place of {name!r}, or bring it by an entry point of a package"
            )


def _run_cells(
    plan: Plan, cells: list[Cell], terms: CellTerms, means: Means, places: list[str | None], mirror: Mirror,
    stop_at: float | None,
) -> bool:  # fmt: skip
    """Run cells with their progress shown and mirrored. Returns False where it was stopped."""
    store, statuses = Store(terms.store), {}
    with Progress(store, [cell.manifest() for cell in plan.cells], at_once=max(1, len(places))) as progress:
        for cell in plan.cells:
            if cell not in cells:
                record = store.read_record(cell.id)
                assert record is not None
                statuses[cell.id] = record["status"]
                progress.ended(cell.id, record["status"], record.get("reason"))
        possible = []
        for cell in cells:
            if cell.why_not:
                status = "failed" if cell.faulty else "not_possible"
                not_run(cell, terms.suite, store, status, cell.why_not)
                progress.ended(cell.id, status, cell.why_not)
            else:
                possible.append(cell)
        last = [time.monotonic()]

        def tick() -> None:
            progress.refresh()
            if time.monotonic() - last[0] > MIRROR_SECONDS:
                mirror.update()
                last[0] = time.monotonic()

        so_far = SoFar(progress, store, possible)

        def ended(cell: Cell, record: Record) -> None:
            _ended(progress, cell, record)
            so_far.ended(cell)

        events = Events(
            started=lambda cell: progress.started(cell.id),
            ended=ended,
            tick=tick,
            said=progress.say,
        )
        schedule = Schedule(possible, statuses)
        return not possible or _engine(plan, schedule, terms, events, means, places, stop_at).run()


def _ended(progress: Progress, cell: Cell, record: Record) -> None:
    progress.ended(cell.id, record["status"], record.get("reason"))
    for remark in record.get("remarks") or ():
        progress.say(f"{cell.name}: {remark}")


def _engine(
    plan: Plan, schedule: Schedule, terms: CellTerms, events: Events, means: Means, places: list[str | None],
    stop_at: float | None,
) -> Engine:  # fmt: skip
    if means.engine == "local":
        return LocalEngine(schedule, terms, events, places, stop_at)
    runtimes = [cell.settings.runtime for cell in plan.cells]
    cores = max(runtime.threads * runtime.processes for runtime in runtimes)
    gpus = max(runtime.processes if runtime.device == "cuda" else 0 for runtime in runtimes)
    return ray_engine.RayEngine(schedule, terms, events, means.address, means.jobs, cores, gpus, stop_at)


def _drop_weights(plan: Plan, ran: list[Cell], store: Store) -> None:
    """Delete the weights from which cells of this run started and for which no cell waits; one that failed does."""
    waiting = set()
    for cell in plan.cells:
        record = store.read_record(cell.id)
        if cell.parent and (record is None or record["status"] not in ("done", "not_possible")):
            waiting.add(cell.parent)
    for parent in {cell.parent for cell in ran if cell.parent} - waiting:
        if (store.cell_folder(parent) / KEPT).is_file():
            continue  # an earlier run was asked to keep it
        store.weights_path(parent).unlink(missing_ok=True)
