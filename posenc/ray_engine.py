"""Cells on a Ray cluster: the same cells, one fresh worker process each, on whichever node has room.

Results and data lie on a file system that every node sees under the same path, since workers write files and the driver
reads them. posenc must be installed on every node, at one version.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from posenc import provenance, telemetry
from posenc.engines import GRACE_SECONDS, POLL_SECONDS, Engine, Events, interrupts
from posenc.errors import ConfigError, PosencError, StorageError, StoreError
from posenc.loop import StoppedError, Terms
from posenc.plan import Cell
from posenc.schedule import Schedule
from posenc.store import Store

Answer = Exception | None


def _work(cell: Cell, terms: Terms, version: str, manifest: str) -> Answer:
    """In a fresh process of some node: run a cell, return what went wrong, if anything."""
    import platform

    from posenc.distributed import train_cell

    here = provenance.versions()["posenc"]
    if here != version:
        return ConfigError(f"node {platform.node()} has posenc {here}, and the driver {version}: install the same")
    store = Store(terms.store)
    with suppress(PosencError):
        if store.read_manifest().get("made") == manifest:
            stops: list[int] = []
            signal.signal(signal.SIGINT, lambda number, frame: stops.append(number))  # how Ray cancels what runs
            driver = os.getppid()
            try:
                train_cell(cell, terms, lambda: bool(stops) or os.getppid() != driver)
            except (StoppedError, StorageError) as error:
                return error
            return None
    return StoreError(
        f"node {platform.node()} does not see the results in {store.folder}: --results must be a folder all nodes share"
    )


class RayEngine(Engine):
    """Runs cells as tasks of a Ray cluster.

    Args:
        address: of a cluster that runs; None for RAY_ADDRESS, or else a Ray of this machine alone, on loopback.
        jobs: cells at once; None for as many as the cluster has room for.
        cores, gpus: what one cell takes.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(
        self,
        schedule: Schedule,
        terms: Terms,
        events: Events,
        address: str | None,
        jobs: int | None,
        cores: int,
        gpus: int,
    ) -> None:
        super().__init__(schedule, terms, events)
        self.jobs, self.cores, self.gpus = jobs, cores, gpus
        self.ray = _connect(address)
        # max_calls: a fresh process for each cell. max_retries: who is tried again is decided here.
        self.task = self.ray.remote(max_calls=1, max_retries=0, num_cpus=cores, num_gpus=gpus)(_work)
        self.running: dict[Any, tuple[Cell, float]] = {}
        self.stopping = False

    def run(self) -> bool:
        try:
            with interrupts(self._stop) as pressed:
                self.bar()
                while self._submit():
                    ready, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
                    if len(pressed) > 1:
                        break
                    for reference in ready:
                        self._look(reference)
                    self._kill_overdue()
                    self.events.tick()
        finally:
            for reference in self.running:
                self.ray.cancel(reference, force=True)
            self.ray.shutdown()
        if self.failure:
            raise self.failure
        return not pressed

    def room(self) -> int:
        """How many cells the cluster, as it is now, takes at once."""
        if self.jobs is not None:
            return self.jobs
        resources = self.ray.cluster_resources()
        rooms = [int(resources.get("CPU", 0) // self.cores)]
        if self.gpus:
            rooms.append(int(resources.get("GPU", 0) // self.gpus))
        return max(1, min(rooms))

    def _submit(self) -> bool:
        """Start what can start. Returns whether anything runs."""
        version, made = provenance.versions()["posenc"], self.store.read_manifest()["made"]
        room = 0 if self.stopping else self.room() - len(self.running)
        while room > 0 and (cell := self.schedule.take()):
            self.running[self.task.remote(cell, self.terms, version, made)] = cell, time.monotonic()
            self.events.started(cell)
            room -= 1
        return bool(self.running)

    def _stop(self) -> None:
        """Let running cells end their step; those that wait for a node never start."""
        self.stopping = True
        for reference in self.running:
            self.ray.cancel(reference)

    def _look(self, reference: Any) -> None:
        """Act on a task that has ended, however it did."""
        cell, _ = self.running.pop(reference)
        errors = self.ray.exceptions
        try:
            answer = self.ray.get(reference)
        except (errors.TaskCancelledError, errors.WorkerCrashedError, errors.NodeDiedError, errors.RayError) as error:
            if not self.stopping:
                self.died(cell, type(error).__name__)
            elif self.store.read_record(cell.id) is not None:
                self.ended(cell)
            return
        if answer is None:
            self.ended(cell)
        elif not isinstance(answer, StoppedError):
            self.failure = self.failure or answer
            self._stop()

    def _kill_overdue(self) -> None:
        limit = self.terms.time_limit
        for reference, (cell, since) in list(self.running.items()):
            if limit is not None and time.monotonic() - since > limit + GRACE_SECONDS:
                self.ray.cancel(reference, force=True)
                self.ray.wait([reference], timeout=GRACE_SECONDS)
                del self.running[reference]
                self.overdue(cell)


def address_of(given: str | None) -> str | None:
    """The cluster's address, by --address or RAY_ADDRESS; None for a Ray of this machine alone.

    Raises:
        ConfigError: nothing answers there. (Ray itself would try for minutes.)
    """
    address = given or os.environ.get("RAY_ADDRESS")
    if address and re.fullmatch(r"(ray://)?[^/]+:\d+", address):
        host, port = address.removeprefix("ray://").rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise ConfigError(f"--engine ray: no cluster at {address} ({error.strerror or error})") from None
    return address


def _connect(given: str | None) -> Any:
    telemetry.off()
    address = address_of(given)
    if not address:
        # A Ray of one machine listens on all its addresses, where anyone could send it work; on systems for which it
        # has no clusters it keeps to the loopback address, and this setting has that here too.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--engine ray: Ray cannot be imported ({error}): pip install 'posenc[ray]'") from None
    try:
        if address:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        else:
            here: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
            ray.init("local", log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--engine ray: no cluster at {address or 'this machine'} ({first})") from None
    return ray
