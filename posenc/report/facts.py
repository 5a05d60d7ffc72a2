"""What a report says of the run itself: the data, the cells without scores, how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posenc.records.record import NOT_RUN_YET, STATUSES, Record, dig
from posenc.report import words

NOT_READABLE = "not readable"
"""The status of a cell whose record is damaged: in a report alone, never in a record."""
ENDED = {**STATUSES, NOT_READABLE: NOT_READABLE}
"""How a cell may have ended, and the words for it."""


@dataclass(frozen=True)
class Dataset:
    task: str
    scale: str
    name: str
    size: str
    warnings: tuple[str, ...]
    digest: str
    note: str
    cells: int


def counts(manifest: Mapping[str, Any], records: Iterable[Record]) -> str:
    """`27 cells: 24 done, 2 not possible, 1 not run yet`."""
    statuses = [record["status"] for record in records]
    named = [(words_for, statuses.count(status)) for status, words_for in ENDED.items()]
    named.append((NOT_RUN_YET, len(manifest["cells"]) - len(statuses)))
    parts = ", ".join(f"{number} {name}" for name, number in named if number)
    return f"{words.plural(len(manifest['cells']), 'cell')}: {parts}" if parts else "no cells"


def datasets(manifest: Mapping[str, Any], records: Iterable[Record]) -> list[Dataset]:
    """What the cells read, said before any number; more than one data set for a task shows as more than one."""
    ended = {record["id"]: record for record in records}
    found: dict[tuple[Any, ...], list[Record]] = {}
    for cell in manifest["cells"]:
        record = ended.get(cell["id"], cell)
        config = record["config"]
        # By what was asked for: cells that did not get so far as to describe their data belong to it too. What a
        # token is (characters or words) makes no other data of the same rows.
        asked = config.get("data") or {}
        key = (config.get("task"), config.get("scale"), repr([asked.get(k) for k in ("source", "digest", "splits")]))
        found.setdefault(key, []).append(record)
    result = []
    for (task, scale, _), members in found.items():
        data: dict[str, Any] = next((record["data"] for record in members if record.get("data")), {})
        digests = [dig(record, ("data", "digest")) for record in members if record.get("data")]
        digest = words.listed(one for one in digests if one) or dig(members[0]["config"], ("data", "digest"))
        size, expected, warnings = data.get("bytes"), data.get("expected_bytes"), []
        if data.get("generated"):
            warnings.append("generated data")
        if expected and size is not None and size < expected:
            warnings.append(f"only {size:,} of {expected:,} bytes")
        for split, rows in (data.get("expected_rows") or {}).items():
            found_rows = (data.get("rows") or {}).get(split, 0)
            if found_rows < rows:
                warnings.append(f"only {found_rows:,} of {rows:,} rows of {split}")
        result.append(
            Dataset(
                task=str(task),
                scale=str(scale),
                name=str(data.get("name") or dig(members[0]["config"], ("data", "source")) or "unknown"),
                size=_size(data),
                warnings=tuple(warnings),
                digest=str(digest or ""),
                note=str(data.get("note") or ""),
                cells=len(members),
            )
        )
    return result


def _size(data: Mapping[str, Any]) -> str:
    if data.get("rows"):
        return "rows: " + ", ".join(f"{split} {rows:,}" for split, rows in data["rows"].items())
    if data.get("bytes") is not None:
        return f"{data['bytes']:,} bytes"
    return "rows made as they are needed" if data.get("generated") else "size not recorded"


def data_labels(found: Iterable[Dataset]) -> dict[Any, str]:
    """For every table's caption: the data's name, and what a reader must not miss about them."""
    labels: dict[Any, list[str]] = {}
    for data in found:
        labels.setdefault((data.task, data.scale), []).append(
            data.name + (f" ({'; '.join(data.warnings)})" if data.warnings else "")
        )
    return {key: words.listed(names) for key, names in labels.items()}
