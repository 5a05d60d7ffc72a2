"""What all figures share: a canvas with room for labels at the ends of lines, and its SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from posenc.report.figures import fonts
from posenc.report.figures.labels import LINE, room_for
from posenc.report.figures.style import FONT, WIDTH
from posenc.report.places import plain_name


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, what is said under it, and what it shows as a table.

    Attributes:
        name: a file name without its ending. kind: answer, overview, forest, curve, length, positions, decay or speed.
        place: the group of cells that it is of; empty where it is of several.
        title: over it. data: what is drawn, a row a point.
    """

    name: str
    kind: str
    place: dict[str, Any]
    title: str
    alt: str
    notes: tuple[str, ...]
    svg: str
    data: pd.DataFrame


def canvas(labels: Sequence[str], *, bottom: float = 0.6) -> tuple[Figure, Axes]:
    """A figure with room at its right for the labels, and height enough that they need not overlap.

    Args:
        bottom: inches below the axes, for the ticks' texts and the axis' name.
    """
    room = room_for(labels)
    height = max(3.1, 1.0 + len(labels) * LINE)
    figure = Figure(figsize=(WIDTH, height))
    left, top = 0.52, 0.34
    box = (left / WIDTH, bottom / height, (WIDTH - left - room) / WIDTH, (height - bottom - top) / height)
    return figure, figure.add_axes(box)


def finish(axes: Axes, x: str, y: str, better: Any = None) -> None:
    """Names of the axes, and which way is better."""
    axes.set_xlabel(x)
    axes.set_ylabel("")
    text = f"{y} ({better} is better)" if isinstance(better, str) else y
    # Over the axes rather than beside them, where a long name would be cut off.
    axes.annotate(
        text,
        (0, 1),
        xycoords=("figure fraction", "axes fraction"),
        xytext=(8, 8),
        textcoords="offset points",
        fontsize=FONT,
    )
    axes.tick_params(length=3)


def svg_of(figure: Figure) -> str:
    """The same bytes for the same figure, on a machine with the same fonts; without CJK and the like, on every one."""
    file = io.StringIO()
    for text in figure.findobj(Text):
        if isinstance(text, Text) and fonts.lacking(text.get_text()):
            text.set_fontfamily(fonts.family(text.get_text()))
    with fonts.quietly():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def file_name(kind: str, place: dict[str, Any]) -> str:
    """`curve-enwik8-smoke-softmax-L64`."""
    words = [kind, place["task"], place["scale"], place["attention"], place["variant"], f"L{place['length']}"]
    if kind in ("length", "positions") and place.get("split") not in (None, "test"):
        words.append(place["split"])
    return plain_name(words)
