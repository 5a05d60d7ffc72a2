"""Results on disk: one folder a suite, one folder a cell, one record a cell, written whole or not at all.

    results/<suite>/
      suite.json            the manifest: what was asked for last, and by which command
      driver.lock, .json    held by the driver that runs now, and who it is
      mlflow.db             (beside it, in results/) the mirror; never read back
      cells/<id>/
        .lock               held by the process that writes here
        curve.jsonl         appended while the cell trains, a row an event
        record.json         written last and atomically: that it exists means the cell ended
        checkpoint.pt       where an unfinished cell goes on; gone when it is done
        model.pt            the trained weights, as long as another cell waits for them (or --keep)
      report/               made from the above

Records are the truth; everything else can be made again from them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.errors import StorageError, StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA = 1
STATUSES = ("done", "failed", "not_possible", "timed_out")

Record = dict[str, Any]

_UMASK = os.umask(0)  # can only be read by setting it: done once, while nothing else runs yet
os.umask(_UMASK)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a reader sees the old content or the new, never a part.

    Raises:
        StorageError: the disk is full or takes no writes; the old content is still there.
    """
    try:
        _replace(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise StorageError(path, error) from None


def _replace(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK)  # mkstemp's own mode would hide results from everyone else
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def _digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) of named arrays: of their content, since an archive of them holds the time as well."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(canonical([name, str(array.dtype), list(array.shape)]).encode() + array.tobytes())
    return found.hexdigest()


class Store:
    """The results of one suite, in one folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def cell_folder(self, cell_id: str) -> Path:
        return self.folder / "cells" / cell_id

    @property
    def manifest_path(self) -> Path:
        return self.folder / "suite.json"

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_atomically(self.manifest_path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")

    def read_manifest(self) -> dict[str, Any]:
        try:
            manifest: dict[str, Any] = json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"no results in {self.folder}: run the suite first, or name its folder with --results"
            ) from None
        except ValueError as error:
            raise StoreError(f"{self.manifest_path} is damaged ({error}): run the suite again to renew it") from None
        return manifest

    def weights_path(self, cell_id: str) -> Path:
        """Where a cell's trained weights lie while they are kept."""
        return self.cell_folder(cell_id) / "model.pt"

    @contextmanager
    def cell_locked(self, cell_id: str, stopped: Callable[[], bool]) -> Iterator[bool]:
        """Be the one process that writes a cell's files; gives False where it was stopped while it waited.

        A worker whose driver was killed goes on to the end of its step: until then its successor waits here.
        """
        from filelock import FileLock, Timeout

        path = self.cell_folder(cell_id) / ".lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise StorageError(path, error) from None
        lock, held = FileLock(path), False
        while not held and not stopped():
            try:
                lock.acquire(timeout=0.5, poll_interval=0.05)
                held = True
            except Timeout:
                continue
        try:
            if held:
                for leftover in path.parent.glob(".*.*"):  # half-written by a process that was killed
                    leftover.unlink()
            yield held
        finally:
            lock.release()

    def holder(self) -> dict[str, Any] | None:
        """Who runs the suite now: process, host and command; None where nobody does."""
        from filelock import FileLock, Timeout

        path = self.folder / "driver.lock"
        if not path.exists():
            return None
        try:
            with FileLock(path, timeout=0):
                return None
        except Timeout:
            return self._said()

    def _said(self) -> dict[str, Any]:
        """What the holder of the lock says of itself; it may hold it and not have said so yet."""
        for _ in range(10):
            try:
                who: dict[str, Any] = json.loads((self.folder / "driver.json").read_text(encoding="utf-8"))
                return who
            except (OSError, ValueError):
                time.sleep(0.05)
        return {}

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold the suite for one driver. The lock is the system's own: it ends with the process, however that ends.

        Raises:
            StoreError: another driver holds it: which, and by which command.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"results cannot be written to {self.folder}: {error.strerror}") from None
        holder = self.folder / "driver.json"
        try:
            with FileLock(self.folder / "driver.lock", timeout=0):
                who = {"process": os.getpid(), "host": platform.node(), "command": command}
                write_atomically(holder, json.dumps(who) + "\n")
                yield
        except Timeout:
            who = self._said()
            raise StoreError(
                f"{self.folder} is in use by process {who.get('process', '?')} on {who.get('host', '?')}"
                f" ({who.get('command', 'another run')}): wait for it or stop it"
            ) from None

    def set_aside(self, cell_id: str) -> Path:
        """Rename a record that cannot be used, so that the cell runs again and nothing is lost."""
        path = self.cell_folder(cell_id) / "record.json"
        aside = path.with_name("record.unusable.json")
        os.replace(path, aside)
        return aside

    def write_items(self, cell_id: str, items: Mapping[str, NDArray[Any]]) -> str | None:
        """Write the arrays behind a cell's test scores; their digest for its record. None where there are none."""
        if not items:
            return None
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(items))  # type: ignore[arg-type]  # its keywords are arrays too
        write_atomically(self.cell_folder(cell_id) / "items.npz", buffer.getvalue())
        return _digest_of_arrays(items)

    def read_items(self, record: Record) -> dict[str, NDArray[Any]]:
        """The arrays that `write_items` wrote, held to the record; none where it has none.

        Raises:
            StoreError: they are missing, damaged, or not those of the record.
        """
        if not record.get("items"):
            return {}
        import numpy as np

        path, advice = self.cell_folder(record["id"]) / "items.npz", "`--rerun all` makes it again"
        try:
            with np.load(path, allow_pickle=False) as stored:
                items = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise StoreError(f"{path} cannot be read ({error}): {advice}") from None
        if _digest_of_arrays(items) != record["items"]:
            raise StoreError(f"{path} is not what the record beside it tells of: {advice}")
        return items

    def write_record(self, record: Record) -> None:
        """Seal a record with its own digest and write it. `record["id"]` names the cell."""
        if record["status"] not in STATUSES:
            raise StoreError(f"status {record['status']!r} of record {record['id']}: allowed: {', '.join(STATUSES)}")
        body = {key: value for key, value in record.items() if key != "digest"}
        sealed = {**body, "digest": digest(body)}
        write_atomically(self.cell_folder(record["id"]) / "record.json", json.dumps(sealed, indent=1) + "\n")

    def read_record(self, cell_id: str) -> Record | None:
        """The record of a cell, or None if it has not ended.

        Raises:
            StoreError: the record is cut off, was edited by hand, or has another schema.
        """
        path = self.cell_folder(cell_id) / "record.json"
        try:
            record: Record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(
                f"{path} is damaged ({error}): the next run sets it aside and runs the cell again"
            ) from None
        if record.get("schema") != SCHEMA:
            raise StoreError(f"{path} has schema {record.get('schema')!r}; this version reads {SCHEMA}")
        body = {key: value for key, value in record.items() if key != "digest"}
        if record.get("digest") != digest(body):
            raise StoreError(
                f"{path} was changed after it was written: the next run sets it aside and runs the cell again"
            )
        return record

    def remove(self, cell_id: str, *, restart: bool = True) -> None:
        """Forget how a cell ended, so that it runs again: anew, or (`restart` False) on from its checkpoint."""
        for name in (
            ("record.json", "items.npz", "curve.jsonl", "checkpoint.pt", "model.pt") if restart else ("record.json",)
        ):
            (self.cell_folder(cell_id) / name).unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """The records of the manifest's cells that have ended, in the manifest's order."""
        for cell in self.read_manifest()["cells"]:
            record = self.read_record(cell["id"])
            if record is not None:
                yield record

    def curve(self, cell_id: str) -> list[dict[str, Any]]:
        """The rows that a cell has written so far; a last line still being written is left out."""
        try:
            text = (self.cell_folder(cell_id) / "curve.jsonl").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.split("\n")[:-1] if line]
