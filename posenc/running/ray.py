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

from posenc.common import telemetry
from posenc.common.errors import ClusterError, ConfigError, PosencError, StorageError, StoreError
from posenc.plan.cell import Cell
from posenc.records import provenance
from posenc.records.store import Store
from posenc.running.local import GRACE_SECONDS, POLL_SECONDS, Engine, Events, interrupts
from posenc.running.queue import Schedule
from posenc.training.cell_terms import CellTerms, StoppedError

Answer = Exception | None


def _work(cell: Cell, terms: CellTerms, version: str, manifest: str, folder: str) -> Answer:
    """In a fresh process of some node: run a cell, return what went wrong, if anything."""
    import platform

    from posenc.running.torchrun import train_cell

    with suppress(OSError):  # encodings in files are named from where the driver runs
        os.chdir(folder)
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
        terms: CellTerms,
        events: Events,
        address: str | None,
        jobs: int | None,
        cores: int,
        gpus: int,
        stop_at: float | None = None,
    ) -> None:
        super().__init__(schedule, terms, events, stop_at)
        self.jobs, self.cores, self.gpus = jobs, cores, gpus
        self.ray = _connect(address)
        # max_calls: a fresh process for each cell. max_retries: who is tried again is decided here.
        self.task = self.ray.remote(max_calls=1, max_retries=0, num_cpus=cores, num_gpus=gpus)(_work)
        self.running: dict[Any, tuple[Cell, float]] = {}
        self.stopping = False
        self.node: str = self.ray.get_runtime_context().get_node_id()
        self.reached: dict[str, bool] = {}
        self._lost()  # which nodes there are

    def run(self) -> bool:
        try:
            with interrupts(self._stop) as pressed:
                self.bar()
                while self._submit():
                    ready, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
                    if len(pressed) > 1:
                        break
                    if lost := self._lost(self.node):  # nothing that was started through it will ever answer
                        self._give_up(lost)
                        break
                    if self.is_over and not self.stopping:
                        self._stop()
                    for reference in ready:
                        self._look(reference)
                    self._kill_overdue()
                    self.events.tick()
        finally:
            for reference in self.running:
                with suppress(self.ray.exceptions.RayError):  # of a cluster that is gone
                    self.ray.cancel(reference, force=True)
            self.ray.shutdown()
        if self.failure:
            raise self.failure
        return not pressed and not self.schedule.unfinished

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
            self.running[self.task.remote(cell, self.terms, version, made, os.getcwd())] = cell, time.monotonic()
            self.events.started(cell)
            room -= 1
        return bool(self.running)

    def _stop(self) -> None:
        """Let running cells end their step; those that wait for a node never start."""
        self.stopping = True
        for reference in self.running:
            with suppress(self.ray.exceptions.RayError):
                self.ray.cancel(reference)

    def _look(self, reference: Any) -> None:
        """Act on a task that has ended, however it did."""
        cell, _ = self.running.pop(reference)
        errors = self.ray.exceptions
        try:
            answer = self.ray.get(reference)
        except errors.RayError as error:
            if self.store.read_record(cell.id) is not None:
                self.ended(cell)
            elif self.stopping:
                return
            elif lost := self._of_cluster(error):
                self._give_up(lost, cell)
            else:
                self.died(cell, type(error).__name__, killed=isinstance(error, errors.OutOfMemoryError))
            return
        if answer is None:
            self.ended(cell)
        elif not isinstance(answer, StoppedError):
            self.failure = self.failure or answer
            self._stop()

    def _lost(self, only: str | None = None) -> str:
        """Which node's manager does not answer any more; empty where all do.

        Args:
            only: the id of the one node that is looked at.
        """
        try:
            nodes = self.ray.nodes()
        except self.ray.exceptions.RayError as error:
            return f"the cluster does not answer: {first_line(error)}"
        for node in nodes:
            name, address, port = node["NodeID"], node["NodeManagerAddress"], node["NodeManagerPort"]
            if only not in (None, name):
                continue
            if name not in self.reached and node["Alive"]:
                self.reached[name] = _listens(address, port)  # from outside the cluster, by ray://, none may be
            if name in self.reached and not (node["Alive"] and (_listens(address, port) or not self.reached[name])):
                return f"the node manager at {address} died"
        return ""

    def _of_cluster(self, error: Exception) -> str:
        """What of the cluster, not of the cell, made a task fail; empty where nothing did."""
        theirs = (self.ray.exceptions.NodeDiedError, self.ray.exceptions.LocalRayletDiedError)
        return self._lost() or (first_line(error) if isinstance(error, theirs) else "")

    def _give_up(self, why: str, *failed: Cell) -> None:
        """Stop the run: its cells, those that failed with it too, are not at fault, and stay as they are."""
        left = len(self.running) + len(failed)
        cells = "1 cell that ran is" if left == 1 else f"{left} cells that ran are"
        again = "start the cluster anew, and the same command goes on where they stopped"
        self.failure = self.failure or ClusterError(f"--engine ray: {why}; {cells} unfinished: {again}")
        self._stop()

    def _kill_overdue(self) -> None:
        limit = self.terms.time_limit
        for reference, (cell, since) in list(self.running.items()):
            if limit is not None and time.monotonic() - since > limit + GRACE_SECONDS:
                self.ray.cancel(reference, force=True)
                self.ray.wait([reference], timeout=GRACE_SECONDS)
                del self.running[reference]
                self.overdue(cell)


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _listens(address: str, port: int) -> bool:
    """Whether something listens there: a manager that was killed may count as alive for some seconds more."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


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
