"""What each encoding of the report is: formula, paper, what it learns, what it can do, what a step of it costs."""

from __future__ import annotations

from typing import Any

from posenc.api.blocks import Block, Note, Table
from posenc.api.sections import ReportSection, Section
from posenc.common.errors import StoreError
from posenc.plan.table import ABOUT, HEAD, cells, costs
from posenc.report.view import View


class Encodings(ReportSection):
    name = "encodings"
    order = 128

    def make(self, view: View) -> Section | None:
        """A row for each encoding that a record tells of, in the report's order; old records tell of none."""
        found: dict[str, dict[str, Any]] = {}
        for record in view.records:
            for fact in record.get("encodings") or ():
                if _whole(fact):
                    found.setdefault(str(fact["encoding"]), fact)
        if not found:
            return None
        try:
            measured = costs()
        except StoreError as error:
            view.unread.append(str(error))
            measured = {}
        rows = tuple(cells(fact, measured.get(name, "")) for name, fact in found.items())
        head = tuple(column.replace("`", "") for column in HEAD)
        blocks: tuple[Block, ...] = (Note(ABOUT), Table(head, rows))
        return Section("The encodings", blocks, link="Encodings")


def _whole(fact: Any) -> bool:
    """Whether a row has all that the table shows; another version's may not."""
    kinds = {
        "formula": str,
        "paper": str,
        "directions": list,
        "hooks": list,
        "parameters": int,
        "linear": str,
        "softmax": str,
    }
    return (
        isinstance(fact, dict)
        and "encoding" in fact
        and all(isinstance(fact.get(key), kind) for key, kind in kinds.items())
        and {"axes", "max_length", "cached_decoding"} <= fact.keys()
    )
