"""Which hue, shade and mark an encoding has: the same in every figure of every report, and in MLflow.

A built-in class says it beside its name: `look = ("rotary", 3)`, the family whose hue it has and its number there. The
files are read, not imported. What is written with options or composed has the hue of the encoding that it is of, and
a number from its text; so has an encoding of another package, among the hue OTHER.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from posenc.api.spec import parse
from posenc.common.colours import OTHER, shade
from posenc.common.errors import ConfigError

OWN = 36
"""Numbers below are of built-in encodings, each declared by one class; others get theirs from their texts."""
ALL = 4 * OWN
"""Numbers of a family in all."""


class Slot(NamedTuple):
    """A place among the looks."""

    family: str
    number: int


@cache
def declared() -> dict[str, Slot]:
    """The look of each built-in encoding, as its class says; nothing is imported."""
    found, name = {}, ""
    for file in sorted((Path(__file__).parent.parent / "encodings").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        for match in re.finditer(r'^    (?:name = "([^"]+)"|look = \("(\w+)", (\d+)\))$', text, flags=re.MULTILINE):
            name = match[1] or name
            if match[2]:
                found[name] = Slot(match[2], int(match[3]))
    return found


def slots(encodings: Iterable[str]) -> dict[str, Slot]:
    """A slot for each encoding as written, no two the same while there are any free.

    It follows from the encoding alone. Only where two that are not built in would get the same one, the second takes
    the next that is free.
    """
    names = list(dict.fromkeys(encodings))
    found = {name: declared()[name] for name in names if name in declared()}
    taken = set(found.values())
    for name in names:
        if name in found:
            continue
        family = _family(name)
        start = int.from_bytes(sha256(name.encode("utf-8", "replace")).digest()[:4], "big")
        tried = [Slot(family, OWN + (start + step) % (ALL - OWN)) for step in range(ALL - OWN)]
        found[name] = next((slot for slot in tried if slot not in taken), tried[0])
        taken.add(found[name])
    return {name: found[name] for name in names}


def colours(encodings: Iterable[str]) -> dict[str, str]:
    """A colour for each encoding, on a white page."""
    return {name: shade(*slot) for name, slot in slots(encodings).items()}


def _family(text: str) -> str:
    """`rope(base=500)`, `sinusoidal+rope` and `layers(rope, none)` are of rope's family: the last part's, or the
    first one's that it is given.
    """
    try:
        last = parse(text)[-1]
    except ConfigError:  # a record may hold any text
        return OTHER
    if last.name in declared():
        return declared()[last.name].family
    return _family(last.arguments[0]) if last.arguments else OTHER
