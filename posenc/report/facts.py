"""What a report says of the run itself: the data, the cells without scores, how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posenc.report import words
from posenc.report.places import Key, group_title, key_of
from posenc.report.tables import Record, dig, ending, evaluated_lengths


@dataclass(frozen=True)
class Ending:
    """Cells that gave no scores for one and the same reason."""

    status: str
    cells: tuple[str, ...]
    reason: str
    last_line: str


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


def compared(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the suite sets side by side."""
    configs = [cell["config"] for cell in manifest["cells"]]
    lengths = sorted({length for config in configs for length in evaluated_lengths(config)})
    facts = [
        ("encodings", words.listed(config["encoding"]["name"] for config in configs)),
        ("baseline", str(manifest["suite"].get("baseline") or "none named")),
        ("named by the suite", str(manifest["suite"].get("claim") or "no comparison")),
        ("tasks", words.listed(config["task"] for config in configs)),
        ("scale", words.listed(config["scale"] for config in configs)),
        ("attention", words.listed(dig(config, ("backbone", "attention")) for config in configs)),
        ("trained at length", words.listed(sorted({config["length"] for config in configs}))),
        ("scored at length", words.listed(lengths)),
        ("seeds", words.listed(sorted({config["seed"] for config in configs}))),
    ]
    return [(name, value) for name, value in facts if value]


def counts(manifest: Mapping[str, Any], records: Iterable[Record]) -> str:
    """`27 cells: 24 done, 2 not possible, 1 not run yet`."""
    statuses = [record["status"] for record in records]
    named = [(words_for, statuses.count(status)) for status, words_for in _STATUS.items()]
    named.append(("not run yet", len(manifest["cells"]) - len(statuses)))
    parts = ", ".join(f"{number} {name}" for name, number in named if number)
    return f"{words.plural(len(manifest['cells']), 'cell')}: {parts}" if parts else "no cells"


_STATUS = {"done": "done", "failed": "failed", "timed_out": "timed out", "not_possible": "not possible"}


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
    return f"{data['bytes']:,} bytes" if data.get("bytes") is not None else "size not recorded"


def data_labels(found: Iterable[Dataset]) -> dict[Any, str]:
    """For every table's caption: the data's name, and what a reader must not miss about them."""
    labels: dict[Any, list[str]] = {}
    for data in found:
        labels.setdefault((data.task, data.scale), []).append(
            data.name + (f" ({'; '.join(data.warnings)})" if data.warnings else "")
        )
    return {key: words.listed(names) for key, names in labels.items()}


def endings(records: Iterable[Record]) -> list[Ending]:
    """The cells that gave no scores, together where status, reason and last line are the same."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record["status"] != "done":
            key = (record["status"], _reason(record), words.last_line(record.get("traceback")))
            found.setdefault(key, []).append(record["name"])
    order = ("failed", "timed_out", "not_possible")
    return [
        Ending(status.replace("_", " "), tuple(names), reason, line)
        for (status, reason, line), names in sorted(found.items(), key=lambda item: order.index(item[0][0]))
    ]


def _reason(record: Record) -> str:
    """The reason alone: the status stands before it."""
    _, _, reason = ending(record).partition(": ")
    return reason or "no reason was recorded"


@dataclass(frozen=True)
class RecordList:
    """The cells of one group, each with its id, name and status."""

    slug: str
    title: str
    cells: tuple[tuple[str, str, str], ...]


def record_lists(
    places: Iterable[Mapping[str, Any]], slugs: Mapping[Key, str], ended: Mapping[str, Record]
) -> list[RecordList]:
    """Which cells stand behind each group's tables and figures.

    Args:
        places: for each cell its coordinates and variant, and under "cell" itself.
    """
    found: dict[str, tuple[str, list[tuple[str, str, str]]]] = {}
    for place in places:
        cell = place["cell"]
        _, cells = found.setdefault(slugs[key_of(place)], (group_title(place), []))
        status = str(ended[cell["id"]]["status"]) if cell["id"] in ended else "not run yet"
        cells.append((str(cell["id"]), str(cell["name"]), status.replace("_", " ")))
    return [RecordList(slug, title, tuple(cells)) for slug, (title, cells) in found.items()]


def provenance(manifest: Mapping[str, Any], records: Iterable[Record]) -> list[tuple[str, str]]:
    """How it was made: each fact once, or each of its values with the number of cells that have it."""
    ended = list(records)
    facts = [
        ("command", str(manifest.get("command") or "not recorded")),
        ("asked for", str(manifest.get("made") or "")),
    ]
    trained = [record for record in ended if record["status"] != "not_possible"]
    commits = [_commit(record) for record in trained if record.get("code")]
    facts.append(("code", _distinct(commits)))
    for name in dict.fromkeys(key for record in trained for key in record.get("versions") or {}):
        facts.append((name, _distinct(dig(record, ("versions", name)) for record in trained if record.get("versions"))))
    facts.append(("hardware", _distinct(_hardware(record["hardware"]) for record in trained if record.get("hardware"))))
    for name in ("device", "precision", "threads", "compile"):
        facts.append((name, _distinct(dig(record, ("config", "runtime", name)) for record in trained)))
    backends = (f"{record['backend']} ({dig(record, ('config', 'backbone', 'attention'))})" for record in trained
                if record.get("backend"))  # fmt: skip
    facts.append(("attention backend taken", _distinct(backends)))
    times = [record["times"] for record in trained if record.get("times")]
    started = [time["started"] for time in times if time.get("started")]
    finished = [time["ended"] for time in times if time.get("ended")]
    if started and finished:
        facts.append(("cells ran", f"{min(started)} to {max(finished)}"))
    facts.append(("time in cells", words.duration(float(sum(time.get("seconds") or 0 for time in times)))))
    return [(name, value) for name, value in facts if value]


def _commit(record: Record) -> str:
    code = record["code"]
    if not code.get("commit"):
        return "commit not known"
    return f"{code['commit']}, with changes not committed" if code.get("dirty") else str(code["commit"])


def _hardware(hardware: Mapping[str, Any]) -> str:
    cores = f", {words.plural(hardware['cores'], 'core')}" if hardware.get("cores") else ""
    return f"{hardware.get('cpu') or 'unknown CPU'}{cores}, {hardware.get('gpu') or 'no GPU'}"


def _distinct(values: Iterable[Any]) -> str:
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[str(value)] = counts.get(str(value), 0) + 1
    if len(counts) < 2:
        return "".join(counts)
    return "; ".join(f"{value} ({words.plural(number, 'cell')})" for value, number in counts.items())
