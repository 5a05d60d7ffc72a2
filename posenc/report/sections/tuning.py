"""What was tried for every encoding, what was taken, and how much the choice mattered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from posenc.api.blocks import Note, Sources, Table, titled
from posenc.api.sections import ReportSection, Section
from posenc.report import words
from posenc.report.places import group_title
from posenc.report.statistics.tables import GROUP
from posenc.report.view import View

SAID = (
    "Tried for every encoding alike, and chosen by the mean over all seeds on validation: the results above are of the"
    " values taken."
)


class Tuning(ReportSection):
    name = "tuning"
    order = 70

    def make(self, view: View) -> Section | None:
        """One table for each group of cells, where the suite tunes."""
        if view.tried.empty:
            return None
        blocks = (Note(SAID), *titled(_tables(view.tried)), Sources(view.sources("tables/tuning.csv")))
        return Section("Tuning", blocks, files={"tuning": view.tried})


def _tables(tuning: pd.DataFrame) -> Iterable[tuple[str, Table]]:
    """A table of what was tried for each group of cells: validation scores by value, the taken one marked."""
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
        title += words.which_is_better(better)
        yield title, Table(("encoding", *settings, "best to worst"), tuple(rows))


def _tried(row: Mapping[str, Any] | None, decimals: int) -> str:
    if row is None:
        return "not asked for"
    if not row["n"]:
        return "no score"
    text = words.with_half_width(row["mean"], (row["high"] - row["low"]) / 2, decimals)
    seeds = f" ({row['n']} of {words.plural(row['cells'], 'seed')})" if row["n"] < row["cells"] else ""
    return f"{text}{seeds}{', taken' if row['taken'] else ''}"
