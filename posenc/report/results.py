"""The results in words, made once from the tables: then laid out on the pages, in LaTeX or in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from posenc.records.record import MEASURED, NOT_RUN_YET
from posenc.report import words
from posenc.report.places import group_title
from posenc.report.statistics import claims as rule
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM
from posenc.report.statistics.tables import GROUP, at_place


@dataclass(frozen=True)
class Entry:
    """What stands where an encoding's row meets an evaluated length's column. `floor`: no better than with no model."""

    score: str = ""
    difference: str = ""
    why: str = ""
    best: bool = False
    value: float | None = None
    floor: bool = False


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

    @property
    def has_run(self) -> bool:
        """Whether any of its cells has ended."""
        return any(entry.score or entry.why != NOT_RUN_YET for row in self.rows for entry in row.entries)


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
        metric=f"{group['title'].iloc[0]}{split}" + words.which_is_better(better),
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
    # None: there is no floor, or it is not known.
    best_here = row["mean"] == best and row.get("above") is not False
    return Entry(score, difference, best=best_here, value=float(row["mean"]), floor=row.get("above") is False)


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
    if len(group) and group["split"].iloc[0] == "theory":
        return ["This follows from definitions: it is measured, and never claimed."]
    if len(group) and group["split"].iloc[0] in MEASURED:
        return ["This describes models: it is measured, and never claimed."]
    seeds = int(group["n"].max()) if len(group) else 0
    claim, baseline = (str(group[key].iloc[0] or "") for key in ("claim", "baseline"))
    named = group[group["named"].astype(bool)]
    if claim and baseline and named.empty and claim not in set(group["encoding"]):
        return [f"The suite names {claim} against {baseline}; {claim} was not run here."]
    said = []
    if not claim or not baseline:
        said.append("The suite names no comparison of these: what follows is described, not claimed.")
    for row in named.to_dict("records"):
        where, found = f"The named comparison, at {row['evaluated']:,}", rule.verdict(row)
        if found in TESTED:
            sense = {"better": "better than", "worse": "worse than"}.get(found, "not told apart from")
            said.append(f"{where}: {claim} is {sense} {baseline} ({p_words(row)}).")
        if found in BARRED:
            said.append(f"{where}: {barred(found, row)}")
    compared = int((named if len(named) else group)["pairs"].max()) if len(group) else 0
    few = compared or seeds
    return [*said, too_few(few)] if 0 < few < SEEDS_FOR_A_CLAIM else said


TESTED = ("better", "worse", "not told apart")
BARRED = ("tests disagree", "at the floor", "seeds missing", "no spread, no test")


def p_words(row: Mapping[str, Any]) -> str:
    """The p of a claim, and for what it allows."""
    after = int(row["looks"]) - 1
    looks = f", and for seeds added after {words.plural(after, 'look')}" if after else ""
    return f"p {words.p_value(row['p_holm'])}, paired t, adjusted by Holm{looks}"


def barred(found: str, row: Mapping[str, Any]) -> str:
    """Why a comparison with seeds enough is no claim, a sentence."""
    if found == "at the floor":
        floor = words.number(row["floor"], words.decimals_for([row["mean"], row["floor"]]))
        return f"at the floor: neither is above {row['floor_name']} ({floor}), so this says nothing of encodings."
    if found == "seeds missing":
        return f"no claim, as seeds are missing: {row['lacking']}."
    if found == "tests disagree":
        return f"no claim: the paired t-test finds a difference ({p_words(row)}), but not {rule.disagrees(row)}."
    return "the differences are the same in every seed: without a spread there is no test, and no claim."


def too_few(seeds: int) -> str:
    """What is said in place of a claim."""
    return f"Not yet a claim: {seeds} of {SEEDS_FOR_A_CLAIM} seeds."
