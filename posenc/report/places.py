"""Groups of cells that are compared with each other: what each is called, in words and in links."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posenc.report.statistics.tables import GROUP

Key = tuple[Any, ...]


def key_of(place: Mapping[str, Any]) -> Key:
    """A group's key; a missing value is None, however pandas wrote it."""
    values = (place[name] for name in GROUP)
    return tuple(None if value is None or value != value else value for value in values)


def group_title(place: Mapping[str, Any], *, task: bool = True) -> str:
    """`enwik8, performer attention, trained at length 64`."""
    parts = [place["task"]] if task else []
    parts.append(f"{place['attention']} attention" if place["attention"] else "")
    parts += [place["variant"], f"trained at length {place['length']:,}" if place["length"] else ""]
    return ", ".join(str(part) for part in parts if part)


def plain_name(words: Iterable[Any]) -> str:
    """Words joined to a name that any file system, any address and any HTML id can hold."""
    text = "-".join(str(word) for word in words if word)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(c if c.isalnum() or c in "._=-" else "_" for c in text)


def slug(place: Mapping[str, Any]) -> str:
    """`enwik8-smoke-softmax-L64`: two groups may share one, where they differ in what no file name can hold."""
    return plain_name([*(place[name] for name in GROUP[:-1]), f"L{place['length']}"])


def slugs(places: Iterable[Mapping[str, Any]]) -> dict[Key, str]:
    """A slug of its own for each group, the same whenever the same groups come in the same order."""
    found: dict[Key, str] = {}
    for place in places:
        if key_of(place) not in found:
            name, number = slug(place), 2
            while name in found.values():
                name, number = f"{slug(place)}-{number}", number + 1
            found[key_of(place)] = name
    return found


def short_title(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The name of a group of cells in a figure of several: its task, and what else tells it from the others."""
    parts = [row["task"]]
    for key in ("attention", "variant", "length"):
        if len({one[key] for one in rows if one["task"] == row["task"]}) > 1:
            # Of what varies its values alone: this is a line of a figure.
            values = ", ".join(part.rpartition("=")[2] for part in str(row[key]).split(", "))
            parts.append(f"L{row[key]}" if key == "length" else values)
    return ", ".join(str(part) for part in parts if part)
