"""A cell in this process or, where it asks for several, in as many under torchrun.

The driver's worker starts torchrun and waits. The processes train (posenc.training.group), the first of them writes.
Their standard input is a pipe that nobody writes to: when it ends, because the run was stopped or because the worker
was killed, they stop after their step.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posenc.common.errors import StorageError
from posenc.common.files import write_atomically
from posenc.plan.cell import Cell
from posenc.records.store import Store
from posenc.training.cell import not_run, train
from posenc.training.cell_terms import CellTerms, StoppedError
from posenc.training.group import joined

POLL_SECONDS = 0.2


def train_cell(cell: Cell, terms: CellTerms, stopped: Callable[[], bool]) -> None:
    """Run a cell to its record, in as many processes as it asks for.

    Raises:
        StoppedError, StorageError: as `train` does.
    """
    if cell.settings.runtime.processes == 1:
        train(cell, terms, stopped)
    else:
        _under_torchrun(cell, terms, stopped)


def _under_torchrun(cell: Cell, terms: CellTerms, stopped: Callable[[], bool]) -> None:
    store = Store(terms.store)
    with _place() as (place, held), tempfile.TemporaryFile() as output:
        request = place / "cell.json"
        kept = {**asdict(terms), "store": str(terms.store), "data": terms.data and str(terms.data)}
        write_atomically(request, json.dumps({"cell": asdict(cell), "terms": {**kept, "keep": list(terms.keep)}}))
        process = subprocess.Popen(
            _command(request, cell.settings.runtime.processes),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(held,),  # it holds the folder too: its processes end after the worker that was killed
            start_new_session=True,  # Ctrl-C is for the driver, which passes it on
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(cell.settings.runtime.threads),
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # it would listen on every interface
            },
        )
        assert process.stdin is not None
        try:
            while process.poll() is None:
                if stopped() and not process.stdin.closed:
                    process.stdin.close()
                time.sleep(POLL_SECONDS)
        finally:
            process.stdin.close()
        if store.read_record(cell.id) is None:
            if stopped():
                raise StoppedError
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            cause = f"torchrun ended with status {process.returncode} and no record"
            not_run(cell, terms.suite, store, "failed", cause, said[-8000:] or None)


PREFIX = "posenc-torchrun-"


@contextmanager
def _place() -> Iterator[tuple[Path, int]]:
    """A temporary folder for one group of processes, and the lock on it, which ends with those that hold it."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as place:
        held = os.open(Path(place, "new"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            os.rename(Path(place, "new"), Path(place, "lock"))  # under this name it is held: `sweep` looks for no other
            yield Path(place), held
        finally:
            os.close(held)


def sweep() -> None:
    """Remove this user's folders of groups whose processes are dead: a kill leaves them in the temporary directory."""
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if place.is_symlink() or place.stat().st_uid != os.geteuid():
                continue
            held = os.open(place / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue  # not yet locked, or gone
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
        except OSError:
            continue  # held
        finally:
            os.close(held)


def _command(request: Path, processes: int) -> list[str]:
    """torchrun, its rendezvous in a file: by its default, a port, it would listen on every interface."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(processes),
        "--rdzv-backend", "c10d", "--rdzv-endpoint", str(request.with_name("rendezvous")),
        "--log-dir", str(request.with_name("logs")),
        "--rdzv-conf", "store_type=file", "--rdzv-id", request.parent.name,
        "--local-addr", "127.0.0.1",
        "--module", "posenc.running.torchrun", str(request),
    ]  # fmt: skip


def _input_ended() -> bool:
    ready, _, _ = select.select([0], [], [], 0)
    return bool(ready)  # nothing is ever written to it: it can be read when it has ended


def main(request: Path) -> int:
    """What torchrun starts, once for each process of the group."""
    given: dict[str, Any] = json.loads(request.read_text(encoding="utf-8"))
    terms = given["terms"]
    terms |= {"store": Path(terms["store"]), "data": terms["data"] and Path(terms["data"])}
    cell = Cell(**given["cell"])
    with joined(request.with_name("group"), cell.settings.runtime.device) as group:
        try:
            record = train(cell, CellTerms(**{**terms, "keep": frozenset(terms["keep"])}), _input_ended, group)
        except StoppedError:
            return 0
        except StorageError as error:
            print(error, file=sys.stderr)
            return 1
    return 1 if record and record["status"] == "failed" else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
