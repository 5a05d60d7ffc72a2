"""Files written whole or not at all, and what content is known by."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from posenc.common.errors import StorageError

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""As mkstemp names them, behind the name that they are to have."""
_UMASK = os.umask(0)  # can only be read by setting it: done once, while nothing else runs yet
os.umask(_UMASK)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all: a reader sees the old content or the new, never a part.

    Args:
        content: or what writes it, a part at a time, to a file that it may seek in.

    Raises:
        StorageError: the disk is full or takes no writes; the old content is still there.
    """
    raw = content.encode() if isinstance(content, str) else content
    try:
        _replace(path, raw if callable(raw) else lambda file: file.write(raw))
    except OSError as error:
        raise StorageError(path, error) from None


def sweep(folder: Path) -> None:
    """Remove the files of `write_atomically` in a folder whose writers are dead: a kill leaves them half-written.

    A writer holds a lock of the system's on its file, which ends with its process, however that ends.
    """
    for path in folder.glob(".*.*"):
        if not is_temporary(path) or not path.is_file():
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue  # its writer has just renamed it
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            continue  # its writer lives, or nothing may be removed here
        finally:
            os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether a file is one that `write_atomically` has not yet given its name."""
    return bool(_TEMPORARY.fullmatch(path.name))


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _locked_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_UMASK)  # mkstemp's own mode would hide results from everyone else
            os.replace(temporary, path)  # while the lock is held: until then the file is another's to sweep
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)


def _locked_beside(path: Path) -> tuple[int, str]:
    """A new file in the same folder, held by this process."""
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with suppress(OSError):  # a file system without locks: nothing can be swept there either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # swept between the two calls
