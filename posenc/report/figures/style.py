"""How figures look: one colour, marker and line for an encoding wherever it is drawn, legible in light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from posenc.report.figures.fonts import OWN

# Eight hues for a white page and, beside each, for a dark one: contrast at least 3 and 4 with the page, and a distance
# of at least 0.11 in OKLab between any two under simulated protanopia, deuteranopia and tritanopia (Machado 2009).
PALETTE = (
    ("#0d365f", "#5478e6"),
    ("#b8500b", "#f88806"),
    ("#729e86", "#a2d1a7"),
    ("#8502a3", "#98738e"),
    ("#535353", "#e1e7fd"),
    ("#307a9d", "#5aafde"),
    ("#c38906", "#fecc32"),
    ("#641309", "#e3413c"),
)
INK, MUTED, GRID, PAPER = "#1c2127", "#5b6570", "#e3e6ea", "#ffffff"
FIXED_SLOTS = ("sinusoidal", "rope", "learned", "t5", "none", "shaw", "rope_outside", "alibi")
DASHES: tuple[Any, ...] = ("", (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
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
    """A look for each encoding: well-known names keep theirs in every report, others take the next that is free."""
    names = list(dict.fromkeys(encodings))
    slots = {name: FIXED_SLOTS.index(name) for name in names if name in FIXED_SLOTS}
    free = (slot for slot in range(len(FIXED_SLOTS) + len(names)) if slot not in set(slots.values()))
    slots |= {name: next(free) for name in names if name not in slots}
    return {name: _look(slots[name]) for name in names}


def _look(slot: int) -> Look:
    hue, turn = slot % len(PALETTE), slot // len(PALETTE)
    # The marker moves on with each turn, so that neither it nor the dashes alone repeat with the hue.
    return Look(PALETTE[hue][0], MARKERS[(hue + 3 * turn) % len(MARKERS)], DASHES[turn % len(DASHES)])
