"""Where models and training are not those that the tasks are named after, as the tasks' cards state it."""

from __future__ import annotations

from typing import Any

from posenc.api.blocks import Block, Heading, List
from posenc.api.sections import ReportSection, Section
from posenc.records.record import dig
from posenc.report.view import View


class Departures(ReportSection):
    name = "departures"
    order = 85

    def make(self, view: View) -> Section | None:
        """Each departure once, under the tasks whose cards state it."""
        tasks: dict[str, Any] = dict(view.manifest.get("tasks") or {})
        stated: dict[str, list[str]] = {}
        for task, told in tasks.items():
            for one in dig(told, ("card", "departures")) or []:
                stated.setdefault(str(one), []).append(task)
        by_tasks: dict[tuple[str, ...], list[str]] = {}
        for one, named in stated.items():
            by_tasks.setdefault(tuple(named), []).append(one)
        blocks: list[Block] = []
        for together, those in by_tasks.items():
            blocks += [Heading(", ".join(together)), List(tuple(those))]
        return Section("Departures from the models named", tuple(blocks), link="Departures") if blocks else None
