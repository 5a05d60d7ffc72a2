"""Cells and scores that there are not, and why."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from posenc.api.blocks import Block, Card, Code, Details, List, Note, Paragraph
from posenc.api.sections import ReportSection, Section
from posenc.records.record import Record, ending
from posenc.report import words
from posenc.report.facts import ENDED
from posenc.report.places import group_title
from posenc.report.statistics.tables import GROUP
from posenc.report.view import View


class Failures(ReportSection):
    name = "without"
    order = 120

    def make(self, view: View) -> Section:
        """What did not end well, what has no score at some length, what waits."""
        blocks: list[Block] = list(_endings(view.records))
        if unscored := _unscored(view.summary):
            lines = (f"{place}, scored at {length}: {why}" for place, length, why in unscored)
            blocks += [Paragraph("No score at one length:"), List(tuple(lines))]
        if waiting := [cell["name"] for cell in view.manifest["cells"] if cell["id"] not in view.ended]:
            blocks.append(Details(f"Not run yet: {len(waiting)}", (Note(", ".join(waiting)),)))
        title = "Not possible, failed, not run"
        return Section(title, tuple(blocks) or (Paragraph("Every cell gave every score."),), link="Failures")


def _endings(records: Iterable[Record]) -> Iterable[Card]:
    """The cells that gave no scores, together where status, reason and last line are the same."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record["status"] != "done":
            key = (record["status"], _reason(record), words.last_line(record.get("traceback")))
            found.setdefault(key, []).append(record["name"])
    order = list(ENDED)
    for (status, reason, line), names in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        said: list[Paragraph | Note] = [Paragraph(reason)]
        if line:
            said.append(Paragraph(("last line: ", Code(line)), "digest"))
        said.append(Note(f"cells: {', '.join(names)}"))
        yield Card(ENDED[status], tuple(said), look="ending", kind=status.replace("_", "-"))


def _reason(record: Record) -> str:
    """The reason alone: the status stands before it."""
    _, _, reason = ending(record).partition(": ")
    return reason or "no reason was recorded"


def _unscored(summary: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The metrics that some finished cells do not have at one length: where, at which length, why."""
    empty = summary[(summary["n"] == 0) & summary["main"].astype(bool)]
    done = summary[summary["n"] > 0]
    partly = empty.merge(done[[*GROUP, "encoding"]].drop_duplicates(), on=[*GROUP, "encoding"])
    return [
        (f"{row['encoding']}, {group_title(row)}", f"{row['evaluated']:,}", str(row["why"]))
        for row in partly.to_dict("records")
    ]
