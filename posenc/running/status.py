"""How far a suite has come, by its records: of what a run needs, this loads the least."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posenc.common.errors import StoreError
from posenc.config.places import available
from posenc.plan.plugin_code import code_of
from posenc.plan.selection import find_suite
from posenc.records import provenance
from posenc.records.record import STATUSES, Record, is_failure
from posenc.records.store import Store


def store_for(suite: str, results: str | Path) -> Store:
    """The results of a suite, by its name, its TOML's path, a task's name, or that of their folder.

    Raises:
        StoreError: there is no such folder, and its name is near to one that there is.
    """
    names = [*available("suites"), *available("tasks")]
    known = suite in names or suite.endswith(".toml")
    folder = Path(results) / (find_suite(suite).name if known else suite)
    if not known and not folder.is_dir():
        there = [path.name for path in Path(results).glob("*") if path.is_dir()]
        if near := difflib.get_close_matches(suite, [*there, *names], n=1):
            raise StoreError(f"no results in {folder}: did you mean {near[0]!r}?")
    return Store(folder)


def is_stale(record: Record) -> bool:
    """Whether other code made a record: another commit, changes that no commit holds, then or now, or another plug-in.

    A plug-in is another one where any of its package's files has changed, at whatever version.
    """
    now = provenance.code()
    plugins = code_of(record["config"])
    return bool(record.get("code") != now or now["dirty"] or record.get("plugins", {}) != plugins)


COUNTED = {
    **STATUSES,
    **{word: word for word in ("running", "started", "left", "unusable")},
    "other_code": "other code",
}
"""What is counted, in the order in which it is told, and the words for it."""


@dataclass
class Status:
    """Counts of a suite's cells, in which folder, who runs it now, and what is wrong.

    `started` counts cells with a curve and no record that no driver runs now; `other_code` counts records made by
    another commit, with uncommitted changes, or by a plug-in whose files have changed since.
    """

    folder: Path
    cells: int
    holder: dict[str, Any] | None
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Record] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "folder": str(self.folder),
            "cells": self.cells,
            "counts": {key: self.counts[key] for key in COUNTED},
            "run_by": self.holder,
            "failed": [{key: record.get(key) for key in ("id", "name", "status", "reason")} for record in self.failed],
            "unusable": self.unusable,
        }


def status(suite: str, results: str | Path = "results") -> Status:
    """How far the last run of a suite has come.

    Raises:
        StoreError: it never ran here.
    """
    store = store_for(suite, results)
    cells = store.read_manifest()["cells"]
    found = Status(store.folder, len(cells), store.holder())
    for cell in cells:
        try:
            record = store.read_record(cell["id"])
        except StoreError as error:
            found.unusable.append(str(error))
            found.counts["unusable"] += 1
            continue
        if record is None:
            begun = store.has_curve(cell["id"])
            found.counts["left" if not begun else "running" if found.holder is not None else "started"] += 1
            continue
        found.counts[record["status"]] += 1
        found.counts["other_code"] += is_stale(record)
        if is_failure(record):
            found.failed.append(record)
    return found
