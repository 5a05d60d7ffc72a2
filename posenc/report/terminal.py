"""The results as tables in the terminal, for the end of a run."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from posenc.records.store import Store
from posenc.report import facts, results
from posenc.report.reading import manifest_of, records_of
from posenc.report.results import Entry, ResultTable
from posenc.report.statistics import tables, tuning

LENGTHS_ACROSS = 3
"""More columns than these do not fit into 100 characters; further lengths go into a further table."""


def terminal_table(store: Store) -> Group:
    """A table for each group of cells: encodings down, evaluated lengths across, each at most 100 characters wide."""
    whole = manifest_of(store)
    manifest, records, _ = tuning.choose(whole, records_of(store, whole, []))
    summary = tables.summary(tables.scores_frame(records, manifest), manifest)
    labels = facts.data_labels(facts.datasets(manifest, records))
    references = tables.references(records, manifest)
    found = results.result_tables(summary[summary["main"].astype(bool)], references, labels)
    parts: list[Table | Text] = []
    for result in found:
        parts.append(Text(f"\n{result.title}: {result.metric}; {result.data}"))
        for start in range(0, len(result.lengths), LENGTHS_ACROSS):
            parts.append(_table(result, start))
        parts.append(Text("\n".join(_remarks(result))))
    return Group(*parts)


def _table(result: ResultTable, start: int) -> Table:
    shown = range(start, min(start + LENGTHS_ACROSS, len(result.lengths)))
    between, width = ("  ", 36) if len(shown) < LENGTHS_ACROSS else ("\n", 24)
    table = Table()
    table.add_column("encoding", overflow="fold", max_width=20)
    for index in shown:
        length = result.lengths[index]
        head = f"at {length:,}" + (" (trained)" if length == result.trained else "")
        table.add_column(Text(head), justify="right", overflow="fold", max_width=width)
    widths = [max((len(row.entries[index].difference) for row in result.rows), default=0) for index in shown]
    for row in result.rows:
        cells = [_cell(row.entries[index], between, wide) for index, wide in zip(shown, widths, strict=True)]
        table.add_row(Text(row.label), *cells)
    for name, score in result.references:
        table.add_row(Text(f"{name} (no model)", style="dim"), Text(score, style="dim"), *[Text()] * (len(shown) - 1))
    return table


def _remarks(result: ResultTable) -> list[str]:
    legend = "mean \u00b1 half of its 95 % interval"
    if result.baseline:
        legend += f", difference from {result.baseline} paired by seed \u00b1 half of its 95 % interval"
    legend += f"; bold: {result.best_word}" if result.best_word else ""
    return [legend, *result.claims, *result.notes]


def _cell(entry: Entry, between: str, width: int) -> Text:
    if not entry.score:
        return Text(entry.why, style="dim")
    score = (entry.score, "bold" if entry.best else "")
    return Text.assemble(score, between, (entry.difference.rjust(width), "dim")) if width else Text.assemble(score)
