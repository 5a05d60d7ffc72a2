"""The score by length: a row for each evaluated length; and, as a file, the loss at each place of the window."""

from __future__ import annotations

from typing import Any

import pandas as pd

from posenc.api.blocks import Block, Cell, Column, Figure, Group, Heading, List, Note, Sources, Table
from posenc.api.sections import ReportSection, Section
from posenc.objectives.windows import CUT, SLIDING
from posenc.report import results, words
from posenc.report.figures import lines
from posenc.report.figures.canvas import Picture
from posenc.report.places import Key, key_of
from posenc.report.results import Entry, ResultTable
from posenc.report.statistics.cut import beside_cut
from posenc.report.statistics.tables import at_place
from posenc.report.view import View

LENGTHS = "Each length scores the same targets. Mean over seeds \u00b1 half of its 95 % interval."
APART = (
    "Beside it the difference from {baseline} at that length, paired by seed; described, not claimed, but for what the"
    " suite names."
)
MODES = (
    "Separate: windows side by side, each target predicted from what stands before it in its own. Sliding: windows of"
    " that length that move on by the stride, only the targets they newly reach scored, so that nearly a whole window"
    " stands before each. Cut: the same with windows no longer than the trained length, which is what longer ones must"
    " beat."
)
Modes = dict[str, ResultTable]


class Length(ReportSection):
    name = "length"
    order = 45

    def make(self, view: View) -> Section | None:
        """For each group of cells its lengths in the main metric; the loss by place, drawn in the answer, as a file."""
        scores = {key_of(one.place): one for one in _pictures(view)}
        apart = beside_cut(view.scores)
        blocks: list[Block] = []
        for modes in _tables(view.summary, view):
            first = modes[""]
            if len(first.lengths) > 1 or len(modes) > 1:
                blocks += _blocks(view, modes, apart, [scores.get(key_of(first.place))])
        files = {"length": apart} if len(apart) else {}
        if len(view.positions):
            files["positions"] = view.positions
        return Section("Score by length", tuple(blocks), "Length", files) if blocks else None


def _pictures(view: View) -> list[Picture]:
    return lines.score_by_length(view.summary, view.references, view.looks)


def _tables(summary: pd.DataFrame, view: View) -> list[Modes]:
    """For each group of cells and split its main metric by "" (separate windows), and by other windows."""
    main = set(summary.loc[summary["main"].astype(bool), "metric"])
    found: dict[tuple[Key, str], Modes] = {}
    for suffix in ("", SLIDING, CUT):
        rows = summary[summary["metric"].isin([f"{name}{suffix}" for name in main])]
        for table in results.result_tables(rows, view.references, view.captions):
            found.setdefault((key_of(table.place), table.split), {})[suffix] = table
    return [modes for modes in found.values() if "" in modes]


def _blocks(view: View, modes: Modes, apart: pd.DataFrame, pictures: list[Picture | None]) -> list[Block]:
    first = modes[""]
    notes = [LENGTHS + (f" {APART.format(baseline=first.baseline)}" if first.baseline else "")]
    notes += [MODES] if len(modes) > 1 else []
    figures: list[Figure] = [view.figure(one) for one in pictures if one]
    table = _table(modes, at_place(apart, first.place))
    return [
        Heading(first.title),
        Note(f"{first.metric}. Data: {first.data}."),
        Group((table, figures[0]), "beside") if figures else table,
        List(tuple(notes), "notes"),
        Sources(view.sources("tables/length.csv" if len(modes) > 1 else "tables/summary.csv", first.place)),
    ]


def _table(modes: Modes, apart: pd.DataFrame) -> Table:
    """Rows by length, then by encoding in the suite's order."""
    first, slid = modes[""], [suffix for suffix in (SLIDING, CUT) if suffix in modes]
    heads = {"": "separate", SLIDING: "sliding", CUT: f"cut to {first.trained:,}"}
    beside = "difference" if first.baseline else ""
    # A score by cut windows is the same at every length: its difference stands at the trained one, as a sliding one.
    head = [Column("encoding"), Column("length")]
    head += [Column(heads[suffix], "", "" if suffix == CUT else beside) for suffix in ("", *slid)]
    head += [Column("sliding less cut")] if len(slid) == 2 else []
    gains = {(row["evaluated"], row["label"]): row for row in apart.to_dict("records")}
    rows: list[tuple[str | Cell, ...]] = []
    kinds = []
    for length in first.lengths:
        for row in first.rows:
            trained = f"{length:,} (trained)" if length == first.trained else f"{length:,}"
            entries = {suffix: _entry(modes[suffix], row.label, length) for suffix in ("", *slid)}
            cells = [_plain(entry) if suffix == CUT else _cell(entry) for suffix, entry in entries.items()]
            if len(slid) == 2:
                cells.append(_gain(gains.get((length, row.label))))
            rows.append((row.label, Cell(trained, key=length), *cells))
            kinds.append("baseline" if row.baseline else "")
    return Table(tuple(head), tuple(rows), tuple(kinds), f"{first.title} by length, {first.metric}", "results")


def _entry(table: ResultTable, label: str, length: int) -> Entry:
    """What an encoding has at a length."""
    for row in table.rows:
        if row.label == label and length in table.lengths:
            return row.entries[table.lengths.index(length)]
    return Entry(why="not asked for")


def _cell(entry: Entry) -> Cell:
    return Cell(entry.score, entry.difference, entry.best, entry.value) if entry.score else Cell(entry.why, key="")


def _plain(entry: Entry) -> Cell:
    """The score alone."""
    return Cell(entry.score or entry.why, key=entry.value if entry.score else "")


def _gain(row: dict[str, Any] | None) -> Cell:
    """By how much a longer window differs from one that is cut."""
    if row is None or not row["n"]:
        return Cell("\u2013", key="")
    decimals = words.decimals_for([row["sliding"], row["cut"]])
    half = (row["high"] - row["low"]) / 2
    text = words.with_half_width(row["difference"], half, decimals, signed=True)
    return Cell(text, key=row["difference"])
