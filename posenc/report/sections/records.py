"""One record a cell: which stand behind which tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from posenc.api.blocks import Code, Details, Inline, Link, List, Note, Words
from posenc.api.sections import ReportSection, Section
from posenc.records.record import NOT_RUN_YET, Record
from posenc.report.facts import ENDED
from posenc.report.places import Key, group_title, key_of
from posenc.report.view import View


class Records(ReportSection):
    name = "records"
    order = 110

    def make(self, view: View) -> Section:
        """A list for each group of cells."""
        link = Link("scores.csv", "tables/scores.csv")
        said = Note(("One record a cell stands behind every figure and table. All scores: ", link, "."))
        groups = [
            Details(
                f"{title}: {len(cells)} cells",
                (List(tuple(_line(view.cells_folder, *cell) for cell in cells), "records"),),
                anchor=f"records-{slug}",
            )
            for slug, (title, cells) in _groups(view.places, view.slugs, view.ended).items()
        ]
        return Section("Records", (said, *groups), files={"scores": view.scores})


def _line(folder: str, cell: str, name: str, status: str) -> Words:
    linked = folder and status != NOT_RUN_YET
    shown: str | Inline = Link(name, f"{folder}/{cell}/record.json") if linked else name
    return (shown, " ", Code(cell), "" if status == "done" else f" {status}")


def _groups(
    places: Iterable[Mapping[str, Any]], slugs: Mapping[Key, str], ended: Mapping[str, Record]
) -> dict[str, tuple[str, list[tuple[str, str, str]]]]:
    """Which cells stand behind each group's tables and figures: by slug its title, and id, name and status of each.

    Args:
        places: for each cell its coordinates and variant, and under "cell" itself.
    """
    found: dict[str, tuple[str, list[tuple[str, str, str]]]] = {}
    for place in places:
        cell = place["cell"]
        _, cells = found.setdefault(slugs[key_of(place)], (group_title(place), []))
        status = ENDED[ended[cell["id"]]["status"]] if cell["id"] in ended else NOT_RUN_YET
        cells.append((str(cell["id"]), str(cell["name"]), status))
    return found
