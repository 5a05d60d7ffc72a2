"""What could not be read or drawn: damaged files, other packages' sections that fail, letters without a font."""

from __future__ import annotations

from posenc.api.blocks import List, Note
from posenc.api.sections import ReportSection, Section
from posenc.report.view import View


class Unread(ReportSection):
    name = "unread"
    order = 130

    def make(self, view: View) -> Section | None:
        """A line for each; made when all other sections have been."""
        if not view.unread:
            return None
        said = Note("The report is made without them; all else is as it would be.")
        lines = tuple(dict.fromkeys(view.unread))
        return Section("What could not be read or drawn", (said, List(lines)), link="Not read")
