"""The card of a trained model, in Markdown: what it is, on what it was trained, what it scored, by which versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posenc.records.record import Record


def written(described: Mapping[str, Any], record: Record) -> str:
    """The card of what was kept (`posenc.training.kept`) and its record."""
    config, data = described["config"], record.get("data") or {}
    encoding, backbone = config["encoding"], config["backbone"]
    counts = record.get("parameters") or {}
    lines = [
        "---", "library_name: posenc", f"tags: [positional-encoding, {encoding['name'].split('(')[0]}]", "---", "",
        f"# {described['name']}", "",
        f"A model of posenc, cell `{described['id']}`. `posenc.load(FOLDER)` reads it where it was exported.", "",
        "| | |", "|---|---|",
        f"| encoding | `{encoding['name']}`, version {encoding['version']}, of {encoding['package']} |",
        f"| task | {config['task']} at {config['scale']}, objective {config['objective']}, seed {config['seed']} |",
        f"| trained at | {config['length']} tokens |",
        f"| backbone | {backbone['form']}, {backbone['attention']}, {backbone['layers']} layers,"
        f" {backbone['width']} wide, {backbone['heads']} heads |",
        f"| parameters | {counts.get('total', 0):,}, {counts.get('positional', 0):,} of them the encoding's |",
        f"| data | {data.get('name') or config['data']['source']}{' (generated)' if data.get('generated') else ''},"
        f" digest {config['data']['digest']} |",
        f"| weights | SHA-256 {described['weights']}, of step {described['step']:,} |",
        f"| versions | {', '.join(f'{name} {value}' for name, value in described['versions'].items())} |", "",
        "## Scores", "", "| split | length | metric | value |", "|---|---|---|---|",
    ]  # fmt: skip
    for score in record.get("scores") or ():
        value = score["value"]
        told = f"{value:.6g}" if isinstance(value, int | float) else str(score.get("why") or "none")
        lines.append(f"| {score['split']} | {score['length']} | {score['metric']} | {told} |")
    return "\n".join(lines) + "\n"
