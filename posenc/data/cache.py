"""What is made once and kept by what it was made from: tokenised text, the rows of a corpus, trained vocabularies.

An entry is a folder: its arrays, each in a file of its own that is mapped into memory and never read whole, and a
manifest that says what they are. It is written beside its place and moved there when all of it is on the disk, so it
is there whole or not at all. The manifest's digests are held against the files when a process first reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from posenc.common.errors import ConfigError, DataError, StorageError
from posenc.common.files import digest, write_atomically

Arrays = Mapping[str, NDArray[np.generic]]

_sound: set[tuple[str, int, int, int]] = set()  # the files that this process has held against their digests

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK = 1 << 20  # bytes that are read at once
SETTLED = 2 * 10**9  # nanoseconds; a file changed more recently may change again within one tick of its file system


def folder() -> Path:
    """POSENC_CACHE, else `posenc` in the user's cache folder.

    Raises:
        ConfigError: neither is given, and the user has no home folder.
    """
    if given := os.environ.get("POSENC_CACHE"):
        return Path(given)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "posenc"
    try:
        return Path.home() / ".cache" / "posenc"
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        raise ConfigError("this user has no home folder: name a folder for the cache in POSENC_CACHE") from None


class Stream:
    """An array that is being written, one part after another."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.dtype, self.bytes, self.sum = np.dtype(dtype), 0, hashlib.sha256()
        self._file = path.open("xb")

    def append(self, values: bytes | NDArray[np.generic] | list[int]) -> None:
        raw = values if isinstance(values, bytes) else np.asarray(values).astype(self.dtype).tobytes()
        self._file.write(raw)
        self.sum.update(raw)
        self.bytes += len(raw)

    def close(self) -> None:
        if not self._file.closed:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


class Writer:
    """An entry that is being made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.streams: dict[str, Stream] = {}

    def stream(self, name: str, dtype: DTypeLike) -> Stream:
        """A new array of one dimension."""
        self.streams[name] = Stream(self.path / name, dtype)
        return self.streams[name]

    def read(self, name: str) -> Any:
        """The file of an array that is whole, opened to read its bytes again."""
        self.streams[name].close()
        return (self.path / name).open("rb")

    def finish(self) -> dict[str, Any]:
        """What the manifest says of the arrays."""
        for stream in self.streams.values():
            stream.close()
        return {
            name: {"dtype": stream.dtype.str, "bytes": stream.bytes, "sha256": stream.sum.hexdigest()}
            for name, stream in self.streams.items()
        }

    def abandon(self) -> None:
        for stream in self.streams.values():
            with suppress(OSError):  # a full disk fails once more on what is left to write
                stream._file.close()
        shutil.rmtree(self.path, ignore_errors=True)


class Entry:
    """Arrays of the cache by name, mapped when first asked for, and the facts that stand beside them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            said = manifest.pop("digest")
            if said != digest(manifest) or manifest["format"] != FORMAT:
                raise ValueError("not as it was written")
        except OSError as error:
            raise self.damaged(f"its manifest cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.damaged(f"its manifest: {str(error).splitlines()[0] if str(error) else 'not whole'}") from None
        self.facts: dict[str, Any] = manifest["facts"]
        self.arrays: dict[str, Any] = manifest["arrays"]
        self._mapped: dict[str, NDArray[Any]] = {}

    def damaged(self, what: str) -> DataError:
        return DataError(f"{self.path} is damaged ({what}): delete it, and it is made again")

    def length(self, name: str) -> int:
        """How many values an array has, by the manifest alone."""
        said = self.arrays[name]
        return int(said["bytes"]) // np.dtype(said["dtype"]).itemsize

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An array, to be read only.

        Raises:
            DataError: its file is not as it was written.
        """
        if name not in self._mapped:
            said, path = self.arrays[name], self.path / name
            self._check(path, said)
            dtype = np.dtype(said["dtype"])
            self._mapped[name] = np.memmap(path, dtype, "r") if said["bytes"] else np.empty(0, dtype)
        return self._mapped[name]

    def _check(self, path: Path, said: Mapping[str, Any]) -> None:
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_size != said["bytes"]:
                    raise self.damaged(f"{path.name} has {stat.st_size:,} bytes, and had {said['bytes']:,}")
                known = (str(path), stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
                if known not in _sound:
                    if _summed(file) != said["sha256"]:
                        raise self.damaged(f"{path.name} is not as it was written")
                    _sound.add(known)
        except OSError as error:
            raise self.damaged(f"{path.name} cannot be read: {error.strerror}") from None


def _summed(file: Any) -> str:
    found = hashlib.sha256()
    while block := file.read(BLOCK):
        found.update(block)
    return found.hexdigest()


class NotMadeError(Exception):
    """Something that would take time to make is not in the cache yet."""


_frozen: ContextVar[bool] = ContextVar("frozen", default=False)


@contextmanager
def nothing_made() -> Iterator[None]:
    """Within this, what is not in the cache yet raises NotMadeError where it would be made."""
    token = _frozen.set(True)
    try:
        yield
    finally:
        _frozen.reset(token)


def built(kind: str, made_from: object, build: Callable[[Writer], Mapping[str, object]]) -> Entry:
    """The entry that `build` writes, made by the first process that asks for it and read by all others.

    Args:
        kind: its part of the folder's name. made_from: all that it depends on, as JSON has it.
        build: writes the arrays, and returns the facts that are kept beside them.

    Raises:
        DataError: what is in the cache is damaged. StorageError: it cannot be written; nothing of it is left.
        NotMadeError: it is not there, within `nothing_made`.
    """
    path = folder() / f"{kind}-{digest([FORMAT, made_from])[:32]}"
    try:
        if not path.exists():
            if _frozen.get():
                raise NotMadeError(path)
            _build(path, build)
    except OSError as error:
        raise StorageError(path, error) from None
    return Entry(path)


def _build(path: Path, build: Callable[[Writer], Mapping[str, object]]) -> None:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.exists():  # another process made it meanwhile
            return
        for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed: none is at work on it now
            shutil.rmtree(left, ignore_errors=True)
        writer = Writer(path.with_name(f".{path.name}.{os.getpid()}"))
        writer.path.mkdir()
        try:
            facts = build(writer)
            manifest = {"format": FORMAT, "facts": dict(facts), "arrays": writer.finish()}
            write_atomically(writer.path / MANIFEST, json.dumps({**manifest, "digest": digest(manifest)}))
            writer.path.rename(path)
        except BaseException:
            writer.abandon()
            raise


def cached(kind: str, made_from: object, make: Callable[[], Arrays]) -> dict[str, NDArray[Any]]:
    """As `built`, of whole arrays of one dimension that `make` returns."""

    def build(writer: Writer) -> dict[str, object]:
        for name, array in make().items():
            writer.stream(name, array.dtype).append(array)
        return {}

    entry = built(kind, made_from, build)
    return {name: entry[name] for name in entry.arrays}


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, reckoned once and remembered for as long as the file is the same.

    It is the same where its path, device, inode, size, time of change and time of the inode's change are: the last is
    the system's own, and cannot be set back, as tools do with the other when they copy. What changed within the last
    two seconds is not remembered, since a second change within one tick of the file system's clock would not show.

    Raises:
        DataError: it cannot be read, or changes while it is. StorageError: the cache cannot be written.
    """
    path = path.absolute()
    note = folder() / "files" / f"{digest(str(path))[:32]}.json"
    try:
        before = _state(path)
        try:
            kept = json.loads(note.read_bytes())
            if kept["state"] == before and len(kept["sha256"]) == 64:
                return str(kept["sha256"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # never remembered, or damaged: a wrong digest would only have the file read again
        with path.open("rb") as file:
            found = _summed(file)
        after = _state(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if before != after:
        raise DataError(f"{path} changes while it is read: wait until it is whole")
    if time.time_ns() - max(before[-2:]) > SETTLED:
        write_atomically(note, json.dumps({"path": str(path), "state": before, "sha256": found}))
    return found


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


class Ragged:
    """Rows of unequal length in two arrays: all values (N,), and where each row begins and the last ends (rows+1,)."""

    def __init__(self, values: NDArray[np.generic], offsets: NDArray[np.generic]) -> None:
        self.values, self.offsets = values, offsets.astype(np.int64, copy=False)

    @classmethod
    def of(cls, rows: list[list[int]]) -> Ragged:
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(lengths.sum()))
        return cls(flat, np.concatenate(([0], np.cumsum(lengths))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.generic]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)
