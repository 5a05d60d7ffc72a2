"""Scores at equal cost: what each encoding had reached when the cheapest of its group had done all its steps; and how
much training each needs until it is as good as the baseline at its end.

Cost is time where times tell of the encodings alone, else the FLOPs of the forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from posenc.records.record import Record, dig
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP

AGREE = 0.1
"""Seeds of an encoding whose training times lie further apart, over their mean, ran beside something else."""

Run = tuple[list[float], list[float], list[float]]
"""Of one cell: costs, growing, the validation scores there, and the tokens seen by then."""

FIELDS = (*GROUP, "encoding", "label", "n", "cost", "limit", "unit", "title", "better", "at_end", "at_end_half",
          "in_time", "in_time_half", "pairs", "difference", "difference_half", "why", "seeds", "caught_up",
          "share", "share_half")  # fmt: skip


def ran_alone(records: Iterable[Record]) -> bool:
    """Whether no two cells ran at the same time, as their records tell to the second."""
    spans = []
    for record in records:
        started, ended = (dig(record, ("times", key)) for key in ("started", "ended"))
        if record["status"] not in ("done", "failed", "timed_out") or started == ended:
            continue
        if not (isinstance(started, str) and isinstance(ended, str)):
            return False
        spans.append((started, ended))
    return all(one[1] <= other[0] for one, other in pairwise(sorted(spans)))


def timed(curves: pd.DataFrame, alone: bool) -> pd.DataFrame:
    """Learning curves with a `cost` and its `unit`: a group's seconds where cells ran alone and the seeds of each of
    its encodings agree, else FLOPs; rows whose FLOPs are not recorded are left out.
    """
    parts = []
    for _, group in curves.groupby(GROUP, dropna=False, sort=False):
        ends = group.groupby(["encoding", "seed"])["seconds"].max().dropna()
        spread = ends.groupby("encoding").agg(lambda x: (x.max() - x.min()) / x.mean() if x.mean() else 0.0)
        if alone and len(ends) and (spread <= AGREE).all() and group["seconds"].notna().all():
            parts.append(group.assign(cost=group["seconds"].astype(float), unit="s"))
        else:
            flops = pd.to_numeric(group["tokens"]) * pd.to_numeric(group["flops_per_token"])
            parts.append(group.assign(cost=flops, unit="FLOPs").dropna(subset=["cost"]))
    return pd.concat(parts, ignore_index=True) if parts else curves.assign(cost=[], unit=[])


def reached(costs: Sequence[float], values: Sequence[float], limit: float, better: Any) -> float:
    """The best validation score by a cost, on straight lines between the best scores at each validation.

    NaN before the first validation. Without the lines, an encoding one per cent slower would lose a whole
    validation interval.
    """
    spent = np.asarray(costs, float)
    if not len(spent) or limit < spent[0]:
        return math.nan
    best = np.minimum.accumulate(values) if better == "lower" else np.maximum.accumulate(values)
    return float(np.interp(limit, spent, best))


def share_to_reach(run: Run, theirs: Run, better: Any) -> float:
    """How much of the baseline's training a run has seen when it first is as good as the baseline ever was.

    In tokens, on straight lines between the best scores at each validation; NaN where it never is.
    """
    _, values, tokens = run
    sign = 1.0 if better == "lower" else -1.0
    best = np.minimum.accumulate(sign * np.asarray(values))
    target = min(sign * value for value in theirs[1])
    there = np.flatnonzero(best <= target)
    if not len(there):
        return math.nan
    first = int(there[0])
    if first == 0:
        return tokens[0] / theirs[2][-1]
    # Scores that fall are read the other way round: np.interp wants what grows.
    at = np.interp(-target, -best[first - 1 : first + 1], tokens[first - 1 : first + 1])
    return float(at) / theirs[2][-1]


def equal_cost(curves: pd.DataFrame, baseline: Any) -> pd.DataFrame:
    """A row for each encoding of a group with two encodings or more, of curves that are `timed`.

    limit: for each seed the cost of the cheapest encoding of the group; their mean stands here.
    at_end: the best validation score at the end of training. in_time: by `limit`. The halves are of 95 % intervals;
    the difference is of `in_time` from the baseline's, paired by seed. share: of the baseline's training that is
    needed to be as good as it is at its end, over those of the `seeds` that ever are (`caught_up`).
    """
    rows: list[dict[str, Any]] = []
    for place, group in curves.groupby(GROUP, dropna=False, sort=False):
        runs: dict[tuple[Any, Any], Run] = {}
        by_cost = group.sort_values("cost", kind="stable")
        for name, seed, *point in zip(
            *(by_cost[key] for key in ("encoding", "seed", "cost", "value", "tokens")), strict=True
        ):
            for part, number in zip(runs.setdefault((name, seed), ([], [], [])), point, strict=True):
                part.append(number)
        labels = dict(zip(group["encoding"], group["label"], strict=True))
        names = list(dict.fromkeys(group["encoding"]))
        if len(names) < 2:
            continue
        # Seeds that every encoding has: else the fastest of a seed would be one of fewer.
        seeds = [seed for seed in group["seed"].unique() if all((name, seed) in runs for name in names)]
        limits = {seed: min(runs[name, seed][0][-1] for name in names) for seed in seeds}
        better = group["better"].iloc[0]
        scores = {name: _scores(name, seeds, runs, limits, better) for name in names}
        for name in names:
            ends, in_time = scores[name]
            theirs = scores.get(baseline, ({}, {}))[1]
            pairs = [in_time[s] - theirs[s] for s in in_time if s in theirs] if name != baseline else []
            shares = []
            if name != baseline and baseline in names:
                shares = [share_to_reach(runs[name, s], runs[baseline, s], better) for s in seeds]
            found = [share for share in shares if not math.isnan(share)]
            until = interval(found)
            end, now, apart = interval(list(ends.values())), interval(list(in_time.values())), interval(pairs)
            rows.append(
                {
                    **dict(zip(GROUP, place, strict=True)),
                    "encoding": name,
                    "label": labels[name],
                    "n": len(in_time),
                    "cost": float(np.mean([runs[name, s][0][-1] for s in seeds])) if seeds else math.nan,
                    "limit": float(np.mean(list(limits.values()))) if limits else math.nan,
                    "unit": group["unit"].iloc[0],
                    "title": group["title"].iloc[0],
                    "better": better,
                    "at_end": end.mean,
                    "at_end_half": end.half,
                    "in_time": now.mean,
                    "in_time_half": now.half,
                    "pairs": len(pairs),
                    "difference": apart.mean,
                    "difference_half": apart.half,
                    "seeds": len(shares),
                    "caught_up": len(found),
                    "share": until.mean,
                    "share_half": until.half,
                    "why": None if in_time else "no validation by then" if seeds else "no seed that all encodings have",
                }
            )
    return pd.DataFrame(rows, columns=list(FIELDS))


def _scores(
    name: str,
    seeds: Sequence[Any],
    runs: Mapping[tuple[Any, Any], Run],
    limits: Mapping[Any, float],
    better: Any,
) -> tuple[dict[Any, float], dict[Any, float]]:
    ends, in_time = {}, {}
    for seed in seeds:
        costs, values, _ = runs[name, seed]
        ends[seed] = float(min(values) if better == "lower" else max(values))
        value = reached(costs, values, limits[seed], better)
        if not math.isnan(value):
            in_time[seed] = value
    return ends, in_time
