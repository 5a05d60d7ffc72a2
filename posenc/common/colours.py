"""Hues for families of encodings, in shades: for a white page and, beside each, for a dark one.

Contrast with the page is at least 3 and 4. Under normal sight and simulated protanopia, deuteranopia and tritanopia
(Machado 2009) the shades that an encoding of most reports has, and the first of each family, lie at least 0.1 apart in
OKLab, and those of one family at least 0.07 (a test holds that). Marks tell the rest apart.
"""

from __future__ import annotations

OTHER = "other"
"""The family of encodings that are not built in."""
FAMILIES: dict[str, tuple[tuple[str, str], ...]] = {
    "absolute": (("#284463", "#4e70e9"), ("#051846", "#26a6fe"), ("#1e578e", "#8197bf"), ("#5372ed", "#9ccbee")),
    "rotary": (("#b64f06", "#e27a3f"), ("#d97a16", "#feb11b"), ("#963708", "#fbd395"), ("#742001", "#ab681a")),
    "distance": (("#8c22ad", "#ddc0f7"), ("#af75ee", "#976fa2"), ("#a95eb6", "#de53d5"), ("#3e193d", "#d699c5")),
    "vectors": (("#55a198", "#9dfec4"), ("#26532c", "#59b48c"), ("#177346", "#098c4c"), ("#618e56", "#4ee4cd")),
    "content": (("#51460d", "#fef863"), ("#9d8f3f", "#728b3a"), ("#0f2c05", "#a6e786"), ("#606928", "#96b37a")),
    "other": (("#510c0f", "#bb5d55"), ("#aa2e2f", "#ec320e"), ("#731c0b", "#e59198"), ("#c54a33", "#e17165")),
    "none": (("#716d70", "#a9a8ab"), ("#5b5c5f", "#adb5b9"), ("#595357", "#9c999d"), ("#5a6060", "#9f9ea5")),
}
SHADES = 4
PALETTE = tuple(pair for shades in FAMILIES.values() for pair in shades)
"""All of them."""


def shade(family: str, number: int) -> str:
    """The colour on a white page of a number in a family."""
    return FAMILIES[family][number % SHADES][0]
