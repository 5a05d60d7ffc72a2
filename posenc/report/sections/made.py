"""How the results were made: command, code, versions, machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from posenc.api.blocks import Facts
from posenc.api.sections import ReportSection, Section
from posenc.records.record import Record, dig, is_number
from posenc.report import words
from posenc.report.view import View


class HowMade(ReportSection):
    name = "made"
    order = 100

    def make(self, view: View) -> Section:
        """Facts, each with its values."""
        return Section("How it was made", (Facts(tuple(provenance(view.manifest, view.records))),), link="How made")


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
    facts.append(("time in cells", words.duration(_total(time.get("seconds") for time in times))))
    return [(name, value) for name, value in facts if value]


def _total(seconds: Iterable[Any]) -> float:
    return math.fsum(one for one in seconds if is_number(one))


def _commit(record: Record) -> str:
    code = record["code"]
    if not code.get("commit"):
        return "commit not known"
    return f"{code['commit']}, with changes not committed" if code.get("dirty") else str(code["commit"])


def _hardware(hardware: Mapping[str, Any]) -> str:
    cores = f", {words.plural(hardware['cores'], 'core')}" if hardware.get("cores") else ""
    level = f" ({hardware['instructions']})" if hardware.get("instructions") else ""
    named = (("driver", "driver"), ("CUDA", "cuda"), ("cuDNN", "cudnn"))
    software = [f"{name} {hardware[key]}" for name, key in named if hardware.get(key)]
    card = f" ({', '.join(software)})" if software else ""
    return f"{hardware.get('cpu') or 'unknown CPU'}{level}{cores}, {hardware.get('gpu') or 'no GPU'}{card}"


def _distinct(values: Iterable[Any]) -> str:
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[str(value)] = counts.get(str(value), 0) + 1
    if len(counts) < 2:
        return "".join(counts)
    return "; ".join(f"{value} ({words.plural(number, 'cell')})" for value, number in counts.items())
