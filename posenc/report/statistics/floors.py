"""Scores that a model does not need to have learnt anything for: where nothing lies above them, nothing is compared."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from posenc.records.record import is_number
from posenc.report.statistics.tables import COLUMN, GROUP


def mark(summary: pd.DataFrame, references: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The summary with what each row is beside the best score without a model (majority, copy, unigram, chance).

    floor, floor_name: that score, in the main metric. above: whether the row's score is better by more than its
    interval over the test items (over the seeds, where there are no items; None where there is no floor or no score).
    at_floor: neither it nor the baseline is above, so the two say nothing of encodings.

    Args:
        references: trivial scores, a row each. scores: `resampling.ItemTables.scores`.
    """
    if summary.empty:
        return summary.assign(floor=[], floor_name=[], above=[])
    known: dict[tuple[Any, ...], list[tuple[str, float]]] = {}
    for row in references.to_dict("records"):
        known.setdefault(tuple(_key(row, GROUP)), []).append((row["name"], row["value"]))
    own = {tuple(_key(row, (*COLUMN, "encoding"))): row for row in scores.to_dict("records")}
    floors, names, above = [], [], []
    for row in summary.to_dict("records"):
        name, floor = _floor(row, known.get(tuple(_key(row, GROUP)), []))
        floors.append(floor)
        names.append(name)
        above.append(_above(row, floor, own.get(tuple(_key(row, (*COLUMN, "encoding"))), {})))
    marked = summary.assign(floor=floors, floor_name=names, above=pd.Series(above, index=summary.index, dtype=object))
    return marked.assign(at_floor=_at_floor(marked))


def _key(row: dict[str, Any], names: Any) -> list[Any]:
    return [None if isinstance(row[name], float) and math.isnan(row[name]) else row[name] for name in names]


def _floor(row: dict[str, Any], known: list[tuple[str, float]]) -> tuple[str, float]:
    if not row["main"] or not known:
        return "", math.nan
    best = min if row["better"] == "lower" else max
    return best(known, key=lambda pair: pair[1])


def _above(row: dict[str, Any], floor: float, own: dict[str, Any]) -> bool | None:
    if not row["n"] or not is_number(floor):
        return None
    lower = row["better"] == "lower"
    ends = (own.get("own_low"), own.get("own_high")) if own else (row["low"], row["high"])
    end: Any = ends[1] if lower else ends[0]
    end = end if is_number(end) else row["mean"]
    return bool(end < floor if lower else end > floor)


def _at_floor(marked: pd.DataFrame) -> list[bool]:
    baselines = {
        tuple(_key(row, COLUMN)): row["above"]
        for row in marked.to_dict("records")
        if row["encoding"] == row["baseline"]
    }
    return [
        row["above"] is False and baselines.get(tuple(_key(row, COLUMN)), False) is not True
        for row in marked.to_dict("records")
    ]
