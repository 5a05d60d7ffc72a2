"""Letters that the figures' own font lacks: drawn in another font that is installed, else the font to install is named.

A text in which nothing is lacking is drawn in the own font alone, so that its figure is the same on every machine.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

from matplotlib import font_manager

OWN = "DejaVu Sans"
"""Comes with matplotlib: the same widths on every machine."""
CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")


def lacking(text: str) -> frozenset[str]:
    """The letters of a text that the own font lacks."""
    own = _letters(font_manager.findfont(OWN))
    return frozenset(one for one in text if ord(one) not in own and unicodedata.category(one)[0] not in "CZ")


def family(text: str) -> list[str]:
    """The fonts for a text: the own one, then those in which the rest of it can be drawn."""
    found = [name for letter in sorted(lacking(text)) if (name := _font_with(letter))]
    return [OWN, *dict.fromkeys(found)]


def undrawn(text: str) -> list[str]:
    """The letters of a text that no font here has."""
    return sorted(letter for letter in lacking(text) if _font_with(letter) is None)


def advice(letters: Iterable[str]) -> list[str]:
    """For letters that no font here has, which to install: a line for each script."""
    by_font: dict[str, list[str]] = {}
    for letter in letters:
        by_font.setdefault(_font_for(letter), []).append(letter)
    return [
        f"figures: no font here has {''.join(found[:8])}{' ...' if len(found) > 8 else ''}: install {font}; as long as"
        " there is none, whoever shows a figure takes a font of their own"
        for font, found in sorted(by_font.items())
    ]


@contextmanager
def quietly() -> Iterator[None]:
    """Without matplotlib's own warnings of letters that no font has: the report names them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        yield


def _font_for(letter: str) -> str:
    script = unicodedata.name(letter, "UNKNOWN").split()[0].partition("-")[0]
    if script in CJK:
        return "Noto Sans CJK (Debian: fonts-noto-cjk)"
    if unicodedata.category(letter)[0] == "S":
        return "Noto Sans Symbols or Noto Emoji"
    return f"Noto Sans {script.title()} (Debian: fonts-noto-core)"


@cache
def _font_with(letter: str) -> str | None:
    """The family of the first installed font that has a letter: plain ones without serifs first, then by name."""
    for found in (_installed, _added):
        for path, name in found():
            # The last resort has a box for every letter there is.
            if not name.replace(" ", "").lower().lstrip(".").startswith("lastresort") and ord(letter) in _letters(path):
                return name
    return None


def _rank(font: font_manager.FontEntry) -> tuple[object, ...]:
    sans = "sans" in font.name.lower()
    return not sans, font.style != "normal", abs(int(_weight(font.weight)) - 400), font.name, font.fname


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else font_manager.weight_dict.get(weight, 400)


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """(file, family) of the fonts that matplotlib knows."""
    return tuple((font.fname, font.name) for font in sorted(font_manager.fontManager.ttflist, key=_rank))


@cache
def _added() -> tuple[tuple[str, str], ...]:
    """(file, family) of fonts that were installed after matplotlib made its list, which it then keeps."""
    known = {path for path, _ in _installed()}
    for path in sorted(font_manager.findSystemFonts()):
        if path not in known:
            with suppress(Exception):  # no font that can be read: what is raised depends on what it is
                font_manager.fontManager.addfont(path)
    new = [font for font in font_manager.fontManager.ttflist if font.fname not in known]
    return tuple((font.fname, font.name) for font in sorted(new, key=_rank))


@cache
def _letters(path: str) -> frozenset[int]:
    """What a font has; nothing where it cannot be read (fonts of coloured pictures, say)."""
    with suppress(Exception):
        return frozenset(font_manager.get_font(path).get_charmap())
    return frozenset()


def forget() -> None:
    """Look for fonts anew."""
    for found in (_installed, _added, _font_with):
        found.cache_clear()
