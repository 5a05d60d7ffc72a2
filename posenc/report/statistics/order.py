"""Does the order of encodings change along an axis of a suite? Rank correlation of their means, resampled over seeds.

A suite's axes are all that tells its groups of cells apart: what it varies, attention, the trained length; and within a
group the lengths that are scored. Each value is held against the first of its task: over the encodings that both have,
Kendall's tau-b (1945) and Spearman's rho (1904) of the mean scores. The interval is the bootstrap's by percentiles
(Efron 1979): seeds are drawn with replacement, the same draw for both values and all encodings, as seeds are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posenc.report.statistics.resampling import RESAMPLES, percentiles
from posenc.report.statistics.tables import GROUP

FEWEST = 3
"""Encodings: of two there is no order to speak of."""
FIELDS = (
    *("task", "scale", "metric", "better", "axis", "value", "reference", "encodings", "seeds"),
    *("tau", "tau_low", "tau_high", "rho", "rho_low", "rho_high", "first", "first_reference"),
)
Numbers = NDArray[np.float64]


def kendall(x: Numbers, y: Numbers) -> Numbers:
    """Kendall's tau-b of the last axis, (..., K) each; NaN where all of one are equal."""
    pairs = np.triu_indices(x.shape[-1], 1)
    a, b = (np.sign(one[..., pairs[0]] - one[..., pairs[1]]) for one in (x, y))
    return _ratio((a * b).sum(-1), np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def spearman(x: Numbers, y: Numbers) -> Numbers:
    """Spearman's rho of the last axis, (..., K) each: Pearson's of mean ranks; NaN where all of one are equal."""
    a, b = (np.sign(one[..., :, None] - one[..., None, :]).sum(-1) for one in (x, y))  # twice the ranks, centred
    return _ratio((a * b).sum(-1), np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def interval(x: Numbers, y: Numbers, seed: int = 0) -> dict[str, float]:
    """tau and rho of the means over seeds, with their 95 % intervals; NaN ends of a single seed.

    Args:
        x, y: (seeds, encodings) scores, a row the same seed in both.
    """
    draws = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    found: dict[str, float] = {}
    for name, statistic in (("tau", kendall), ("rho", spearman)):
        found[name] = float(statistic(x.mean(0), y.mean(0)))
        again = statistic(x[draws].mean(1), y[draws].mean(1))
        again = again[np.isfinite(again)]
        ends = percentiles(again) if len(x) > 1 and len(again) else (np.nan, np.nan)
        found[f"{name}_low"], found[f"{name}_high"] = ends
    return found


def orders(scores: pd.DataFrame) -> pd.DataFrame:
    """A row for each value of each axis: how the order of encodings there agrees with the first value's of its task.

    axis: "" for the groups of cells, "length scored" for the lengths of one group. encodings, seeds: how many both
    have. first, first_reference: the best encoding there, and at the value it is held against.

    Args:
        scores: of `tables.scores_frame`.
    """
    main = scores[scores["main"].astype(bool) & ~scores["split"].isin(["validation", "theory"])]
    rows = []
    for (task, scale), mine in main.groupby(["task", "scale"], dropna=False, sort=False):
        mine = mine[mine["split"] == mine["split"].iloc[0]]
        told = {"task": task, "scale": scale, "metric": mine["title"].iloc[0], "better": mine["better"].iloc[0]}
        for axis, value, reference, pair in _pairs(mine):
            if found := _agreement(*pair, lower=told["better"] == "lower"):
                rows.append({**told, "axis": axis, "value": value, "reference": reference, **found})
    return pd.DataFrame(rows, columns=list(FIELDS))


def _pairs(mine: pd.DataFrame) -> Iterator[tuple[str, str, str, tuple[pd.DataFrame, pd.DataFrame]]]:
    """Axis, value, reference and the scores of both, for one task."""
    groups = [
        (dict(zip(GROUP, place, strict=True)), one) for place, one in mine.groupby(GROUP, dropna=False, sort=False)
    ]
    trained = [one[one["evaluated"] == one["length"]] for _, one in groups]
    names = [_name(place, [place for place, _ in groups]) for place, _ in groups]
    for name, one in zip(names[1:], trained[1:], strict=True):
        yield "", name, names[0], (one, trained[0])
    for name, (_, one), at_length in zip(names, groups, trained, strict=True):
        for length, scored in one.groupby("evaluated"):
            if length != one["length"].iloc[0]:
                where = f" ({name})" if len(groups) > 1 else ""
                yield "length scored", f"{length:,}{where}", f"{one['length'].iloc[0]:,}", (scored, at_length)


def _name(place: Mapping[str, Any], places: list[dict[str, Any]]) -> str:
    """What tells a group from the others of its task."""
    parts = [str(place["variant"])] if place["variant"] else []
    for key, text in (("attention", f"{place['attention']} attention"), ("length", f"trained at {place['length']:,}")):
        if len({repr(one[key]) for one in places}) > 1:
            parts.append(text)
    return ", ".join(parts) or "as the task has it"


def _agreement(one: pd.DataFrame, other: pd.DataFrame, *, lower: bool) -> dict[str, Any]:
    """Of the encodings and seeds that both have in full; {} where they are too few."""
    x, y = (
        frame.pivot_table(index="seed", columns="encoding", values="value", aggfunc="first", sort=False)
        for frame in (one, other)
    )
    names = [name for name in x.columns if name in y.columns]
    apart = {"left_index": True, "right_index": True, "suffixes": ("", " of the other")}
    both = x[names].merge(y[names], **apart).dropna()
    if len(names) < FEWEST or both.empty:
        return {}
    values = both.to_numpy(float)
    mine, theirs = values[:, : len(names)], values[:, len(names) :]
    best = np.argmin if lower else np.argmax
    first, first_reference = (names[int(best(part.mean(0)))] for part in (mine, theirs))
    return {"encodings": len(names), "seeds": len(both), **interval(mine, theirs), "first": first,
            "first_reference": first_reference}  # fmt: skip
