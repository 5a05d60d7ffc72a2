"""What a report says, in words: made once from the tables, then laid out as HTML, Markdown, LaTeX or in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from posenc.report import words
from posenc.report.figures import at_place
from posenc.report.intervals import SEEDS_FOR_A_CLAIM
from posenc.report.places import group_title
from posenc.report.tables import GROUP


@dataclass(frozen=True)
class Entry:
    """What stands where an encoding's row meets an evaluated length's column."""

    score: str = ""
    difference: str = ""
    why: str = ""
    best: bool = False
    value: float | None = None


@dataclass(frozen=True)
class Row:
    """`label` is the encoding, behind the suite's own name for it where it has one."""

    label: str
    seeds: str
    entries: tuple[Entry, ...]
    baseline: bool = False


@dataclass(frozen=True)
class ResultTable:
    """The results of one group of cells in one metric."""

    task: str
    scale: str
    title: str
    metric: str
    trained: int
    lengths: tuple[int, ...]
    baseline: str
    best_word: str
    rows: tuple[Row, ...]
    references: tuple[tuple[str, str], ...]
    claims: tuple[str, ...]
    notes: tuple[str, ...]
    place: dict[str, Any]
    split: str
    main: bool
    data: str = ""


@dataclass(frozen=True)
class Grid:
    """A plain table of texts. `keys` are what its rows sort by, where the texts' first numbers do not tell."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...] = field(default=())
    keys: tuple[tuple[Any, ...], ...] = field(default=())

    @property
    def texts(self) -> tuple[bool, ...]:
        """Which columns hold words, mostly: those stand to the left, figures to the right."""
        return tuple(
            sum(words.is_wordy(row[index]) for row in self.rows) * 2 > len(self.rows) for index in range(len(self.head))
        )


def result_tables(summary: pd.DataFrame, references: pd.DataFrame, data: Mapping[Any, str]) -> list[ResultTable]:
    """A table for each group of cells and each metric, the task's main metric first."""
    keys = [*GROUP, "split", "metric"]
    groups = list(summary.groupby(keys, dropna=False, sort=False))
    groups.sort(key=lambda pair: not pair[1]["main"].any())  # a stable sort: groups keep their order
    tables = []
    for values, group in groups:
        place = dict(zip(keys, values, strict=True))
        label = data.get((place["task"], place["scale"]), "")
        tables.append(_result_table(place, group, at_place(references, place), label))
    return tables


def _result_table(place: dict[str, Any], group: pd.DataFrame, references: pd.DataFrame, data: str) -> ResultTable:
    lengths = sorted(set(group["evaluated"]))
    decimals = words.decimals_for(group["mean"])
    better = group["better"].iloc[0]
    best: dict[int, float] = {}
    if better in ("lower", "higher"):
        by_length = group.groupby("evaluated")["mean"]
        best = (by_length.min() if better == "lower" else by_length.max())[by_length.nunique() > 1].to_dict()
    baseline = group["baseline"].iloc[0] or ""
    rows = []
    for name, mine in group.groupby("encoding", sort=False):
        by_length = {row["evaluated"]: row for row in mine.to_dict("records")}
        entries = tuple(_entry(by_length.get(length), decimals, best.get(length)) for length in lengths)
        seeds = [str(by_length[length]["n"]) for length in lengths if length in by_length and by_length[length]["n"]]
        rows.append(Row(mine["label"].iloc[0], "/".join(dict.fromkeys(seeds)) or "0", entries, name == baseline))
    is_main = bool(group["main"].any())
    split = "" if place["split"] in (None, "test") else f" ({place['split']})"
    return ResultTable(
        task=place["task"],
        scale=place["scale"],
        title=group_title(place),
        metric=f"{group['title'].iloc[0]}{split}" + (f", {better} is better" if isinstance(better, str) else ""),
        trained=place["length"],
        lengths=tuple(lengths),
        baseline=baseline,
        best_word={"lower": "lowest mean", "higher": "highest mean"}.get(better, ""),
        rows=tuple(rows),
        references=_reference_scores(references, decimals) if is_main else (),
        claims=tuple(claims(group)) if is_main else (),
        notes=tuple(_notes(group)),
        place={key: place[key] for key in GROUP},
        split=str(place["split"]),
        main=is_main,
        data=data,
    )


def _reference_scores(references: pd.DataFrame, decimals: int) -> tuple[tuple[str, str], ...]:
    pairs = zip(references["name"], references["value"], strict=True)
    return tuple((str(name), words.number(value, decimals)) for name, value in pairs)


def _entry(row: Mapping[str, Any] | None, decimals: int, best: float | None) -> Entry:
    if row is None:
        return Entry(why="not asked for")
    if not row["n"]:
        return Entry(why=str(row["why"]))
    half, difference_half = (row["high"] - row["low"]) / 2, (row["difference_high"] - row["difference_low"]) / 2
    difference = ""
    if row["pairs"]:
        difference = words.with_half_width(row["difference"], difference_half, decimals, signed=True)
    elif row["encoding"] == row["baseline"]:
        difference = "baseline"
    score = words.with_half_width(row["mean"], half, decimals)
    return Entry(score, difference, best=row["mean"] == best, value=float(row["mean"]))


def _notes(group: pd.DataFrame) -> list[str]:
    """Every reason for fewer seeds or no difference, once, with the encodings and lengths it holds for."""
    notes: dict[str, list[tuple[str, int]]] = {}
    for row in group.to_dict("records"):
        for text in (row["note"], row["baseline_note"]):
            if isinstance(text, str):
                notes.setdefault(text, []).append((row["encoding"], row["evaluated"]))
    said = [f"{_where(places, group)}: {text}." for text, places in notes.items()]
    if (group["pairs"] >= SEEDS_FOR_A_CLAIM).any():
        said.append(
            "What was not named by the suite is described, not claimed: no interval here is adjusted for their number."
        )
    return said


def _where(places: list[tuple[str, int]], group: pd.DataFrame) -> str:
    lengths = {length for _, length in places}
    names = words.listed(name for name, _ in places)
    return names if lengths == set(group["evaluated"]) else f"{names} at {words.listed(sorted(lengths))}"


def claims(group: pd.DataFrame) -> list[str]:
    """What may be said of the comparison that the suite names; of too few seeds, only that they are few."""
    seeds = int(group["n"].max()) if len(group) else 0
    claim, baseline = (str(group[key].iloc[0] or "") for key in ("claim", "baseline"))
    named = group[group["named"].astype(bool)]
    if claim and baseline and named.empty and claim not in set(group["encoding"]):
        return [f"The suite names {claim} against {baseline}; {claim} was not run here."]
    said = []
    if not claim or not baseline:
        said.append("The suite names no comparison: what follows is described, not claimed.")
    for row in named.to_dict("records"):
        if row["pairs"] >= SEEDS_FOR_A_CLAIM and words.is_number(row["p_holm"]):
            said.append(
                f"The named comparison, at {row['evaluated']:,}: {claim} is {verdict(row)} {baseline}"
                f" (p {words.p_value(row['p_holm'])}, Holm-adjusted)."
            )
    compared = int((named if len(named) else group)["pairs"].max()) if len(group) else 0
    few = compared or seeds
    return [*said, too_few(few)] if 0 < few < SEEDS_FOR_A_CLAIM else said


def too_few(seeds: int) -> str:
    """What is said in place of a claim."""
    return f"{words.plural(seeds, 'seed')}: too few for a claim (five needed)."


def verdict(row: Mapping[str, Any]) -> str:
    """How the claim came out against the baseline, of a comparison that was tested."""
    if row["p_holm"] >= 0.05:
        return "not told apart from"
    return "better than" if (row["difference"] < 0) == (row["better"] == "lower") else "worse than"


def cost_grids(cost: pd.DataFrame) -> list[tuple[str, Grid]]:
    """A table of costs for each group of cells."""
    head = ("encoding", "parameters", "of these positional", "FLOPs a token", "tokens seen", "tokens/s", "time a cell",
            "peak memory", "cells")  # fmt: skip
    grids = []
    for values, group in cost.groupby(GROUP, dropna=False, sort=False):
        rows = [
            (
                str(row["label"]),
                words.count(row["parameters"]),
                words.count(row["positional_parameters"]),
                words.short_count(row["flops_per_token"]),
                words.short_count(row["tokens_seen"]),
                words.short_count(row["tokens_per_second"]),
                words.duration(row["seconds"]),
                words.size_in_bytes(row["peak_memory_bytes"]),
                str(row["cells"]),
            )
            for row in group.to_dict("records")
        ]
        fields = ("label", "parameters", "positional_parameters", "flops_per_token", "tokens_seen", "tokens_per_second",
                  "seconds", "peak_memory_bytes", "cells")  # fmt: skip
        keys = tuple(tuple(row[field] for field in fields) for row in group.to_dict("records"))
        grids.append((group_title(dict(zip(GROUP, values, strict=True))), Grid(head, tuple(rows), keys)))
    return grids


def time_grids(found: pd.DataFrame, baseline: str) -> list[tuple[str, Grid]]:
    """Validation scores at equal steps and at equal wall-clock, for each group of cells."""
    grids = []
    for place, group in found.groupby(GROUP, dropna=False, sort=False):
        decimals = words.decimals_for(group["at_end"])
        better = group["better"].iloc[0]
        title = f"{group_title(dict(zip(GROUP, place, strict=True)))}: validation {group['title'].iloc[0]}"
        title += f", {better} is better" if isinstance(better, str) else ""
        limit = words.duration(group["limit"].iloc[0])
        head = ["encoding", "training time", "at equal steps", f"after {limit}"]
        rows = []
        for row in group.to_dict("records"):
            texts = [str(row["label"]), words.duration(row["seconds"])]
            texts.append(words.with_half_width(row["at_end"], row["at_end_half"], decimals))
            in_time = words.with_half_width(row["in_time"], row["in_time_half"], decimals)
            texts.append(in_time if row["n"] else str(row["why"]))
            if baseline:
                apart = words.with_half_width(row["difference"], row["difference_half"], decimals, signed=True)
                texts.append("baseline" if row["encoding"] == baseline else apart if row["pairs"] else "\u2013")
            rows.append(tuple(texts))
        if baseline:
            head.append(f"difference from {baseline} then")
        keys = tuple(
            (row["label"], row["seconds"], row["at_end"], row["in_time"], row["difference"])[: len(head)]
            for row in group.to_dict("records")
        )
        grids.append((title, Grid(tuple(head), tuple(rows), keys)))
    return grids


def tuning_grids(tuning: pd.DataFrame) -> list[tuple[str, Grid]]:
    """A table of what was tried for each group of cells: validation scores by value, the taken one marked."""
    grids = []
    for place, group in tuning.groupby(GROUP, dropna=False, sort=False):
        settings = list(dict.fromkeys(group["setting"]))
        decimals = words.decimals_for(group["mean"])
        better = next((value for value in group["better"] if isinstance(value, str)), "")
        metric = next((value for value in group["title"] if isinstance(value, str)), "score")
        rows = []
        for label, mine in group.groupby("label", sort=False):
            by_setting = {row["setting"]: row for row in mine.to_dict("records")}
            spread = mine["mean"].max() - mine["mean"].min()
            texts = [_tried(by_setting.get(setting), decimals) for setting in settings]
            rows.append((str(label), *texts, words.number(spread, decimals)))
        title = f"{group_title(dict(zip(GROUP, place, strict=True)))}: validation {metric}"
        title += f", {better} is better" if better else ""
        grids.append((title, Grid(("encoding", *settings, "best to worst"), tuple(rows))))
    return grids


def _tried(row: Mapping[str, Any] | None, decimals: int) -> str:
    if row is None:
        return "not asked for"
    if not row["n"]:
        return "no score"
    text = words.with_half_width(row["mean"], (row["high"] - row["low"]) / 2, decimals)
    seeds = f" ({row['n']} of {words.plural(row['cells'], 'seed')})" if row["n"] < row["cells"] else ""
    return f"{text}{seeds}{', taken' if row['taken'] else ''}"


def unscored(summary: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The metrics that some finished cells do not have at one length: where, at which length, why."""
    empty = summary[(summary["n"] == 0) & summary["main"].astype(bool)]
    done = summary[summary["n"] > 0]
    partly = empty.merge(done[[*GROUP, "encoding"]].drop_duplicates(), on=[*GROUP, "encoding"])
    return [
        (f"{row['encoding']}, {group_title(row)}", f"{row['evaluated']:,}", str(row["why"]))
        for row in partly.to_dict("records")
    ]


def different_configurations(differences: pd.DataFrame) -> list[tuple[str, str]]:
    """What differs beside the encoding, and in which cells."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in differences.to_dict("records"):
        text = f"{row['key']} is {row['value']}, the baseline's {row['baseline_value']}"
        text = text if row["key"] else "no baseline cell to hold it against"
        where = f"{row['encoding']} ({group_title(row)}"
        found.setdefault(text, {}).setdefault(where, []).append(str(row["seed"]))
    return [
        (text, "; ".join(f"{where}, seed {words.listed(seeds)})" for where, seeds in places.items()))
        for text, places in found.items()
    ]
