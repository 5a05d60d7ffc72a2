"""What can be read of a suite's results; what cannot is named, and costs itself alone.

Whatever acts on a terminal, or turns the order of writing, is made harmless here: for all that is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posenc.common.errors import StoreError
from posenc.common.text import harmless
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.report.facts import NOT_READABLE

_LINES = {"name", "label", "title", "where", "row", "reason", "task"}
"""Texts of one line: a break or a tab in one would break a label of a figure."""


def manifest_of(store: Store) -> dict[str, Any]:
    """What was asked for.

    Raises:
        StoreError: there are no results, or the manifest is damaged.
    """
    return dict(cleaned(store.read_manifest()))


def records_of(store: Store, manifest: Mapping[str, Any], unread: list[str]) -> list[Record]:
    """The records of the cells that have ended, in the manifest's order; for a damaged one, a stand-in that says so."""
    found = []
    for cell in manifest["cells"]:
        try:
            record = store.read_record(cell["id"])
        except StoreError as error:
            unread.append(str(error))
            record = {**cell, "status": NOT_READABLE, "reason": "its record is damaged"}
        if record is not None:
            found.append(dict(cleaned(record)))
    return found


def cleaned(value: Any, key: str = "") -> Any:
    """A value as JSON has it, with every text in it harmless, and names in one line."""
    if isinstance(value, str):
        text = harmless(value)
        return text.replace("\n", " ").replace("\t", " ") if key in _LINES else text
    if isinstance(value, Mapping):
        return {cleaned(name, "name"): cleaned(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [cleaned(inner, key) for inner in value]
    return value
