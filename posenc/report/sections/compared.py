"""What was compared, and on what data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from posenc.api.blocks import Card, Facts, Note, Paragraph
from posenc.api.sections import ReportSection, Section
from posenc.records.record import dig, evaluated_lengths
from posenc.report import words
from posenc.report.facts import Dataset
from posenc.report.view import View


class Compared(ReportSection):
    name = "compared"
    order = 35

    def make(self, view: View) -> Section:
        """A card for each set of data, then the suite's axes."""
        cards = (_card(one, len(view.data) > 1) for one in view.data)
        facts = Facts((*_facts(view.manifest), ("cells", view.counts)))
        return Section("What was compared, and on what data", (*cards, facts), link="Compared")


def _card(data: Dataset, several: bool) -> Card:
    cells = f", {data.cells} cells" if several else ""
    said: list[Paragraph | Note] = [Paragraph(f"for {data.task}, scale {data.scale}: {data.size}{cells}")]
    if data.note:
        said.append(Note(data.note))
    if data.digest not in ("", "none"):
        said.append(Paragraph(f"SHA-256 {data.digest}", "digest"))
    return Card(data.name, tuple(said), data.warnings, kind="warned" if data.warnings else "")


def _packages(configs: Iterable[Mapping[str, Any]]) -> str:
    """`posenc 0.1.0 (none, rope); mine 1.2 (alibi, version 2)`; the version is an encoding's own, where it is not 1."""
    found: dict[str, list[str]] = {}
    for config in configs:
        one = config["encoding"]
        version = one.get("version") or "1"
        name = one["name"] if set(version.split("+")) == {"1"} else f"{one['name']}, version {version}"
        name += f", SHA-256 {one['source'][:12]}" if one.get("source") else ""
        found.setdefault(str(one.get("package") or "not recorded"), []).append(name)
    return "; ".join(f"{package} ({words.listed(names)})" for package, names in found.items())


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the suite sets side by side."""
    configs = [cell["config"] for cell in manifest["cells"]]
    lengths = sorted({length for config in configs for length in evaluated_lengths(config)})
    facts = [
        ("encodings", words.listed(config["encoding"]["name"] for config in configs)),
        ("packages of encodings", _packages(configs)),
        ("baseline", str(manifest["suite"].get("baseline") or "none named")),
        ("named by the suite", str(manifest["suite"].get("claim") or _named(manifest))),
        ("tasks", words.listed(config["task"] for config in configs)),
        ("scale", words.listed(config["scale"] for config in configs)),
        ("attention", words.listed(dig(config, ("backbone", "attention")) for config in configs)),
        ("trained at length", words.listed(sorted({config["length"] for config in configs}))),
        ("scored at length", words.listed(lengths)),
        ("seeds", words.listed(sorted({config["seed"] for config in configs}))),
    ]
    return [(name, value) for name, value in facts if value]


def _named(manifest: Mapping[str, Any]) -> str:
    """What a suite without a claim of its own has named."""
    return "the lines of its ledger" if manifest.get("claims") else "no comparison"
