"""Learning curves, decay by distance."""

from __future__ import annotations

from collections.abc import Sequence

from posenc.api.blocks import Block, Group, Heading, Note
from posenc.api.sections import ReportSection, Section
from posenc.report.figures.canvas import Picture
from posenc.report.view import View

CURVES = "Validation score at the trained length. Line: mean over seeds; band: lowest to highest seed."
DECAYS = (
    "The bound that the paper draws, and scores measured for the same content at both places and for random queries"
    " and keys."
)


class Figures(ReportSection):
    name = "figures"
    order = 50

    def make(self, view: View) -> Section | None:
        """Each kind below its heading; what stands beside the paper's own figures is not shown twice."""
        decays = [] if view.reported else view.decay_pictures
        blocks = (
            *_shown(view, "Learning curves", CURVES, view.curve_pictures),
            *_shown(view, "Decay by distance", DECAYS, decays),
        )
        return Section("Figures", blocks) if blocks else None


def _shown(view: View, title: str, said: str, pictures: Sequence[Picture]) -> tuple[Block, ...]:
    return (Heading(title), Note(said), Group(tuple(map(view.figure, pictures)))) if pictures else ()
