"""The colours of encodings: an encoding has the same one in every figure of a report, and in MLflow."""

from __future__ import annotations

from collections.abc import Iterable

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
FIXED_SLOTS = ("sinusoidal", "rope", "learned", "t5", "none", "shaw", "rope_outside", "alibi")


def slots(encodings: Iterable[str]) -> dict[str, int]:
    """A number for each encoding: well-known names keep theirs everywhere, others take the next that is free."""
    names = list(dict.fromkeys(encodings))
    found = {name: FIXED_SLOTS.index(name) for name in names if name in FIXED_SLOTS}
    taken = set(found.values())
    free = (slot for slot in range(len(FIXED_SLOTS) + len(names)) if slot not in taken)
    return found | {name: next(free) for name in names if name not in found}


def colours(encodings: Iterable[str]) -> dict[str, str]:
    """A colour for each encoding, on a white page."""
    return {name: PALETTE[slot % len(PALETTE)][0] for name, slot in slots(encodings).items()}
