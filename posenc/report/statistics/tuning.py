"""Which of the values that a suite tries are taken: those that did best on validation; and what the choice mattered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from posenc.records.record import Record, coordinates, is_number, labels, variants
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP

FIELDS = (*GROUP, "encoding", "label", "setting", "cells", "n", "mean", "low", "high", "title", "better", "taken")


def choose(manifest: dict[str, Any], records: Iterable[Record]) -> tuple[dict[str, Any], list[Record], pd.DataFrame]:
    """The manifest and the records without the cells of values that were tried and not taken, and a row for each value.

    One value is taken for each encoding, over all its seeds: the one with the most seeds scored on validation and,
    among those, the best mean. Test scores have no say in it.
    """
    records = list(records)
    by_id = {record["id"]: record for record in records}
    places, named = variants(manifest["cells"]), labels(manifest["cells"])
    tried: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = {}
    for cell in manifest["cells"]:
        if tuned := cell.get("tuned"):
            place = {**coordinates(cell["config"]), "variant": places[cell["id"]]}
            key = (*(place[field] for field in GROUP), place["encoding"])
            setting = ", ".join(f"{name.rsplit('.', 1)[-1]} {_value(value)}" for name, value in tuned.items())
            tried.setdefault(key, {}).setdefault(setting, []).append(cell)
    rows: list[dict[str, Any]] = []
    dropped: set[str] = set()
    for key, settings in tried.items():
        scores = {name: _on_validation(cells, by_id) for name, cells in settings.items()}
        taken = max(settings, key=lambda name: _rank(*scores[name]))
        for name, cells in settings.items():
            values, metric = scores[name]
            found = interval(values)
            row = {**dict(zip((*GROUP, "encoding"), key, strict=True)), "label": named[cells[0]["id"]]}
            rows.append(
                {
                    **row,
                    "setting": name,
                    "cells": len(cells),
                    "n": len(values),
                    **{field: getattr(found, field) for field in ("mean", "low", "high")},
                    **{field: metric.get(field) for field in ("title", "better")},
                    "taken": name == taken,
                }
            )
            if name != taken:
                dropped |= {cell["id"] for cell in cells}
    kept = {**manifest, "cells": [cell for cell in manifest["cells"] if cell["id"] not in dropped]}
    return kept, [one for one in records if one["id"] not in dropped], pd.DataFrame(rows, columns=list(FIELDS))


def _value(value: Any) -> str:
    """A value that was tried, in words."""
    return f"{value:g}" if is_number(value) else str(value)


def _on_validation(
    cells: Iterable[Mapping[str, Any]], by_id: Mapping[str, Record]
) -> tuple[list[float], dict[str, Any]]:
    """The scores by which validation chose each cell's model, and their metric."""
    values: list[float] = []
    metric: dict[str, Any] = {}
    for cell in cells:
        record = by_id.get(cell["id"], {})
        choice = record.get("choice") or (record.get("metric") or {}).get("name")
        known = record.get("metrics") or ([record["metric"]] if record.get("metric") else [])
        metric = next((one for one in known if one["name"] == choice), metric)
        values += [
            score["value"]
            for score in record.get("scores") or []
            if score["split"] == "validation" and score["metric"] == choice and is_number(score["value"])
        ]
    return values, metric


def _rank(values: list[float], metric: Mapping[str, Any]) -> tuple[int, float]:
    mean = interval(values).mean if values else 0.0
    return len(values), -mean if metric.get("better") == "lower" else mean
