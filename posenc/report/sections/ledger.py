"""The ledger: each claim that the suite tests, who says so, the published figure, ours, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from posenc.api.blocks import Block, Cell, Details, List, Note, Paragraph, Sources, Table
from posenc.api.sections import ReportSection, Section
from posenc.records.record import is_number
from posenc.report import words
from posenc.report.statistics.ledger import CANNOT_TELL, HOLDS, NOT_AT_SCALE, NOT_YET, OPPOSITE, VERDICTS
from posenc.report.view import View

SAID = (
    "Each line was named before anything ran: two arms, paired by seed. Holds here and opposite here need five seeds"
    " and a paired t-test below 5 % after Holm over all lines that are tested at this scale, and for looks; the signs"
    " of the differences may not contradict it. Cannot tell is followed by the smallest true difference that so many"
    " seeds would find in four runs of five at the level that the line was held to. A published figure is of other"
    " data, models and units: set beside ours, it shows a direction."
)
HEAD = ("claim", "says so", "published", "here", "verdict")


class Ledger(ReportSection):
    name = "ledger"
    order = 5

    def make(self, view: View) -> Section | None:
        """One table of all claims, what each says in words, and the numbers as a file."""
        found = view.ledger
        if found.empty:
            return None
        rows = found.to_dict("records")
        blocks: list[Block] = [
            Paragraph(headline(rows), "headline"),
            Table(HEAD, tuple(_row(row) for row in rows), title="The ledger of claims", look="plain"),
            Note(SAID),
            Details("What each claim says", (List(tuple(_said(rows))),)),
            Sources(view.sources("tables/ledger.csv")),
        ]
        return Section("The ledger of claims", tuple(blocks), link="Ledger", files={"ledger": for_file(found)})


def headline(rows: Iterable[Mapping[str, Any]]) -> str:
    """`Of 12 lines: 3 hold here, 1 is opposite here, ...`."""
    rows = list(rows)
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in VERDICTS}
    told = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items() if count)
    return (
        f"Of {words.plural(len(rows), 'line')} in {words.plural(len({row['claim'] for row in rows}), 'claim')}: {told}."
    )


def _row(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    verdict = str(row["verdict"])
    texts = (line_of(row), f"{row['who']}, {row['paper']}, {row['where']}", published(row["published"]), ours(row))
    return (
        *(Cell(text, key=text) for text in texts),
        Cell(said(row), strong=verdict in (HOLDS, OPPOSITE), key=VERDICTS.index(verdict)),
    )


def line_of(row: Mapping[str, Any]) -> str:
    """A line of the ledger in words: `ALiBi beyond ...: alibi better than rope, at 4 times the trained length`."""
    if not isinstance(row["encoding"], str):
        return str(row["title"])
    if row["holds"] == "same":
        sense = f"within {row['margin']:g} of"
    else:
        sense = f"{row['holds']} than"
    text = f"{row['title']}: {row['encoding']} {sense} {row['baseline']}"
    if row["split"] not in (None, "", "test") and isinstance(row["split"], str):
        text += f", {row['split']}"
    if is_number(row["evaluated"]) and is_number(row["trained"]):
        text += f", trained at {row['trained']:,.0f}, scored at {row['evaluated']:,.0f}"
        if is_number(row["evaluated_theirs"]) and row["evaluated_theirs"] != row["evaluated"]:
            text += f" against {row['evaluated_theirs']:,.0f}"
    return text


def published(figures: Iterable[Mapping[str, Any]]) -> str:
    """The published figures with their source, and whether they were read second hand."""
    parts = []
    for one in figures:
        pair = [f"{one[key]:g}" for key in ("encoding", "baseline") if is_number(one[key])]
        text = f"{one['metric']}: {' against '.join(pair)}" if pair else ""
        text = ", ".join(part for part in (text, one["spread"], one["says"]) if part)
        parts.append(f"{text} ({one['source']}{'; second hand' if one['second_hand'] else ''})")
    return "; ".join(parts) or "\u2013"


def ours(row: Mapping[str, Any]) -> str:
    """Both means, the difference with its interval, and the seeds."""
    if not is_number(row["pairs"]) or not row["pairs"]:
        return "\u2013"
    decimals = words.decimals_for([row["mean"], row["mean_theirs"]])
    half = (row["difference_high"] - row["difference_low"]) / 2
    apart = words.with_half_width(row["difference"], half, decimals, signed=True)
    means = f"{words.number(row['mean'], decimals)} against {words.number(row['mean_theirs'], decimals)}"
    better = f", {row['better']} is better" if isinstance(row["better"], str) else ""
    return f"{row['metric_title']}{better}: {means}; difference {apart}, {words.plural(int(row['pairs']), 'seed')}"


def said(row: Mapping[str, Any]) -> str:
    """The verdict, and what it rests on."""
    verdict, why = str(row["verdict"]), str(row["why"] or "")
    if verdict in (HOLDS, OPPOSITE):
        return f"{verdict} (p {words.p_value(row['p_holm'])}, adjusted)"
    if verdict == CANNOT_TELL and not why:
        decimals = words.decimals_for([row["mean"], row["mean_theirs"]])
        smallest = words.number(row["smallest"], decimals)
        found = f"; {int(row['pairs'])} seeds would find {smallest}" if is_number(row["smallest"]) else ""
        return f"{verdict} (p {words.p_value(row['p_holm'])}, adjusted{found})"
    return f"{verdict}: {why}" if why and verdict in (CANNOT_TELL, NOT_YET, NOT_AT_SCALE) else verdict


def _said(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    known: dict[str, str] = {}
    for row in rows:
        text = f"{row['title']}. {row['who']}, {row['paper']}, {row['where']}: {row['says']}"
        if known.setdefault(row["claim"], text) is text:
            yield text


def for_file(found: pd.DataFrame) -> pd.DataFrame:
    """The ledger as a table of numbers and texts."""
    return found.assign(published=[published(figures) for figures in found["published"]])
