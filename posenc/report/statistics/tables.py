"""Records to pandas: one row a score, and what follows from them. Nothing here words or rounds anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from posenc.records.record import (
    MACHINE,
    MEASURED,
    NOT_RUN_YET,
    Record,
    coordinates,
    dig,
    ending,
    evaluated_lengths,
    flat,
    is_key,
    is_number,
    labels,
    variants,
)
from posenc.report.statistics import claims
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM, holm, interval
from posenc.report.words import listed, plural

GROUP = ["task", "scale", "attention", "variant", "length"]
"""Cells that share these are compared with each other."""

COLUMN = [*GROUP, "split", "metric", "evaluated"]
"""Scores that share these stand in one column of a table."""

CELL_FIELDS = {
    "package": ("config", "encoding", "package"),
    "encoding_version": ("config", "encoding", "version"),
    "parameters": ("parameters", "total"),
    "positional_parameters": ("parameters", "positional"),
    "flops_per_token": ("flops_per_token",),
    "padding": ("padding",),
    "tokens_seen": ("tokens_seen",),
    "tokens_per_second": ("tokens_per_second",),
    "seconds": ("times", "seconds"),
    "training_seconds": ("times", "training_seconds"),
    "compile_seconds": ("times", "compile_seconds"),
    "peak_memory_bytes": ("peak_memory_bytes",),
    "best_step": ("best_step",),
    "backend": ("backend",),
    "device": ("config", "runtime", "device"),
    "precision": ("config", "runtime", "precision"),
    "threads": ("config", "runtime", "threads"),
    "commit": ("code", "commit"),
    "dirty": ("code", "dirty"),
    "data": ("data", "name"),
    "data_digest": ("data", "digest"),
}

SCORE_FIELDS = (
    *("id", "name", "suite", *GROUP, "encoding", "label", "seed", "status", "reason", "cause"),
    *("split", "evaluated", "metric", "title", "better", "main", "value", "items", "why"),
    *CELL_FIELDS,
)


def _main_scores(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """For each task: its metric's name, title and sense, and the split that is reported, from cells that know."""
    known: dict[str, dict[str, Any]] = {}
    for record in records:
        metric = record.get("metric") or {}
        if metric.get("name") and record["config"].get("task") not in known:
            splits = [score["split"] for score in record.get("scores") or [] if score["split"] != "validation"]
            known[record["config"]["task"]] = {**metric, "split": splits[0] if splits else "test"}
    return known


def scores_frame(records: Iterable[Record], manifest: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One row a score; a cell that has none has a row for each length at which it was to be scored, with the why.

    The manifest, where given, says what its suite varies even if only a part of it has run.
    """
    records = list(records)
    by_id = variants(manifest["cells"] if manifest else records)
    named = labels(manifest["cells"] if manifest else records)
    main = _main_scores(records)
    rows: list[dict[str, Any]] = []
    for record in records:
        config = record["config"]
        metric = main.get(config.get("task"), {})
        cell = {
            **{key: record.get(key) for key in ("id", "name", "suite", "status", "reason", "cause")},
            **coordinates(config),
            "variant": by_id.get(record["id"], ""),
            "label": named.get(record["id"]) or coordinates(config)["encoding"],
            **{name: dig(record, path) for name, path in CELL_FIELDS.items()},
        }
        metrics = {one["name"]: one for one in record.get("metrics") or [metric] if one}
        scores = record.get("scores") or [
            {"split": metric.get("split", "test"), "length": length, "metric": metric.get("name", ""),
             "value": None, "items": 0, "why": ending(record)}
            for length in evaluated_lengths(config)
        ]  # fmt: skip
        for score in scores:
            is_main = score["metric"] == metric.get("name", "")
            value = score.get("value")
            rows.append(
                {
                    **cell,
                    **{key: score.get(key) for key in ("split", "metric", "items")},
                    "evaluated": config["length"] if score.get("length") is None else score["length"],
                    "title": metrics.get(score["metric"], {}).get("title") or score["metric"] or "score",
                    "better": metrics.get(score["metric"], {}).get("better"),
                    "main": is_main,
                    "value": float(value) if is_number(value) else math.nan,
                    "why": score.get("why") or (None if is_number(value) else "no value was recorded"),
                }
            )
    return pd.DataFrame(rows, columns=list(SCORE_FIELDS))


def _planned(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Rows for the cells of the manifest that have not ended, so that they are not forgotten."""
    ended = set(frame["id"])
    waiting = [
        {"id": cell["id"], "name": cell["name"], "config": cell["config"], "status": "waiting", "reason": NOT_RUN_YET}
        for cell in manifest["cells"]
        if cell["id"] not in ended
    ]
    rows = scores_frame(waiting, manifest)
    rows["why"] = NOT_RUN_YET
    known = frame[frame["main"].astype(bool)].drop_duplicates("task").set_index("task")
    for task in rows["task"].unique():
        if task in known.index:
            for field in ("metric", "title", "better", "split"):
                rows.loc[rows["task"] == task, field] = known.loc[task, field]
    return rows


def summary(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """What the scores of a suite come to: `described`, and judged as one family of comparisons."""
    return judged(described(frame, manifest), manifest)


def judged(rows: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of `described` with what holds of all comparisons together: named, looks, p_holm."""
    looks = claims.looks(manifest)
    result = rows.assign(named=_named(rows), looks=looks)
    tested = result["named"] & (result["pairs"] >= SEEDS_FOR_A_CLAIM) & result["p"].notna()
    at_look = [claims.at_look(p, looks) for p in holm(list(result.loc[tested, "p"]))]
    result.loc[tested, "p_holm"] = at_look
    return result


def described(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """A row for each encoding, task, attention, trained length and evaluated length.

    mean, sd, low, high: over the n seeds that have a score (95 % interval, Student's t), of the `cells` asked for.
    difference, difference_sd, difference_low, difference_high: from the baseline, over the `pairs` of seeds that both
        have; in `differences` each of them, a space between.
    named: whether the suite named this comparison beforehand: its claim against its baseline, in the main metric of
        the task's first test split, at the trained length.
    p, p_holm: of the paired t-test, and Holm-adjusted over the comparisons named that have seeds enough for a claim,
        for so many `looks` (`claims`). p_flips, p_skewed: of the tests that may contradict it.
    lacking: which seeds of either arm are missing for a cause that lies in training, or are still to come.
    at_floor: False; see `floors`.
    why: why there is no mean. note: why seeds are missing. baseline_note: why the difference is missing or over fewer.
    """
    baseline, claim = manifest["suite"].get("baseline"), manifest["suite"].get("claim") or ""
    by_id = variants(manifest["cells"])
    whole = frame.assign(variant=frame["id"].map(lambda name: by_id.get(name, "")))
    waiting = _planned(whole, manifest)
    if len(waiting):
        whole = pd.concat([whole, waiting], ignore_index=True) if len(whole) else waiting
    whole = whole[whole["split"] != "validation"]
    order = _first_seen([coordinates(cell["config"])["encoding"] for cell in manifest["cells"]])
    rows: list[dict[str, Any]] = []
    for place, column in whole.groupby(COLUMN, dropna=False, sort=False):
        groups = sorted(column.groupby("encoding", sort=False), key=lambda pair: order.get(pair[0], 0))
        scores = {name: _by_seed(group) for name, group in groups}
        for name, group in groups:
            rows.append(
                {
                    **dict(zip(COLUMN, place, strict=True)),
                    **{key: group[key].iloc[0] for key in ("title", "better", "main", "label")},
                    "encoding": name,
                    "package": listed(group["package"].dropna()),
                    "baseline": baseline,
                    "claim": claim,
                    **_mean(group, scores[name]),
                    **_difference(name, baseline, scores, column),
                }
            )
    return pd.DataFrame(rows, columns=list(_SUMMARY_FIELDS))


def _named(result: pd.DataFrame) -> pd.Series[bool]:
    """Which rows hold the suite's claim against its baseline: one for each group of cells."""
    if result.empty:
        return pd.Series([], dtype=bool)
    first = result[result["main"].astype(bool)].groupby(GROUP, dropna=False, sort=False)["split"].transform("first")
    own = (
        result["main"].astype(bool)
        & (result["evaluated"] == result["length"])
        & (result["encoding"] == result["claim"])
        & ~result["split"].isin(MEASURED)  # what is described is no experiment
    )
    return own & (result["split"] == first.reindex(result.index))


_SUMMARY_FIELDS = (
    *(*COLUMN, "title", "better", "main", "encoding", "label", "package", "baseline", "claim", "named"),
    *("n", "cells", "mean", "sd", "low", "high", "seeds", "why", "note"),
    *("pairs", "differences", "difference", "difference_sd", "difference_low", "difference_high"),
    *("p", "p_holm", "p_flips", "p_skewed", "looks", "lacking", "at_floor", "baseline_note"),
)


def _first_seen(names: Iterable[Any]) -> dict[Any, int]:
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def _by_seed(group: pd.DataFrame) -> dict[Any, float]:
    return {seed: value for seed, value in zip(group["seed"], group["value"], strict=True) if is_number(value)}


def _mean(group: pd.DataFrame, scores: dict[Any, float]) -> dict[str, Any]:
    result, whys, notes = interval(list(scores.values())), "", list[str]()
    if len(scores) < len(group):
        missing = group[~group["seed"].isin(list(scores))]
        whys = "; ".join(
            f"{plural(len(cells), 'seed')}: {why}" if scores or missing["why"].nunique() > 1 else str(why)
            for why, cells in missing.groupby("why", sort=False)
        )
        if scores and len(missing):
            notes.append(f"{len(scores)} of {plural(len(group), 'seed')} ({whys})")
    if len(scores) == 1:
        notes.append("one seed: no interval")
    return {
        "n": len(scores),
        "cells": len(group),
        "seeds": listed(sorted(scores)),
        "mean": result.mean,
        "sd": result.sd,
        "low": result.low,
        "high": result.high,
        "why": None if scores else whys,
        "note": "; ".join(notes) or None,
    }


def _difference(name: str, baseline: Any, scores: dict[str, dict[Any, float]], column: pd.DataFrame) -> dict[str, Any]:
    """From the baseline, over the seeds that both have, with the paired interval; or why there is none."""
    mine, theirs = scores[name], scores.get(baseline, {})
    seeds = [seed for seed in mine if seed in theirs]
    note = None
    if name == baseline or not mine:
        seeds = []
    elif not baseline:
        note = "the suite names no baseline"
    elif baseline not in scores:
        note = f"no difference: the baseline {baseline} was not run here"
    elif not theirs:
        why = listed(column.loc[column["encoding"] == baseline, "why"])
        note = f"no difference: the baseline {baseline} has no score here ({why})"
    elif not seeds:
        note = f"no difference: no seed that the baseline {baseline} has as well"
    elif len(seeds) < max(len(mine), len(theirs)):
        note = f"difference over {plural(len(seeds), 'seed')} that the baseline {baseline} has as well"
        note += ": no interval" if len(seeds) == 1 else ""
    differences = [mine[seed] - theirs[seed] for seed in seeds]
    result = interval(differences)
    return {
        "pairs": len(seeds),
        "difference": result.mean,
        "difference_sd": result.sd,
        "p": result.p,
        "p_holm": math.nan,
        "differences": " ".join(map(repr, differences)),
        "p_flips": claims.sign_flips(differences),
        "p_skewed": claims.skewed_p([mine[seed] for seed in seeds], [theirs[seed] for seed in seeds]),
        "lacking": _lacking(name, baseline, column) if seeds else "",
        "at_floor": False,
        "baseline_note": note,
        "difference_low": result.low,
        "difference_high": result.high,
    }


def _lacking(name: str, baseline: Any, column: pd.DataFrame) -> str:
    """The seeds of an encoding and of the baseline that have no score, but for those that the machine lost; or "".

    Diverged and failed seeds are the worst of a comparison: what is left of it would claim too much.
    """
    if not column["value"].isna().any():
        return ""
    both = column[column["encoding"].isin([name, baseline]) & column["value"].isna()]
    gone = both[both["cause"] != MACHINE]
    parts = (
        f"{encoding} seed{'s' * (len(rows) > 1)} {listed(sorted(rows['seed']))} ({listed(rows['why'].dropna())})"
        for encoding, rows in gone.groupby("encoding", sort=False)
    )
    return "; ".join(parts)


def references(records: Iterable[Record], manifest: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """The trivial scores (such as a unigram model's) that cells recorded, for each group of cells."""
    records = list(records)
    by_id = variants(manifest["cells"] if manifest else records)
    rows = [
        {**coordinates(record["config"]), "variant": by_id.get(record["id"], ""), "name": name, "value": value}
        for record in records
        for name, value in (record.get("baselines") or {}).items()
        if is_number(value)
    ]
    frame = pd.DataFrame(rows, columns=[*GROUP, "name", "value"])
    return frame.groupby([*GROUP, "name"], dropna=False, sort=False, as_index=False)["value"].mean()


def cost_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What each encoding cost: means over its finished cells, and the largest memory."""
    done = frame[frame["status"] == "done"].drop_duplicates("id")
    numbers = [name for name in CELL_FIELDS if name in (*_MEANS, "peak_memory_bytes")]
    done = done.assign(**{name: pd.to_numeric(done[name]) for name in numbers}, cells=1)
    rules = {"package": _each, "cells": "sum", **dict.fromkeys(_MEANS, "mean"), "peak_memory_bytes": "max"}
    return done.groupby([*GROUP, "encoding", "label"], dropna=False, sort=False, as_index=False).agg(rules)


def _each(values: pd.Series[Any]) -> str:
    return listed(values.dropna())


_MEANS = ("parameters", "positional_parameters", "flops_per_token", "tokens_seen", "tokens_per_second", "seconds")


def configuration_differences(records: Iterable[Mapping[str, Any]], baseline: str) -> pd.DataFrame:
    """Where a cell's configuration differs from its baseline's, the encoding apart: no rows is a fair comparison.

    A cell that has no baseline cell of the same task, attention, length and seed has a row with an empty key.
    """
    cells = list(records)
    by_id = variants(cells)
    described = [
        ({**coordinates(cell["config"]), "variant": by_id[cell["id"]]}, flat(cell["config"])) for cell in cells
    ]
    fields = [*GROUP, "seed"]
    theirs = {
        tuple(place[field] for field in fields): config for place, config in described if place["encoding"] == baseline
    }
    rows: list[dict[str, Any]] = []
    for place, config in described:
        if place["encoding"] == baseline:
            continue
        other = theirs.get(tuple(place[field] for field in fields))
        # Its parent is the same task's cell of the same encoding: another wherever the encoding is.
        apart = ("encoding", "parent")
        keys = [""] if other is None else [key for key in {**other, **config} if not is_key(key, apart)]
        for key in keys:
            pair = (config.get(key), (other or {}).get(key))
            if other is None or repr(pair[0]) != repr(pair[1]):
                rows.append({**place, "key": key, "value": pair[0], "baseline_value": pair[1]})
    return pd.DataFrame(rows, columns=[*fields, "encoding", "key", "value", "baseline_value"])


def decays(records: Iterable[Record], manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured of decay by distance, for each cell of the theory task that has it."""
    named = labels(manifest["cells"])
    found = []
    for record in records:
        for score in record.get("scores") or []:
            details = score.get("details") or {}
            if score["split"] == "theory" and details.get("distances"):
                place = {**coordinates(record["config"]), "variant": ""}
                found.append({"id": record["id"], "label": named[record["id"]], "place": place, **details})
    # A seed more would be the same curve: the first of each encoding is drawn.
    return list({dig(one, ("place", "encoding")): one for one in reversed(found)}.values())[::-1]


def at_trained(summary: pd.DataFrame) -> list[list[dict[str, Any]]]:
    """For each group of cells its rows in the main metric at the trained length, of the task's first split."""
    main = summary[summary["main"].astype(bool) & (summary["evaluated"] == summary["length"])]
    groups = [rows.to_dict("records") for _, rows in main.groupby(GROUP, dropna=False, sort=False)]
    return [[row for row in rows if row["split"] == rows[0]["split"]] for rows in groups]


def at_place(frame: pd.DataFrame, place: dict[str, Any]) -> pd.DataFrame:
    """The rows of one group of cells."""
    for key in GROUP:
        frame = frame[frame[key].isna() if place[key] is None else frame[key] == place[key]]
    return frame
