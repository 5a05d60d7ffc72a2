"""The results: a table for each group of cells and metric, beside the figure of its differences; as LaTeX too."""

from __future__ import annotations

from typing import Any

import pandas as pd

from posenc.api.blocks import (
    Block,
    Cell,
    Column,
    Details,
    Figure,
    Group,
    Heading,
    Link,
    List,
    Note,
    Paragraph,
    Sources,
    Table,
)
from posenc.api.sections import ReportSection, Section
from posenc.report import results, words
from posenc.report.figures import forests
from posenc.report.places import Key, key_of
from posenc.report.results import Entry, ResultTable
from posenc.report.view import View


class Results(ReportSection):
    name = "results"
    order = 30

    def make(self, view: View) -> Section:
        """The task's main metric first; the others below, in one place."""
        tables = results.result_tables(view.summary, view.references, view.captions)
        shown: dict[tuple[Key, str], Figure] = {
            (key_of(one.place), str(one.place["split"])): view.figure(one)
            for one in forests.differences(view.summary, view.items, view.looks)
        }
        blocks: list[Block] = []
        if not any(record["status"] == "done" for record in view.records):
            blocks.append(Paragraph("No cell has finished, so there are no scores yet.", "warned"))
        if waiting := words.listed(table.title for table in tables if not table.has_run):
            blocks.append(Note(f"Nothing has run yet of: {waiting}."))
        for table in tables:
            if table.main and table.has_run:
                blocks += _blocks(view, table, shown.get((key_of(table.place), table.split)))
        if more := [table for table in tables if not table.main and table.has_run]:
            blocks.append(
                Details("Further metrics", tuple(block for one in more for block in _blocks(view, one, None)))
            )
        files: dict[str, Any] = {"summary": view.summary, "summary.tex": "\n".join(latex(one) for one in tables)}
        return Section("Results", tuple(blocks), files=files | ({"items": view.items} if len(view.items) else {}))


def _blocks(view: View, table: ResultTable, figure: Figure | None) -> list[Block]:
    title = table.title if table.main else f"{table.title}: {table.metric}"
    shown = _table(table)
    said = "Mean over seeds \u00b1 half of its 95 % interval (Student's t)"
    if table.baseline:
        said += f"; beside it the difference from {table.baseline}, paired by seed, \u00b1 half of its 95 % interval"
        said += " (paired t)"
    notes = [f"{said}."]
    if table.best_word:
        notes.append(f"Bold: {table.best_word} of its column, which is no claim.")
    return [
        Heading(title, 3 if table.main else 4),
        Note(f"{table.metric}. Data: {table.data}. Scale: {table.scale}."),
        *(Paragraph(claim, "claim") for claim in table.claims),
        Group((shown, figure), "beside") if figure else shown,
        List((*notes, *table.notes), "notes"),
        Sources((*view.sources("tables/summary.csv", table.place), Link("LaTeX", "tables/summary.tex"))),
    ]


def _table(table: ResultTable) -> Table:
    columns = [
        Column(f"at {length:,}", "(trained)" if length == table.trained else "", "difference")
        for length in table.lengths
    ]
    rows: list[tuple[str | Cell, ...]] = [(row.label, *map(_cell, row.entries), row.seeds) for row in table.rows]
    at_floor = [all(entry.floor for entry in row.entries if entry.score) and row.seeds != "0" for row in table.rows]
    kinds = [
        "floor" if low else "baseline" if row.baseline else "" for row, low in zip(table.rows, at_floor, strict=True)
    ]
    empty = ("",) * len(table.lengths)
    rows += [(name, Cell(score, "no model"), *empty) for name, score in table.references]
    kinds += ["reference"] * len(table.references)
    title = f"{table.title}, {table.metric}"
    return Table(("encoding", *columns, "seeds"), tuple(rows), tuple(kinds), title, "results")


def _cell(entry: Entry) -> Cell:
    if not entry.score:
        return Cell(entry.why, key="")
    return Cell(entry.score, entry.difference, entry.best, entry.value)


def latex(table: ResultTable) -> str:
    """One result table as a LaTeX tabular (booktabs)."""
    head = ["encoding", "seeds"]
    for length in table.lengths:
        head += [f"{length}: mean", f"{length}: difference"]
    rows = []
    for row in table.rows:
        texts = [row.label, row.seeds]
        for entry in row.entries:
            texts += [entry.score or entry.why, entry.difference]
        rows.append(texts)
    caption = f"{table.title}; {table.metric}; data: {table.data}"
    comment = "% " + " ".join(caption.split())
    text = str(pd.DataFrame(rows, columns=head).to_latex(index=False, escape=True))
    return comment + "\n" + text.replace("\u00b1", r"$\pm$").replace(words.MINUS, "$-$").replace("\u2013", "--")
