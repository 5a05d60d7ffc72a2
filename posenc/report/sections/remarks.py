"""What a reader must know of single cells that ended well: how their training went on, rows that a Performer lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from posenc.api.blocks import Block, List, Note, Paragraph
from posenc.api.sections import ReportSection, Section
from posenc.records.record import Record, is_number
from posenc.report.view import View


class Remarks(ReportSection):
    name = "remarks"
    order = 125

    def make(self, view: View) -> Section | None:
        """Each remark with the cells that it is of; then the scores for which float32 lost rows."""
        found: dict[str, list[str]] = {}
        for record in view.records:
            for remark in record.get("remarks") or ():
                found.setdefault(str(remark), []).append(record["name"])
        blocks: list[Block] = []
        if found:
            blocks.append(List(tuple(f"{remark} ({', '.join(names)})" for remark, names in found.items())))
        if lost := tuple(_lost(view.records)):
            said = (
                "Rows of linear attention that float32 lost, as queries and keys were long: count on these scores less."
            )
            blocks += [Paragraph(said), List(lost), Note("The share is of all rows of all layers and heads.")]
        return Section("To know of single cells", tuple(blocks), link="Remarks") if blocks else None


def _lost(records: Iterable[Record]) -> Iterable[str]:
    for record in records:
        shares: dict[str, float] = {}
        for score in record.get("scores") or ():
            share: Any = (score.get("details") or {}).get("rows_lost")
            if is_number(share) and share > 0:
                shares[f"{score['split']} at {score['length']:,}"] = float(share)
        if shares:
            places = ", ".join(f"{share:.2%} in {place}" for place, share in shares.items())
            yield f"{record['name']}: {places}"
