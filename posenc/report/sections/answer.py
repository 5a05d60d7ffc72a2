"""The answer first: which encoding, by how much, how surely, at what cost, and what may not be concluded."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from posenc.api.blocks import Aside, Block, Card, Group, Heading, List, Note, Paragraph, Table
from posenc.api.sections import ReportSection, Section
from posenc.records.record import is_number
from posenc.report import words
from posenc.report.facts import Dataset
from posenc.report.figures import forests, overview, positions
from posenc.report.figures import ranks as diagrams
from posenc.report.figures import trade as trades
from posenc.report.places import Key, group_title, key_of
from posenc.report.results import BARRED, TESTED, barred, p_words, too_few
from posenc.report.statistics.claims import FIRST, LEVEL, verdict
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM, seeds_needed
from posenc.report.statistics.ranks import TASKS, above_floor, ranked
from posenc.report.statistics.tables import COLUMN, GROUP, at_place, at_trained
from posenc.report.statistics.trade import trade
from posenc.report.view import View

IN_LEDGER = "What this suite tests stands in its ledger of claims; what follows is described, and not claimed."

PLACES = (
    "Mean over seeds and over the targets at that place; band: 95 % interval. A window's first places have little"
    " before them, whatever its length."
)


class TheAnswer(ReportSection):
    name = "answer"
    order = 10

    def make(self, view: View) -> Section:
        """A headline, a card for each group of cells, and what may not be concluded."""
        suite, cells = view.manifest["suite"], view.manifest["cells"]
        found = answer(view.summary, view.items, view.cost, view.data, suite, cells, in_seconds(view.timed))
        said = IN_LEDGER if view.manifest.get("claims") else found.headline
        blocks: list[Block] = [Paragraph(said, "headline")]
        blocks += _at_once(view)
        if pictures := forests.overview(chosen_rows(view.summary), view.looks):
            blocks.append(Group(tuple(map(view.figure, pictures))))
        if found.findings:
            blocks.append(Group(tuple(map(_card, found.findings)), "findings"))
        if by_length := [(one.title, *row) for one in found.findings for row in one.lengths]:
            blocks += [
                Heading("By length"),
                Note(
                    "The same models at each length at which they were scored. The suite names the trained one alone."
                    " Furthest: the encoding that differs most from the baseline there, whichever it is; it is"
                    " described, not claimed."
                ),
                Table(
                    ("cells", "at", "scores", "difference", "furthest"), tuple(by_length), title="Differences by length"
                ),
            ]
        if pictures := positions.loss_by_position(view.positions, view.looks):
            blocks += [Heading("Loss by position"), Note(PLACES), Group(tuple(map(view.figure, pictures)))]
        if found.cautions:
            blocks += [Heading("What may not be concluded"), List(found.cautions, "cautions")]
        return Section("The answer", tuple(blocks), link="Answer")


def _at_once(view: View) -> Iterable[Block]:
    """All encodings at once: by group of cells, against their cost, ranked over tasks."""
    yield from map(view.figure, overview.heat_map(view.summary))
    groups = at_trained(view.summary)
    rows = trade(groups, view.cost, view.timed)
    if pictures := trades.cost_against_quality(rows, view.looks):
        yield Heading("Cost against quality")
        yield Note(trades.said(rows))
        look = "multiples" if len(pictures) > trades.WIDE else "figures"
        yield Group(tuple(map(view.figure, pictures)), look)
    tasks = len({rows[0]["task"] for rows in above_floor(groups)})
    if found := ranked(groups):
        labels = {row["encoding"]: str(row["label"]) for rows in groups for row in rows}
        yield view.figure(diagrams.critical_differences(found, labels, view.looks))
    elif tasks > 1:
        had = f"there are {tasks}" if tasks < TASKS else "too few encodings have a score on all of them"
        yield Note(
            f"Mean ranks over tasks (Friedman's test, Nemenyi's critical difference) need {TASKS} tasks above the floor"
            f" with the same encodings: {had}."
        )


def _card(finding: Finding) -> Card:
    said: list[Paragraph | Note] = [Paragraph(finding.score)]
    if finding.difference:
        aside = " difference" + (", 95 % interval" if "\u00b1" in finding.difference else "")
        said.append(Paragraph((finding.difference, Aside(aside)), "big"))
    said.append(Note(" ".join(finding.surely)))
    if finding.cost:
        said.append(Note(f"Cost: {finding.cost}."))
    return Card(finding.title, tuple(said), (finding.verdict,), "finding", finding.verdict.replace(" ", "-"))


@dataclass(frozen=True)
class Finding:
    """What the runs say of one group of cells.

    Attributes:
        verdict: one of `claims.VERDICTS`. score: `rope 2.809, sinusoidal 3.158 bits per character (lower is better)`.
        difference: with its interval. surely: how surely. cost: of the encoding beside the baseline's.
        pairs: seeds that both have. ahead: whether the difference is for the better.
        lengths: where there is more than one, (evaluated length, scores, difference there, who is furthest) each.
    """

    place: dict[str, Any]
    title: str
    verdict: str
    score: str
    difference: str
    surely: tuple[str, ...]
    cost: str
    pairs: int = 0
    ahead: bool = False
    lengths: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    headline: str
    findings: tuple[Finding, ...]
    cautions: tuple[str, ...]


def chosen_rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """For each group of cells the row that answers: what the suite names, else the best mean but the baseline's.

    A row has in `theirs` the baseline's mean, and in `best_label` the encoding with the best mean of all.
    """
    rows = []
    main = summary[summary["main"].astype(bool) & (summary["evaluated"] == summary["length"])]
    for _, group in main.groupby(GROUP, dropna=False, sort=False):
        column = group[group["split"] == group["split"].iloc[0]]
        scored = column[column["n"] > 0]
        if scored.empty:
            continue
        best = scored["mean"].idxmin() if scored["better"].iloc[0] == "lower" else scored["mean"].idxmax()
        named = column[column["named"].astype(bool)]
        others = scored[scored["encoding"] != scored["baseline"]]
        if len(named):
            row = named.iloc[0]
        elif len(others):
            theirs = others["mean"]
            row = others.loc[theirs.idxmin() if scored["better"].iloc[0] == "lower" else theirs.idxmax()]
        else:
            row = scored.iloc[0]
        base = scored[scored["encoding"] == row["baseline"]]
        extra = {
            "theirs": base["mean"].iloc[0] if len(base) else math.nan,
            "theirs_label": base["label"].iloc[0] if len(base) else str(row["baseline"] or ""),
            "best_label": scored.loc[best, "label"],
            "scored": len(scored),
            "decimals": words.decimals_for(column["mean"]),
        }
        rows.append({**row.to_dict(), **extra})
    return rows


def in_seconds(timed: pd.DataFrame) -> set[Key]:
    """The groups whose curves are by seconds (see `equal_cost.timed`)."""
    groups = timed.loc[timed["unit"] == "s", [*GROUP]].drop_duplicates() if len(timed) else timed
    return {key_of(row) for row in groups.to_dict("records")}


def answer(
    summary: pd.DataFrame,
    items: pd.DataFrame,
    cost: pd.DataFrame,
    data: Iterable[Dataset],
    suite: Mapping[str, Any],
    cells: Iterable[Mapping[str, Any]],
    by_clock: Container[Key] = (),
) -> Answer:
    """The answer of a whole suite.

    Args:
        by_clock: groups whose cells ran alone, with seeds that agree: their times tell of them.
    """
    costs = {(key_of(row), row["encoding"]): row for row in cost.to_dict("records")}
    by_items = {tuple(row[name] for name in (*COLUMN, "encoding")): row for row in items.to_dict("records")}
    rows = chosen_rows(summary)
    findings = tuple(
        _finding(row, by_items.get(tuple(row[name] for name in (*COLUMN, "encoding"))), costs, summary, by_clock)
        for row in rows
    )
    return Answer(_headline(findings, suite), findings, tuple(_cautions(rows, findings, data, suite, cells)))


def _finding(
    row: dict[str, Any], item: Mapping[str, Any] | None, costs: Mapping[tuple[Key, Any], Any], summary: pd.DataFrame,
    by_clock: Container[Key],
) -> Finding:  # fmt: skip
    decimals, label, baseline = row["decimals"], str(row["label"]), row["theirs_label"]
    better = words.which_is_better(row["better"])
    scores = [f"{label} {words.number(row['mean'], decimals)}"]
    if row["encoding"] != row["baseline"] and is_number(row["theirs"]):
        scores.append(f"{baseline} {words.number(row['theirs'], decimals)}")
    difference = ""
    if row["pairs"]:
        half = (row["difference_high"] - row["difference_low"]) / 2
        difference = words.with_half_width(row["difference"], half, decimals, signed=True)
        difference += "" if is_number(half) else ", no interval"
    return Finding(
        place={key: row[key] for key in GROUP},
        title=group_title(row),
        verdict=verdict(row),
        score=f"{', '.join(scores)} ({row['title']}{better})",
        difference=difference,
        surely=tuple(_surely(row, item)),
        cost=_cost(row, costs, by_clock),
        pairs=int(row["pairs"]),
        ahead=(row["difference"] < 0) == (row["better"] == "lower"),
        lengths=tuple(_lengths(row, summary)),
    )


def _lengths(row: Mapping[str, Any], summary: pd.DataFrame) -> Iterable[tuple[str, str, str, str]]:
    """The difference at each length at which the same models were scored, and the largest of any encoding there."""
    same = at_place(summary, dict(row))
    same = same[(same["split"] == row["split"]) & (same["metric"] == row["metric"])]
    mine = same[same["encoding"] == row["encoding"]].sort_values("evaluated")
    theirs = same[same["encoding"] == row["baseline"]].set_index("evaluated")["mean"]
    if len(mine) < 2 or row["encoding"] == row["baseline"]:
        return
    for one in mine.to_dict("records"):
        pair = [(row["label"], one["mean"]), (row["theirs_label"], theirs.get(one["evaluated"]))]
        scores = ", ".join(
            f"{label} {words.number(value, row['decimals'])}" for label, value in pair if is_number(value)
        )
        apart = _apart(one, row["decimals"])
        if not one["pairs"]:
            apart = next((one[key] for key in ("why", "baseline_note") if isinstance(one[key], str)), "\u2013")
        trained = " (trained)" if one["evaluated"] == one["length"] else ""
        others = same[(same["evaluated"] == one["evaluated"]) & (same["encoding"] != row["baseline"])]
        known = [each for each in others.to_dict("records") if is_number(each["difference"])]
        far = max(known, key=lambda each: abs(each["difference"]), default=None)
        furthest = f"{far['label']} {_apart(far, row['decimals'])}" if far else "\u2013"
        yield f"{one['evaluated']:,}{trained}", scores, apart, furthest


def _apart(row: Mapping[str, Any], decimals: int) -> str:
    """The difference from the baseline, with half of its interval."""
    half = (row["difference_high"] - row["difference_low"]) / 2
    return words.with_half_width(row["difference"], half, decimals, signed=True)


def _surely(row: Mapping[str, Any], item: Mapping[str, Any] | None) -> Iterable[str]:
    """How surely, a sentence a reason."""
    pairs, found = int(row["pairs"]), verdict(row)
    if not pairs:
        told = [row[key] for key in ("baseline_note", "why") if isinstance(row[key], str)]
        yield (told[0] if told else "Nothing to hold against the baseline was run here").rstrip(".") + "."
        return
    yield f"Over {words.plural(pairs, 'seed')}, paired" + ("." if pairs > 1 else ": no interval.")
    if found in TESTED:
        yield f"{p_words(row)} over the comparisons that the suite names."
    if found in BARRED:
        sentence = barred(found, row)
        yield sentence[0].upper() + sentence[1:]
    if found == "too few seeds":
        yield too_few(pairs)
    if pairs > 1 and found in ("too few seeds", "not told apart", "described"):
        needed = seeds_needed(row["difference"], row["difference_sd"], FIRST * LEVEL)
        yield (
            f"If the difference and its spread are as observed, a run of {needed} fresh seeds would find it four times"
            " in five."
            if needed
            else "A difference of the observed size needs more than 1,000 fresh seeds to be found."
        )
    if item is not None and is_number(item["item_low"]):
        yield item_words(item, row["decimals"]) + "."
        if found in ("better", "worse") and item["item_low"] <= 0 <= item["item_high"]:
            yield "That interval holds nought: on other items the difference might not be there."
    elif item is not None and item["why"]:
        yield f"No interval over test items: {item['why']}."
    if row["scored"] > 2:
        word = "lowest" if row["better"] == "lower" else "highest"
        yield f"Of {row['scored']} encodings {row['best_label']} has the {word} mean, which is no claim."


def item_words(item: Mapping[str, Any], decimals: int) -> str:
    """The test items' own sampling error, and McNemar's test where items are right or wrong."""
    low, high = (words.number(item[key], decimals, signed=True) for key in ("item_low", "item_high"))
    text = f"Had other test items been drawn ({item['items']:,} of them, the seeds as they are): {low} to {high}"
    if item["mcnemar"]:
        mine, theirs = (sum(test[index] for test in item["mcnemar"]) for index in (1, 2))
        largest = max(test[3] for test in item["mcnemar"])
        seeds = len(item["mcnemar"])
        text += f"; items that one alone got right: {mine:,} to {theirs:,}"
        text += f" over {words.plural(seeds, 'seed')}, the largest p of a seed" if seeds > 1 else ", p"
        text += f" {words.p_value(largest)} (McNemar, exact)"
    return text


def _cost(row: Mapping[str, Any], costs: Mapping[tuple[Key, Any], Any], by_clock: Container[Key]) -> str:
    mine, theirs = costs.get((key_of(row), row["encoding"])), costs.get((key_of(row), row["baseline"]))
    if not mine or not theirs or row["encoding"] == row["baseline"]:
        return ""
    parts = []
    work = ("time a cell", "seconds") if key_of(row) in by_clock else ("FLOPs a token", "flops_per_token")
    for name, field in (work, ("peak memory", "peak_memory_bytes")):
        if is_number(mine[field]) and is_number(theirs[field]) and theirs[field] > 0:
            parts.append(f"{name} {words.times(mine[field] / theirs[field])} the baseline's")
    if is_number(mine["parameters"]) and is_number(theirs["parameters"]):
        more = round(mine["parameters"] - theirs["parameters"])
        parts.append(f"{abs(more):,} parameters {'more' if more >= 0 else 'fewer'}" if more else "as many parameters")
    return ", ".join(parts)


def _headline(findings: Iterable[Finding], suite: Mapping[str, Any]) -> str:
    findings = list(findings)
    found = [finding.verdict for finding in findings]
    claim, baseline = suite.get("claim"), suite.get("baseline")
    if not found:
        return "There are no scores to compare yet."
    if not claim or not baseline:
        return "This suite names no comparison, so nothing here is a claim: what was seen is described."
    counted = [
        (found.count(kind), text)
        for kind, text in (
            ("better", "better"),
            ("worse", "worse"),
            ("not told apart", "not told apart"),
            ("seeds missing", "no claim, as seeds are missing,"),
            ("tests disagree", "no claim, as tests disagree,"),
            ("no spread, no test", "without a spread, so no claim,"),
            ("at the floor", "at the floor"),
            ("no comparison", "no comparison"),
            ("described", f"{claim} not run"),
        )
    ]
    few = [finding for finding in findings if finding.verdict == "too few seeds"]
    ahead = sum(finding.ahead for finding in few)
    seen = [(ahead, "observed to be better"), (len(few) - ahead, "observed to be worse")]
    said = "; ".join(f"{text} in {number} of {len(found)}" for number, text in (*seen, *counted) if number)
    if few:
        said += f" (not yet a claim: {min(finding.pairs for finding in few)} of {SEEDS_FOR_A_CLAIM} seeds)"
    return f"{claim} against {baseline}, the comparison that this suite names: {said}."


def _cautions(
    rows: list[dict[str, Any]],
    findings: Iterable[Finding],
    data: Iterable[Dataset],
    suite: Mapping[str, Any],
    cells: Iterable[Mapping[str, Any]],
) -> Iterable[str]:
    """What may not be concluded, from what was and was not done."""
    if not rows:
        return
    configs = [cell["config"] for cell in cells]
    few = sorted({int(row["pairs"]) for row in rows if 0 < row["pairs"] < SEEDS_FOR_A_CLAIM})
    if few:
        seeds = words.listed(few)
        yield (
            f"That one encoding is better than another, where {seeds} {'seed was' if few == [1] else 'seeds were'} run:"
            " a claim needs five, and a comparison that the suite names."
        )
    if any(finding.verdict == "not told apart" for finding in findings):
        yield "That two encodings are equal where they are not told apart: these runs could not tell, which is less."
    if len({config["encoding"]["name"] for config in configs}) > 2:
        yield "That the best of many means is the best encoding: of more encodings, chance lifts the best one further."
    if any("generated" in warning for one in data for warning in one.warnings):
        names = words.listed(one.name for one in data if any("generated" in warning for warning in one.warnings))
        yield f"Anything of natural text from {names}: it was made by code."
    if partial := words.listed(w for one in data for w in one.warnings if w.startswith("only")):
        yield f"What the whole data would show: {partial} were read."
    scale = str(suite.get("scale") or "")
    if scale in ("smoke", "small"):
        yield f"That larger models or longer training would rank them alike: this is scale {scale}."
    lengths = {(config["task"], config["length"]) for config in configs}
    if len(lengths) == len({task for task, _ in lengths}):
        yield "What training at another length would give: each task was trained at one."
    if any(row["pairs"] for row in rows):
        yield (
            "That a difference is there because seeds were added until it was: a suite that gets seeds after its"
            " results were seen is judged at a stricter level."
        )
    yield "Which encoding is faster: the command posenc bench times them in turns."
