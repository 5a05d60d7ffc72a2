"""Arrays made once and kept by what they were made from: tokenised text, trained vocabularies."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from posenc.errors import DataError, StorageError
from posenc.store import digest, write_atomically

Arrays = dict[str, NDArray[np.generic]]


def folder() -> Path:
    """POSENC_CACHE, else `posenc` in the user's cache folder."""
    given = os.environ.get("POSENC_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "posenc"


def cached(kind: str, made_from: object, make: Callable[[], Arrays]) -> Arrays:
    """What `make` returns, made by the first process that asks for it and read by all others.

    Args:
        kind: its part of the file's name. made_from: all that it depends on, as JSON has it.

    Raises:
        DataError: a file in the cache is damaged. StorageError: it cannot be written.
    """
    from filelock import FileLock

    path = folder() / f"{kind}-{digest(made_from)[:32]}.npz"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                buffer = io.BytesIO()
                np.savez(buffer, **dict(make()))  # type: ignore[arg-type]  # its keywords are arrays too
                write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise StorageError(path, error) from None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, BadZipFile, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it, and it is made again") from None


class Ragged:
    """Rows of unequal length in two arrays: all values (N,), and where each row begins and the last ends (rows+1,)."""

    def __init__(self, values: NDArray[np.generic], offsets: NDArray[np.generic]) -> None:
        self.values, self.offsets = values, offsets.astype(np.int64)

    @classmethod
    def of(cls, rows: list[list[int]]) -> Ragged:
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(lengths.sum()))
        return cls(flat, np.concatenate(([0], np.cumsum(lengths))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[np.generic]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)
