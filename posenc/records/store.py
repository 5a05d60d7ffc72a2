"""Results on disk: one folder a suite, one folder a cell, one record a cell, written whole or not at all.

    results/<suite>/
      suite.json            the manifest: what was planned of the suite, and by which command last
      driver.lock, .json    held by the driver that runs now, and who it is
      mlflow.db             (beside it, in results/) the mirror; never read back
      cells/<id>/
        .lock               held by the process that writes here
        curve.jsonl         appended while the cell trains, a row an event
        record.json         written last and atomically: that it exists means the cell ended
        checkpoint.pt       where an unfinished cell goes on, and the one before it; gone when it is done
        model.pt            the trained weights, as long as another cell waits for them (or --keep)
        model.json, tokeniser.json   with --keep: all else that makes the model again; model.md, its card
      report/               made from the above

Records are the truth; everything else can be made again from them.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.common.errors import StorageError, StoreError
from posenc.common.files import canonical, digest, sweep, write_atomically
from posenc.records.record import SCHEMA, STATUSES, ManifestShape, Record, RecordShape, misfit

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT = "model.json"
"""What tells of a model that its owner asked to keep (posenc.training.kept)."""
LOOK_SECONDS = 0.5
"""How long a driver waits for the lock: who only looks whether it is held lets go of it at once."""
_SETS_ASIDE = "the next run sets it aside and runs the cell again"


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: it is no JSON, or another value.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"it must be a table, not {str(found)[:40]}")
    return found


def _seal(body: Mapping[str, Any]) -> str | None:
    """The digest of a record or manifest without its own; None where JSON cannot have been written from it (NaN)."""
    try:
        return digest({key: value for key, value in body.items() if key != "digest"})
    except (ValueError, RecursionError):
        return None


def _brief(error: BaseException) -> str:
    """An error in a few words of one line, without the path, which is said already."""
    said = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return said.splitlines()[0][:200]


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

    @property
    def manifest_paths(self) -> list[Path]:
        """The manifests that are read: of several folders read as one, all of theirs."""
        return [self.manifest_path]

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Seal the manifest with its own digest and write it."""
        sealed = {**manifest, "digest": digest({key: value for key, value in manifest.items() if key != "digest"})}
        write_atomically(self.manifest_path, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")

    def read_manifest(self) -> dict[str, Any]:
        """What was planned of the suite.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        path, advice = self.manifest_path, "run the suite again to renew it"
        try:
            manifest = _read_object(path)
            sealed = "digest" not in manifest or manifest["digest"] == _seal(manifest)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(
                f"no results in {self.folder}: run the suite first, or name its folder with --results"
            ) from None
        except (ValueError, RecursionError, OSError) as error:
            raise StoreError(f"{path} is damaged ({_brief(error)}): {advice}") from None
        if manifest.get("schema") != SCHEMA:
            raise StoreError(f"{path} has schema {manifest.get('schema')!r}; this version reads {SCHEMA}: {advice}")
        if not sealed:
            raise StoreError(f"{path} was changed after it was written: {advice}")
        wrong = misfit(manifest, ManifestShape)
        odd = [cell["id"] for cell in manifest["cells"] if not re.fullmatch(r"\w+", cell["id"])] if not wrong else []
        if wrong or odd:
            raise StoreError(f"{path} is no manifest ({wrong or f'no id of a cell: {odd[0]!r}'}): {advice}")
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
                sweep(path.parent)
            yield held
        finally:
            lock.release()

    def holder(self) -> dict[str, Any] | None:
        """Who runs the suite now: process, host and command; None where nobody does. Nothing is opened for writing.

        Raises:
            StoreError: the lock cannot be read.
        """
        path = self.folder / "driver.lock"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{path} cannot be read ({error.strerror})") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # a driver holds it alone
        except (BlockingIOError, PermissionError):  # some file systems say it in the second way
            return self._said()
        except OSError as error:
            raise StoreError(f"{path} cannot be asked for its holder ({error.strerror})") from None
        finally:
            os.close(descriptor)
        return None

    def _said(self) -> dict[str, Any]:
        """What the holder of the lock says of itself; it may hold it and not have said so yet."""
        for _ in range(10):
            try:
                return _read_object(self.folder / "driver.json")
            except (OSError, ValueError, RecursionError):
                time.sleep(0.05)
        return {}

    @contextmanager
    def locked(self, command: str) -> Iterator[None]:
        """Hold the suite for one driver. The lock is the system's own: it ends with the process, however that ends.

        Raises:
            StoreError: another driver holds it: which, and by which command; or nothing can be written here.
        """
        from filelock import FileLock, Timeout

        who = {"process": os.getpid(), "host": platform.node(), "command": command}
        lock = FileLock(self.folder / "driver.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=LOOK_SECONDS, poll_interval=0.05)
        except Timeout:
            who = self._said()
            raise StoreError(
                f"{self.folder} is in use by process {who.get('process', '?')} on {who.get('host', '?')}"
                f" ({who.get('command', 'another run')}): wait for it or stop it"
            ) from None
        except OSError as error:
            raise StoreError(f"results cannot be written to {self.folder}: {error.strerror or error}") from None
        try:
            write_atomically(self.folder / "driver.json", json.dumps(who) + "\n")
            self._sweep()
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Remove what processes that were killed have left half-written, of cells that have ended and reports too."""
        report = self.folder / "report"
        for folder in (self.folder, *self.folder.glob("cells/*/"), report, *report.glob("**/")):
            sweep(folder)

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
        except Exception as error:  # numpy, zipfile and zlib have a dozen kinds for what damage makes of an archive
            raise StoreError(f"{path} cannot be read ({_brief(error)}): {advice}") from None
        if _digest_of_arrays(items) != record["items"]:
            raise StoreError(f"{path} is not what the record beside it tells of: {advice}")
        return items

    def write_record(self, record: Record) -> None:
        """Seal a record with its own digest and write it. `record["id"]` names the cell."""
        if record["status"] not in STATUSES:
            raise StoreError(f"status {record['status']!r} of record {record['id']}: allowed: {', '.join(STATUSES)}")
        sealed = {**record, "digest": digest({key: value for key, value in record.items() if key != "digest"})}
        write_atomically(self.cell_folder(record["id"]) / "record.json", json.dumps(sealed, indent=1) + "\n")

    def read_record(self, cell_id: str) -> Record | None:
        """The record of a cell, or None if it has not ended.

        Raises:
            StoreError: the record is cut off, was edited by hand, or has another schema.
        """
        path = self.cell_folder(cell_id) / "record.json"
        try:
            record = _read_object(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError, OSError) as error:
            raise StoreError(f"{path} is damaged ({_brief(error)}): {_SETS_ASIDE}") from None
        if record.get("schema") != SCHEMA:
            raise StoreError(f"{path} has schema {record.get('schema')!r}; this version reads {SCHEMA}")
        if not record.get("digest") or record["digest"] != _seal(record):
            raise StoreError(f"{path} was changed after it was written: {_SETS_ASIDE}")
        wrong = misfit(record, RecordShape)
        if wrong is None and record["status"] not in STATUSES:
            wrong = f"status must be one of {', '.join(STATUSES)}, not {record['status']!r}"
        if wrong is None and record["id"] != cell_id:
            wrong = f"it is of cell {record['id']}"
        if wrong:
            raise StoreError(f"{path} is no record ({wrong}): {_SETS_ASIDE}")
        return record

    def remove(self, cell_id: str, *, restart: bool = True) -> None:
        """Forget how a cell ended, so that it runs again: anew, or (`restart` False) on from its checkpoint."""
        made = (
            "items.npz",
            "curve.jsonl",
            "checkpoint.pt",
            "checkpoint.previous.pt",
            KEPT,
            "tokeniser.json",
            "model.pt",
            "model.md",
        )
        for name in ("record.json", *(made if restart else ())):
            (self.cell_folder(cell_id) / name).unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """The records of the manifest's cells that have ended, in the manifest's order."""
        for cell in self.read_manifest()["cells"]:
            record = self.read_record(cell["id"])
            if record is not None:
                yield record

    def curve(self, cell_id: str) -> list[dict[str, Any]]:
        """The rows that a cell has written so far; a last line still being written is left out.

        Raises:
            StoreError: a line is damaged.
        """
        path = self.cell_folder(cell_id) / "curve.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (ValueError, OSError) as error:
            raise StoreError(f"{path} is damaged ({_brief(error)})") from None
        rows = []
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict) or misfit(row.get("step"), int) or not 0 <= row["step"] < 2**63:
                raise StoreError(f"{path} is damaged (line {number})")
            rows.append(row)
        return rows

    def has_curve(self, cell_id: str) -> bool:
        """Whether a cell has begun to write its curve."""
        try:
            return (self.cell_folder(cell_id) / "curve.jsonl").stat().st_size > 0
        except OSError:
            return False
