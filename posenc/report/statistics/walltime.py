"""Scores at equal wall-clock: what each encoding had reached when the fastest of its group had done all its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP

FIELDS = (*GROUP, "encoding", "label", "n", "seconds", "limit", "title", "better", "at_end", "at_end_half", "in_time",
          "in_time_half", "pairs", "difference", "difference_half", "why")  # fmt: skip


def reached(seconds: Sequence[float], values: Sequence[float], limit: float, better: Any) -> float:
    """The best validation score by a time, on straight lines between the best scores at each validation.

    NaN before the first validation. Without the lines, an encoding one per cent slower would lose a whole
    validation interval.
    """
    times = np.asarray(seconds, float)
    if not len(times) or limit < times[0]:
        return math.nan
    best = np.minimum.accumulate(values) if better == "lower" else np.maximum.accumulate(values)
    return float(np.interp(limit, times, best))


def equal_time(curves: pd.DataFrame, baseline: Any) -> pd.DataFrame:
    """A row for each encoding of a group with two encodings or more.

    limit: for each seed the training seconds of the fastest encoding of the group; their mean stands here.
    at_end: the best validation score at the end of training. in_time: by `limit`. The halves are of 95 % intervals;
    the difference is of `in_time` from the baseline's, paired by seed.
    """
    rows: list[dict[str, Any]] = []
    for place, group in curves.groupby(GROUP, dropna=False, sort=False):
        runs: dict[tuple[Any, Any], pd.DataFrame] = {
            key: run.sort_values("seconds") for key, run in group.groupby(["encoding", "seed"], sort=False)
        }
        names = list(dict.fromkeys(name for name, _ in runs))
        if len(names) < 2:
            continue
        # Seeds that every encoding has: else the fastest of a seed would be one of fewer.
        seeds = [seed for seed in group["seed"].unique() if all((name, seed) in runs for name in names)]
        limits = {seed: min(runs[name, seed]["seconds"].max() for name in names) for seed in seeds}
        better = group["better"].iloc[0]
        scores = {name: _scores(name, seeds, runs, limits, better) for name in names}
        for name in names:
            ends, in_time = scores[name]
            theirs = scores.get(baseline, ({}, {}))[1]
            pairs = [in_time[s] - theirs[s] for s in in_time if s in theirs] if name != baseline else []
            end, now, apart = interval(list(ends.values())), interval(list(in_time.values())), interval(pairs)
            mine = group[group["encoding"] == name]
            rows.append(
                {
                    **dict(zip(GROUP, place, strict=True)),
                    "encoding": name,
                    "label": mine["label"].iloc[0],
                    "n": len(in_time),
                    "seconds": float(np.mean([runs[name, s]["seconds"].max() for s in seeds])) if seeds else math.nan,
                    "limit": float(np.mean(list(limits.values()))) if limits else math.nan,
                    "title": group["title"].iloc[0],
                    "better": better,
                    "at_end": end.mean,
                    "at_end_half": end.half,
                    "in_time": now.mean,
                    "in_time_half": now.half,
                    "pairs": len(pairs),
                    "difference": apart.mean,
                    "difference_half": apart.half,
                    "why": None if in_time else "no validation by then" if seeds else "no seed that all encodings have",
                }
            )
    return pd.DataFrame(rows, columns=list(FIELDS))


def _scores(
    name: str,
    seeds: Sequence[Any],
    runs: Mapping[tuple[Any, Any], pd.DataFrame],
    limits: Mapping[Any, float],
    better: Any,
) -> tuple[dict[Any, float], dict[Any, float]]:
    ends, in_time = {}, {}
    for seed in seeds:
        run = runs[name, seed]
        ends[seed] = float(run["value"].min() if better == "lower" else run["value"].max())
        value = reached(list(run["seconds"]), list(run["value"]), limits[seed], better)
        if not math.isnan(value):
            in_time[seed] = value
    return ends, in_time
