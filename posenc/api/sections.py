"""A section of the report: what one is, and which there are.

A section is a class in a file of its own: of ours in `posenc/report/sections/`, of other packages by an entry point of
the group `posenc.sections`. It is handed what the records say and gives text, tables and figures as data:

    class Slowest(ReportSection):
        name = "slowest"
        order = 65

        def make(self, view):
            if view.cost.empty:
                return None
            row = view.cost.loc[view.cost["seconds"].idxmax()]
            return Section("The slowest", (Paragraph(f"{row['label']}: {row['seconds']:.1f} s"),))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from posenc.api.blocks import Block
from posenc.api.entry_points import Entry, imported, in_folder, installed
from posenc.common.errors import PluginError

GROUP = "posenc.sections"
BUILT_IN = in_folder(Path(__file__).parent.parent / "report" / "sections", "posenc.report.sections")


@dataclass(frozen=True)
class Section:
    """What stands under one title.

    Attributes:
        link: the word for it in the page's list of sections; without it, the title.
        files: by name, what is written beside the pages in `tables/`: a pandas DataFrame (as CSV), or a text.
    """

    title: str
    blocks: tuple[Block, ...]
    link: str = ""
    files: Mapping[str, Any] = field(default_factory=dict)


class ReportSection:
    """A section to be. `name` is its anchor on the page; `order` its place (ours go from 5 to 130)."""

    name: ClassVar[str]
    order: ClassVar[int] = 95

    def make(self, view: Any) -> Section | None:
        """The section of these records, or None where they have nothing for it.

        Args:
            view: a `posenc.report.view.View`: manifest, records, and tables of them that are made when asked for.
        """
        raise NotImplementedError


@cache
def _installed() -> tuple[dict[str, Entry], dict[str, str]]:
    return installed("report section", GROUP, BUILT_IN)


def entries() -> dict[str, Entry]:
    """Every known section by name; nothing is imported."""
    return _installed()[0]


def taken() -> list[str]:
    """Which of our names another package claims as well: ours stand."""
    return [message for name, message in _installed()[1].items() if name in BUILT_IN]


def load(name: str) -> ReportSection:
    """The section of a name.

    Raises:
        PluginError: two packages claim the name, it cannot be imported, or it is no ReportSection.
    """
    found, clashes = _installed()
    if name in clashes and name not in BUILT_IN:
        raise PluginError(clashes[name])
    entry = found[name]
    loaded = imported(entry, "report section")
    if not (isinstance(loaded, type) and issubclass(loaded, ReportSection)):
        raise PluginError(
            f"report section {name!r} of {entry.package}: {entry.target} is no subclass of posenc.api.sections."
            "ReportSection"
        )
    section = loaded()
    if getattr(section, "name", None) != name or isinstance(section.order, bool) or not isinstance(section.order, int):
        raise PluginError(
            f"report section {name!r} of {entry.package}: {entry.target} must say name = {name!r} and a whole number as"
            " its order"
        )
    return section
