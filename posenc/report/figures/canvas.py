"""What all figures share: a canvas with room for labels at the ends of lines, and its SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from posenc.common.text import harmless
from posenc.report.figures import fonts
from posenc.report.figures.labels import LINE, room_for
from posenc.report.figures.style import FONT, PAPER, WIDTH, Look
from posenc.report.places import plain_name


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, what is said under it, and what it shows as a table.

    Attributes:
        name: a file name without its ending.
        kind: answer, overview, trade, key, ranks, forest, curve, length, positions, decay or speed.
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


class Tips:
    """What is told of a part of a figure to whoever points at it: `<title>` elements of its SVG, no script."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[str, ...]] = {}

    def on(self, artist: Artist, *texts: str) -> None:
        """A text for each path or mark that an artist draws, in its order (of a line with marks, the line first)."""
        name = f"tip{len(self._texts)}"
        artist.set_gid(name)
        self._texts[name] = texts

    def written(self, svg: str) -> str:
        """An SVG with the texts in it."""
        waiting: Iterator[str] = iter(())
        defining = False

        def titled(found: re.Match[str]) -> str:
            nonlocal waiting, defining
            if found["tag"]:
                text = None if defining else next(waiting, None)
                if text is not None:
                    title = f"<title>{escape(harmless(text), quote=False)}</title>"
                    return f"{found[0].removesuffix('/>')}>{title}</{found['tag']}>"
            elif found["id"]:
                waiting = iter(self._texts.get(found["id"], ()))
            else:
                defining = found[0] == "<defs>"
            return found[0]

        return re.sub(r'<g id="(?P<id>[^"]*)">|</?defs>|<(?P<tag>use|path)\b[^>]*/>', titled, svg)


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


def draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], look: Look, *, marked: bool) -> Line2D:
    """An encoding's line in its own look, the marks with a thin edge that tells them apart where they meet."""
    style: Any = (0, look.dashes) if look.dashes else "-"
    (line,) = axes.plot(x, y, color=look.colour, linestyle=style, marker=look.marker if marked else "")
    line.set_markeredgecolor(PAPER)
    return line


def svg_of(figure: Figure, tips: Tips | None = None) -> str:
    """The same bytes for the same figure, on a machine with the same fonts; without CJK and the like, on every one."""
    file = io.StringIO()
    for text in figure.findobj(Text):
        if isinstance(text, Text) and fonts.lacking(text.get_text()):
            text.set_fontfamily(fonts.family(text.get_text()))
    with fonts.quietly():
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return tips.written(file.getvalue()) if tips else file.getvalue()


def file_name(kind: str, place: dict[str, Any]) -> str:
    """`curve-enwik8-smoke-softmax-L64`."""
    words = [kind, place["task"], place["scale"], place["attention"], place["variant"], f"L{place['length']}"]
    if kind in ("length", "positions") and place.get("split") not in (None, "test"):
        words.append(place["split"])
    return plain_name(words)
