"""Where cells run: worker processes on this machine (posenc.running.ray: on a Ray cluster).

A worker is a fresh Python process that takes cells one after another (starting one costs seconds) and writes their
files; the driver reads those and never shares memory with it. A worker that dies costs the cell it held, which is
tried once more from its last checkpoint; one that dies again under the same cell leaves it failed, with the cause.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from time import monotonic
from types import ModuleType
from typing import Any

from posenc.common.errors import ClusterError, StorageError
from posenc.common.memory import free_memory
from posenc.plan.cell import Cell
from posenc.records.record import MACHINE, STATUSES
from posenc.records.store import Store
from posenc.running.queue import Schedule
from posenc.running.why_died import cause
from posenc.training.cell import not_run
from posenc.training.cell_terms import CellTerms, StoppedError

POLL_SECONDS = 0.5
GRACE_SECONDS = 30.0
"""How long after its time limit a cell that does not end by itself is killed."""


@dataclass
class Events:
    """What the driver wants to hear: `tick` comes at least twice a second."""

    started: Callable[[Cell], None]
    ended: Callable[[Cell, dict[str, Any]], None]
    tick: Callable[[], None]
    said: Callable[[str], None]


class Engine:
    """What every engine does when a cell ends, its worker dies, or its time is over.

    Args:
        stop_at: when the run stops, as `monotonic` tells the time; None for never.
    """

    def __init__(self, schedule: Schedule, terms: CellTerms, events: Events, stop_at: float | None = None) -> None:
        self.schedule, self.terms, self.events, self.stop_at = schedule, terms, events, stop_at
        self.store = Store(terms.store)
        self.failure: StorageError | ClusterError | None = None

    def run(self) -> bool:
        """Run every cell; each leaves a record. Returns False where it was stopped before the end.

        Ctrl-C, and the time at which it stops, let running cells finish their current step and no more; a second Ctrl-C
        kills them at once.

        Raises:
            StorageError: a disk takes no more writes; what had ended is kept, the rest goes on from checkpoints.
            ClusterError: the cluster lost a node, as for the cells.
        """
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether the time has come at which the run stops."""
        return self.stop_at is not None and monotonic() > self.stop_at

    def ended(self, cell: Cell) -> None:
        """A cell has its record: it is shown, and whatever waited for it can start, or never can."""
        record = self.store.read_record(cell.id)
        assert record is not None
        self.schedule.end(cell, record["status"])
        self.events.ended(cell, record)
        self.bar()

    def bar(self) -> None:
        """Record the cells that can never start as failed, with what their parent came to."""
        for child in self.schedule.barred():
            assert child.parent
            parent = self.store.read_record(child.parent)
            assert parent is not None
            reason = f"not started: its parent {parent['name']} {STATUSES[parent['status']]}"
            reason = f"{reason}: {parent.get('reason')}"
            not_run(child, self.terms.suite, self.store, "failed", reason, cause=parent.get("cause"))
            self.ended(child)

    def died(self, cell: Cell, cause: str, killed: bool) -> None:
        """The worker that held a cell is gone; killed: from outside, as for want of memory."""
        if self.store.read_record(cell.id) is not None:
            self.ended(cell)
        elif self.schedule.again(cell):
            self.events.said(f"{cell.name}: the worker process died ({cause}); it is tried once more")
        else:
            reason = f"the worker process died twice: {cause}"
            not_run(cell, self.terms.suite, self.store, "failed", reason, cause=MACHINE if killed else None)
            self.ended(cell)

    def overdue(self, cell: Cell) -> None:
        """A cell's worker was killed since it did not end in its time."""
        if self.store.read_record(cell.id) is None:
            reason = f"did not end within {self.terms.time_limit:g} s and {GRACE_SECONDS:g} more: killed"
            not_run(cell, self.terms.suite, self.store, "timed_out", reason, cause=MACHINE)
        self.ended(cell)


@contextmanager
def interrupts(first: Callable[[], None]) -> Iterator[list[int]]:
    """Collects Ctrl-C instead of raising; the first one calls `first`."""
    pressed: list[int] = []

    def handle(number: int, frame: object) -> None:
        pressed.append(number)
        if len(pressed) == 1:
            first()

    main = threading.current_thread() is threading.main_thread()  # others cannot take signals
    before = signal.signal(signal.SIGINT, handle) if main else None
    try:
        yield pressed
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, stop: Any, terms: CellTerms, gpus: str | None, driver: int) -> None:
    """A worker's life: receive a cell, run it, answer with what went wrong, if anything; None ends it.

    Args:
        driver: its process, as it was when it started this one: it may be gone before this one looks.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver passes it on as `stop`
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus  # torch looks at it when it first uses CUDA
    from posenc.running.torchrun import train_cell

    def stopped() -> bool:
        return stop.is_set() or os.getppid() != driver  # a driver that was killed has let go of the suite's lock

    with suppress(EOFError, BrokenPipeError, StoppedError):
        while (cell := pipe.recv()) is not None:
            try:
                train_cell(cell, terms, stopped)
                pipe.send(None)
            except StorageError as error:
                pipe.send(error)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a process that starts meanwhile not run the main script again: nothing of it is needed, it may be standard
    input or a notebook, and may start a run itself."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before


class _Worker:
    """A worker process, the cell it holds, since when, and how much memory was free then."""

    def __init__(self, context: Any, stop: Any, terms: CellTerms, gpus: str | None) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work,
            args=(theirs, stop, terms, gpus, os.getpid()),
        )
        # Until it has set this for itself, Ctrl-C in the terminal must not reach it half-way through its imports.
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        with _without_main():
            self.process.start()
        if before is not None:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        self.cell: Cell | None = None
        self.since = 0.0
        self.free: int | None = None

    def give(self, cell: Cell | None) -> None:
        self.cell, self.since, self.free = cell, monotonic(), free_memory()
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died: the sentinel says so, and is acted on
            self.pipe.send(cell)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class LocalEngine(Engine):
    """Runs cells in worker processes, one a slot.

    Args:
        slots: for each worker the GPUs it may use, as in CUDA_VISIBLE_DEVICES; None for all.
    """

    def __init__(
        self, schedule: Schedule, terms: CellTerms, events: Events, slots: Sequence[str | None],
        stop_at: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(schedule, terms, events, stop_at)
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()
        self.slots = slots
        self.workers: list[_Worker | None] = [None for _ in slots]

    def run(self) -> bool:
        with interrupts(self.stop.set) as pressed:
            try:
                self.bar()
                while busy := self._give():
                    ready = wait(
                        [handle for worker in busy for handle in (worker.pipe, worker.process.sentinel)],
                        timeout=POLL_SECONDS,
                    )
                    if len(pressed) > 1:
                        break
                    if self.is_over:
                        self.stop.set()
                    for index, worker in enumerate(self.workers):
                        if worker and worker.cell:
                            self._look(index, worker, worker.pipe in ready or worker.process.sentinel in ready)
                    self.events.tick()
            finally:
                self._end()
        if self.failure:
            raise self.failure
        return not pressed and not self.schedule.unfinished

    def _give(self) -> list[_Worker]:
        """Give every idle slot a cell that can start. Returns the workers that hold one."""
        for index, worker in enumerate(self.workers):
            if self.stop.is_set() or (worker and worker.cell):
                continue
            if cell := self.schedule.take():
                worker = worker or _Worker(self.context, self.stop, self.terms, self.slots[index])
                self.workers[index] = worker
                worker.give(cell)
                self.events.started(cell)
        return [worker for worker in self.workers if worker and worker.cell]

    def _look(self, index: int, worker: _Worker, ready: bool) -> None:
        """Act on a worker that has answered, died, or held its cell for too long."""
        cell, limit = worker.cell, self.terms.time_limit
        assert cell is not None
        if not ready:
            if limit is not None and monotonic() - worker.since > limit + GRACE_SECONDS:
                worker.kill()
                self.workers[index] = None
                self.overdue(cell)
            return
        try:
            answered = worker.pipe.poll()
            answer = worker.pipe.recv() if answered else None
        except (EOFError, ConnectionResetError):
            answered, answer = False, None
        worker.cell = None
        if isinstance(answer, StorageError):
            self.failure = self.failure or answer
            self.stop.set()
        elif answered:
            self.ended(cell)
        else:
            worker.process.join()
            self.workers[index] = None
            if not self.stop.is_set():
                code = worker.process.exitcode
                said = cause(code, cell.config, worker.free)
                self.died(cell, said, killed=code in (-signal.SIGKILL, -signal.SIGTERM))
            elif self.store.read_record(cell.id) is not None:
                self.ended(cell)

    def _end(self) -> None:
        for worker in filter(None, self.workers):
            if worker.cell or self.stop.is_set():
                worker.process.kill()
            else:
                worker.give(None)
            worker.process.join(timeout=10)
