"""Errors that a user can do something about.

Each says what was given, what is allowed, the nearest name where there is one, and where it was
written (file and key). The command line prints them in a line or two and exits with status 2.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

_NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


class PosencError(Exception):
    """Base of every error that bad input, missing data or an impossible request can cause."""

    exit_status = 2


class UnknownNameError(PosencError):
    """A name that nothing is registered under."""

    def __init__(self, kind: str, given: str, known: Iterable[str], where: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
        hint = f" did you mean {near[0]!r}?" if near else ""
        place = f" ({where})" if where else ""
        super().__init__(f"unknown {kind} {given!r}{place}:{hint} known: {', '.join(names) or 'none'}")
        self.given = given


class ConfigError(PosencError):
    """A wrong key, type or value in a TOML file, an option or a `--set`."""


class DataError(PosencError):
    """Data that is missing, damaged or not in its official layout."""


class MissingDataError(DataError):
    """Data that is not there at all, where it was looked for and on the hub."""


class PluginError(PosencError):
    """Another package's encoding that cannot be imported, or whose name is taken."""


class FaultyPluginError(PluginError):
    """An encoding whose own code fails where it is made or asked: its cells fail, and the others run."""


class NotPossibleError(PosencError):
    """A combination that has no meaning, or is not built: never run, always said why."""


class StoreError(PosencError):
    """A results folder, a record or a checkpoint that cannot be used as it is."""


class ClusterError(PosencError):
    """A cluster that lost what cells ran on: the run stops, and they stay unfinished."""

    exit_status = 1


class StorageError(StoreError):
    """A disk that takes no more: what was being written is as it was before, and the run stops.

    Exit status 2 where nothing may be written there at all, as another folder must be named; else 1.
    """

    exit_status = 1

    def __init__(self, path: object, error: OSError) -> None:
        what = error.strerror or str(error)
        self.exit_status = 2 if error.errno in _NOT_ALLOWED else 1
        super().__init__(f"{path} cannot be written ({what}): when it can be again, the same command goes on")
        self.given = (path, error)

    def __reduce__(self) -> tuple[object, ...]:  # an error that takes two arguments must say so to be sent
        return StorageError, self.given
