"""Does the order of encodings change along what the suite varies?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from posenc.api.blocks import Block, Group, Note, Paragraph, Sources, Table, keyed, titled
from posenc.api.sections import ReportSection, Section
from posenc.records.record import is_number
from posenc.report import words
from posenc.report.figures import order as figures
from posenc.report.statistics.order import orders
from posenc.report.view import View

SAID = (
    "Rank correlation of the encodings' mean scores at each value with those at the value that it is held against, over"
    " the encodings and seeds that both have: 1 is the same order, 0 none, \u22121 the reverse. Intervals: 95 %, by"
    " bootstrap over seeds, drawn together for both values and all encodings. Described, not claimed: neighbours that"
    " hardly differ change places by chance, which the interval shows."
)
HEAD = ("value", "held against", "encodings", "seeds", "Kendall's tau", "Spearman's rho", "best here", "best there")


class Order(ReportSection):
    name = "order"
    order = 55

    def make(self, view: View) -> Section | None:
        """A table and a figure for each task that has three encodings at two values or more."""
        found = orders(view.scores)
        if found.empty:
            return None
        blocks: list[Block] = [Paragraph(headline(found.to_dict("records"))), Note(SAID)]
        blocks.append(Group(tuple(map(view.figure, figures.agreement(found)))))
        blocks += [*titled(_tables(found)), Sources(view.sources("tables/order.csv"))]
        return Section("Does the order of encodings change?", tuple(blocks), link="Order", files={"order": found})


def headline(rows: Iterable[Mapping[str, Any]]) -> str:
    """How many values have another order than chance over seeds accounts for."""
    rows = list(rows)
    same = sum(row["tau"] == 1 for row in rows)
    unlike = sum(is_number(row["tau_high"]) and row["tau_high"] < 1 for row in rows)
    best = sum(row["first"] != row["first_reference"] for row in rows)
    said = (
        f"Of {words.plural(len(rows), 'value')} {same} {'has' if same == 1 else 'have'} the same order of means as the"
    )
    said += f" one that it is held against; in {unlike} the interval leaves the same order out; in {best} another"
    return f"{said} encoding is best."


def _tables(found: pd.DataFrame) -> Iterable[tuple[str, Table]]:
    for task, rows in found.groupby("task", sort=False):
        metric, better = rows["metric"].iloc[0], rows["better"].iloc[0]
        title = f"{task}: {metric}" + (f", {better} is better" if isinstance(better, str) else "")
        yield title, Table(HEAD, tuple(_row(row) for row in rows.to_dict("records")))


def _row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    value = f"{row['axis']} {row['value']}".strip()
    texts = [value, row["reference"], str(row["encodings"]), str(row["seeds"])]
    for name in ("tau", "rho"):
        text = words.number(row[name], 2)
        if is_number(row[f"{name}_low"]):
            low, high = (words.number(row[f"{name}_{end}"], 2) for end in ("low", "high"))
            text += f" ({low} to {high})"
        texts.append(text)
    texts += [row["first"], row["first_reference"]]
    keys = (value, row["reference"], row["encodings"], row["seeds"], row["tau"], row["rho"], *texts[-2:])
    return keyed(tuple(texts), keys)
