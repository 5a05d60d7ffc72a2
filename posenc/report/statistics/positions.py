"""The loss by place in the window: means over seeds, and differences from the baseline paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from posenc.records.record import POSITIONS
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP

PLACE = [*GROUP, "split", "evaluated"]
FIELDS = (
    *PLACE, "unit", "first", "last", "encoding", "label", "n", "mean", "low", "high",
    "pairs", "difference", "difference_low", "difference_high",
)  # fmt: skip
IN_BITS = ("bits_per_character",)
"""Main metrics beside which a loss stands in bits; beside others in nats."""


def by_seed(
    place: Mapping[str, Any], metric: str, split: str, length: int, arrays: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A row for each bin of places of one cell at one length; none where its items do not tell.

    Args:
        place: the cell's coordinates, with variant and label. arrays: its items of this split and length, by name.
    """
    names = [f"{POSITIONS}{name}" for name in ("ends", "nats", "targets")]
    if not set(names) <= arrays.keys():
        return []
    ends, nats, targets = (np.asarray(arrays[name], dtype=float) for name in names)
    if not (len(ends) == len(nats) == len(targets)):
        return []
    unit, by = ("bits", math.log(2)) if metric in IN_BITS else ("nats", 1.0)
    at = {**place, "split": split, "evaluated": length, "unit": unit}
    firsts = [1, *(int(end) + 1 for end in ends[:-1])]
    return [
        {**at, "first": first, "last": int(end), "value": float(loss / many / by)}
        for first, end, loss, many in zip(firsts, ends, nats, targets, strict=True)
        if many > 0 and math.isfinite(loss)
    ]


def averaged(rows: Iterable[Mapping[str, Any]], baseline: Any) -> pd.DataFrame:
    """A row for each encoding and bin: first and last place, counted from 1, and over the n seeds mean, low and high.

    The interval is Student's, 95 %. difference, difference_low, difference_high: from the baseline at the same places,
    over the `pairs` of seeds that both have (paired t).
    """
    found: dict[tuple[Any, ...], dict[Any, dict[Any, float]]] = {}
    told: dict[tuple[tuple[Any, ...], Any], Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in (*PLACE, "unit", "first", "last"))
        found.setdefault(key, {}).setdefault(row["encoding"], {})[row["seed"]] = row["value"]
        told[key, row["encoding"]] = row
    result = []
    for key, encodings in found.items():
        theirs = encodings.get(baseline, {})
        for name, seeds in encodings.items():
            own = interval(list(seeds.values()))
            pairs = [value - theirs[seed] for seed, value in seeds.items() if seed in theirs and name != baseline]
            apart = interval(pairs)
            row = {field: told[key, name][field] for field in (*PLACE, "unit", "first", "last", "encoding", "label")}
            row |= {"n": len(seeds), "mean": own.mean, "low": own.low, "high": own.high, "pairs": len(pairs)}
            row |= {"difference": apart.mean, "difference_low": apart.low, "difference_high": apart.high}
            result.append(row)
    return pd.DataFrame(result, columns=list(FIELDS))
