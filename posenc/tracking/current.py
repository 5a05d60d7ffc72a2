"""Whether MLflow has all of a suite already, by a note beside the records: then a finished suite need not load MLflow.

What somebody deletes in MLflow itself is not seen here: `posenc sync` makes the mirror again in any case.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from posenc.common.errors import StoreError
from posenc.common.files import digest, write_atomically
from posenc.records.store import Store
from posenc.tracking.place import database_of
from posenc.tracking.told import FORM

NOTE = "mirrored"


def is_current(store: Store, uri: str, report: Path) -> bool:
    """Whether manifest, records and report are those that were mirrored there last, into the database that is there."""
    try:  # whatever stands in the way, the mirror finds it, and says so
        return (store.folder / NOTE).read_text(encoding="utf-8") == _state(store, uri, report)
    except (OSError, ValueError, StoreError):
        return False


def note(store: Store, uri: str, report: Path) -> None:
    """All that there is now has been mirrored."""
    write_atomically(store.folder / NOTE, _state(store, uri, report))


def _state(store: Store, uri: str, report: Path) -> str:
    database = database_of(uri)
    found = os.stat(database) if database else None
    known = (found.st_dev, found.st_ino) if found else None
    records = [store.cell_folder(cell["id"]) / "record.json" for cell in store.read_manifest()["cells"]]
    files = [store.manifest_path, *records, *(sorted(report.rglob("*")) if report.is_dir() else [])]
    hashes = [sha256(path.read_bytes()).hexdigest() if path.is_file() else None for path in files]
    return digest([FORM, uri, known, list(zip(map(str, files), hashes, strict=True))])
