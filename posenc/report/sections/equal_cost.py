"""Scores at equal steps and at equal cost: time, or FLOPs where times do not tell of the encodings alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import pandas as pd

from posenc.api.blocks import Note, Sources, Table, keyed, titled
from posenc.api.sections import ReportSection, Section
from posenc.report import words
from posenc.report.places import group_title
from posenc.report.statistics.equal_cost import equal_cost
from posenc.report.statistics.tables import GROUP
from posenc.report.view import View

SAID = (
    "Validation at the end of training (equal steps), and what each encoding had reached when the cheapest of its group"
    " had done all its steps, on straight lines between validations. As good as the baseline: how much of its"
    " training, in tokens, each needs until its best validation is the baseline's best."
)
TIMED = "Cost is training time: no two cells ran at once, and the seeds of each encoding agree within 10 %."
COUNTED = (
    "Cost is the FLOPs of the forward passes where cells ran beside others or the times of seeds differ by over 10 %:"
    " such times tell of the machine. the command posenc bench times encodings in turns."
)


class EqualCost(ReportSection):
    name = "time"
    order = 60

    def make(self, view: View) -> Section | None:
        """One table for each group of cells with two encodings or more."""
        baseline = view.suite["baseline"]
        found = equal_cost(view.timed, baseline)
        if found.empty:
            return None
        said = " ".join(text for text, unit in ((TIMED, "s"), (COUNTED, "FLOPs")) if (found["unit"] == unit).any())
        blocks = (Note(f"{SAID} {said}"), *titled(_tables(found, baseline)), Sources(view.sources("tables/time.csv")))
        return Section("At equal cost", blocks, link="Cost of a score", files={"time": found})


def _tables(found: pd.DataFrame, baseline: str) -> Iterable[tuple[str, Table]]:
    """Validation scores at equal steps and at equal cost, for each group of cells."""
    for place, group in found.groupby(GROUP, dropna=False, sort=False):
        decimals = words.decimals_for(group["at_end"])
        better = group["better"].iloc[0]
        title = f"{group_title(dict(zip(GROUP, place, strict=True)))}: validation {group['title'].iloc[0]}"
        title += words.which_is_better(better)
        in_time = group["unit"].iloc[0] == "s"
        shown = words.duration if in_time else words.flops
        limit = shown(group["limit"].iloc[0])
        head = ["encoding", "training time" if in_time else "FLOPs", "at equal steps", f"after {limit}"]
        rows = []
        for row in group.to_dict("records"):
            texts = [str(row["label"]), shown(row["cost"])]
            texts.append(words.with_half_width(row["at_end"], row["at_end_half"], decimals))
            then = words.with_half_width(row["in_time"], row["in_time_half"], decimals)
            texts.append(then if row["n"] else str(row["why"]))
            if baseline:
                apart = words.with_half_width(row["difference"], row["difference_half"], decimals, signed=True)
                texts.append("baseline" if row["encoding"] == baseline else apart if row["pairs"] else "\u2013")
                texts.append(_needed(row))
            rows.append(tuple(texts))
        if baseline:
            head += [f"difference from {baseline} then", f"as good as {baseline} after"]
        keys = [
            (row["label"], row["cost"], row["at_end"], row["in_time"], row["difference"], row["share"])[: len(head)]
            for row in group.to_dict("records")
        ]
        yield title, Table(tuple(head), tuple(map(keyed, rows, keys)))


def _needed(row: dict[Hashable, Any]) -> str:
    """The share of the baseline's training, and in how many seeds it is ever enough."""
    if not row["seeds"]:
        return "\u2013"
    if not row["caught_up"]:
        return "never"
    share = words.with_half_width(100 * row["share"], 100 * row["share_half"], 0) + " %"
    return share if row["caught_up"] == row["seeds"] else f"{share} ({row['caught_up']} of {row['seeds']} seeds)"
