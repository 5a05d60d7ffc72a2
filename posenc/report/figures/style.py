"""How figures look: one colour, marker and line for an encoding wherever it is drawn, legible in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from posenc.api.looks import OWN as DECLARED
from posenc.api.looks import Slot, slots
from posenc.common.colours import FAMILIES, SHADES, shade
from posenc.report.figures.fonts import OWN

INK, MUTED, GRID, PAPER = "#1c2127", "#5b6570", "#e3e6ea", "#ffffff"
DASHES: tuple[Any, ...] = ("", (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<")
WIDTH, FONT, SMALL = 4.8, 9.5, 8.5  # inches, points
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "posenc",
    "font.family": OWN,
    "font.size": FONT,
    "text.parse_math": False,  # a name with dollars is a name
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": FONT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "lines.markeredgewidth": 0.5,
}


@dataclass(frozen=True)
class Look:
    """How an encoding is drawn, everywhere."""

    colour: str
    marker: str
    dashes: Any


def looks(encodings: Iterable[str]) -> dict[str, Look]:
    """A look for each encoding, its own in every report; a family shares its hue (`posenc.api.looks`)."""
    return {name: _look(slot) for name, slot in slots(encodings).items()}


def _look(slot: Slot) -> Look:
    # Families begin at marks of their own. Four shades and nine markers meet once in 36 numbers, which then come again
    # with other dashes.
    turn, number = divmod(slot.number, DECLARED)
    dashes = DASHES[(number // SHADES + turn) % len(DASHES)]
    return Look(shade(*slot), MARKERS[(number + 2 * list(FAMILIES).index(slot.family)) % len(MARKERS)], dashes)
