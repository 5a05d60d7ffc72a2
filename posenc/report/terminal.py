"""The results as tables in the terminal, while a suite runs and at its end."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from posenc.common.terminal import natural_width
from posenc.records.store import Store
from posenc.report import results
from posenc.report.results import Entry, ResultTable
from posenc.report.sections.ledger import line_of, ours, said
from posenc.report.view import View

LAYOUTS = ((3, "\n"), (2, "  "), (2, "\n"), (1, "  "), (1, "\n"))
"""How many lengths stand side by side, and what stands between a score and its difference: the first that fits is
taken."""
LEAST_WIDTH = 18
"""What a column of scores has for the reasons why there is none: longer ones are folded."""


@dataclass(frozen=True)
class Results:
    """Tables for a terminal, as wide as it has room for.

    Attributes:
        found: those of groups of which a cell has run. waiting: how many others there are.
        ledger: a line for each comparison of the suite's claims.
    """

    found: tuple[ResultTable, ...]
    waiting: int
    ledger: tuple[str, ...] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for result in self.found:
            yield Text(f"\n{result.title}: {result.metric}; {result.data}")
            yield from _laid_out(result, console, options)
            yield Text("\n".join(_remarks(result)))
        if self.waiting:
            groups = "1 group of cells has" if self.waiting == 1 else f"{self.waiting} groups of cells have"
            yield Text(f"\n{groups} not run yet.")
        for line in self.ledger:
            yield Text(f"\n{line}")


def terminal_table(store: Store) -> Results:
    """A table for each group of cells that has run: encodings down, evaluated lengths across."""
    view = View(store)
    main = view.measured[view.measured["main"].astype(bool)]
    found = results.result_tables(main, view.references, view.captions)
    run = tuple(result for result in found if result.has_run)
    told = tuple(f"{line_of(row)}: {said(row)}\n  {ours(row)}" for row in view.ledger.to_dict("records"))
    return Results(run, len(found) - len(run), told)


def _laid_out(result: ResultTable, console: Console, options: ConsoleOptions) -> list[Table]:
    """A result's tables by the first layout that fits."""
    lengths, made = len(result.lengths), []
    for across, between in LAYOUTS:
        if across > lengths or ((across, between) == (2, "  ") and lengths > 2):
            continue  # of more than two, few tables are more readable than wide ones
        made = [_table(result, range(lengths)[at : at + across], between) for at in range(0, lengths, across)]
        if all(natural_width(table, console, options) <= options.max_width for table in made):
            break
    return made


def _table(result: ResultTable, shown: range, between: str) -> Table:
    table = Table()
    table.add_column("encoding", overflow="fold", max_width=20)
    widths = [max((len(row.entries[index].difference) for row in result.rows), default=0) for index in shown]
    rows = [
        [_cell(row.entries[index], between, wide) for index, wide in zip(shown, widths, strict=True)]
        for row in result.rows
    ]
    for place, index in enumerate(shown):
        length = result.lengths[index]
        head = f"at {length:,}" + (" (trained)" if length == result.trained else "")
        scored = [cells[place] for cells, row in zip(rows, result.rows, strict=True) if row.entries[index].score]
        longest = max((len(line) for cell in scored for line in cell.plain.split("\n")), default=0)
        width = max(LEAST_WIDTH, len(head), longest)
        table.add_column(Text(head), justify="right", overflow="fold", max_width=width)
    for row, cells in zip(result.rows, rows, strict=True):
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
