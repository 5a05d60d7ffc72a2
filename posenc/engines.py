"""Where cells run: worker processes on this machine.

A worker is a fresh Python process that takes cells one after another (starting one costs seconds) and writes their
files; the driver reads those and never shares memory with it. A worker that dies costs the cell it held: that cell
is recorded as failed with the cause, and a new worker takes the next.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from posenc.plan import Cell
from posenc.store import Store

POLL_SECONDS = 0.5


@dataclass
class Events:
    """What the driver wants to hear: `tick` comes at least twice a second."""

    started: Callable[[Cell], None]
    ended: Callable[[Cell, dict[str, Any]], None]
    tick: Callable[[], None]


def _work(pipe: Connection, stop: Any, suite: str, folder: str, data: str | None) -> None:
    """A worker's life: receive a cell, run it, answer with its id; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver passes it on as `stop`
    from posenc import training

    store, driver = Store(folder), os.getppid()

    def stopped() -> bool:
        return stop.is_set() or os.getppid() != driver  # a driver that was killed has let go of the suite's lock

    with suppress(EOFError, BrokenPipeError, training.StoppedError):
        while (cell := pipe.recv()) is not None:
            training.train(cell, suite, store, Path(data) if data else None, stopped)
            pipe.send(cell.id)


class _Worker:
    """A worker process and the cell it holds."""

    def __init__(self, context: Any, stop: Any, suite: str, store: Store, data: Path | None) -> None:
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, stop, suite, str(store.folder), str(data) if data else None)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        # Until it has set this for itself, Ctrl-C in the terminal must not reach it half-way through its imports.
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        self.process.start()
        if before is not None:
            signal.signal(signal.SIGINT, before)
        theirs.close()
        self.cell: Cell | None = None

    def give(self, cell: Cell | None) -> None:
        self.cell = cell
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died: the sentinel says so, and is acted on
            self.pipe.send(cell)


class LocalEngine:
    """Runs cells in `jobs` worker processes."""

    def __init__(self, jobs: int, suite: str, store: Store, data: Path | None) -> None:
        self.jobs, self.suite, self.store, self.data = jobs, suite, store, data
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()

    def run(self, cells: Sequence[Cell], events: Events) -> bool:
        """Run every cell; each leaves a record. Returns False where it was stopped before the end.

        Ctrl-C lets running cells finish their current step and no more; a second one kills them at once.
        """
        queue = list(cells)
        workers = [self._worker() for _ in range(min(self.jobs, len(queue)))]
        interrupts: list[int] = []

        def interrupted(number: int, frame: object) -> None:
            interrupts.append(number)
            self.stop.set()

        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, interrupted) if main else None
        try:
            for worker in workers:
                self._next(worker, queue, events)
            while any(worker.cell for worker in workers):
                handles = [
                    handle for worker in workers if worker.cell for handle in (worker.pipe, worker.process.sentinel)
                ]
                ready = wait(handles, timeout=POLL_SECONDS)
                if len(interrupts) > 1:
                    break
                for index, worker in enumerate(workers):
                    if worker.cell and (worker.pipe in ready or worker.process.sentinel in ready):
                        workers[index] = self._answered(worker, queue, events)
                events.tick()
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
            for worker in workers:
                if worker.cell or interrupts:
                    worker.process.kill()
                else:
                    worker.give(None)
                worker.process.join(timeout=10)
        return not interrupts

    def _worker(self) -> _Worker:
        return _Worker(self.context, self.stop, self.suite, self.store, self.data)

    def _next(self, worker: _Worker, queue: list[Cell], events: Events) -> None:
        if queue and not self.stop.is_set():
            cell = queue.pop(0)
            worker.give(cell)
            events.started(cell)
        else:
            worker.cell = None

    def _answered(self, worker: _Worker, queue: list[Cell], events: Events) -> _Worker:
        """A worker finished its cell, was stopped, or died. Returns the worker that goes on in its place."""
        cell = worker.cell
        assert cell is not None
        try:
            alive = worker.pipe.poll() and worker.pipe.recv() == cell.id
        except (EOFError, ConnectionResetError):
            alive = False
        if not alive:
            worker.process.join()
            worker.cell = None
            if self.stop.is_set():
                return worker
            if self.store.read_record(cell.id) is None:
                self._record_death(cell, worker.process.exitcode)
            worker = self._worker() if queue else worker
        record = self.store.read_record(cell.id)
        assert record is not None
        events.ended(cell, record)
        self._next(worker, queue, events)
        return worker

    def _record_death(self, cell: Cell, code: int | None) -> None:
        from posenc.training import not_run

        cause = f"killed by signal {-code}" if code and code < 0 else f"exit status {code}"
        not_run(cell, self.suite, self.store, "failed", f"the worker process died: {cause}")
