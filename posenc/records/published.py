"""Published results: a report, and beside it an archive of the records it is made from."""

from __future__ import annotations

import tarfile
from pathlib import Path

from posenc.common.errors import StoreError
from posenc.records.store import Store

ARCHIVE = "records.tar.xz"


def is_published(folder: Path) -> bool:
    """Whether a folder has its records in an archive alone."""
    return (folder / ARCHIVE).is_file() and not (folder / "suite.json").is_file()


def unpacked(folder: Path, place: Path) -> Store:
    """The results in the archive of a published folder, laid out in another folder.

    Raises:
        StoreError: the archive is damaged, or holds something else.
    """
    archive = folder / ARCHIVE
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(place, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StoreError(f"{archive} is damaged: {error}") from None
    found = sorted(path.parent for path in place.glob("*/suite.json"))
    if len(found) != 1:
        raise StoreError(f"{archive} holds {len(found)} folders with a suite.json: one must be in it")
    return Store(found[0])
