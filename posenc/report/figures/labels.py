"""Names at the ends of lines instead of a legend: cut until they fit, and never over each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from posenc.report.figures import fonts
from posenc.report.figures.style import PAPER, SMALL, WIDTH, Look

LINE = SMALL * 1.35 / 72
"""The height of a label's line in inches."""


def room_for(labels: Sequence[str]) -> float:
    """The inches to leave free at a figure's right; long labels are cut rather than leave no figure."""
    return min(0.42 * WIDTH, max(map(width_of, labels), default=0) + 0.4)


def width_of(text: str) -> float:
    """The width of a text in inches."""
    font = FontProperties(family=fonts.family(text), size=SMALL)
    none = fonts.undrawn(text)
    drawn = "".join(letter for letter in text if letter not in none)
    with fonts.quietly():
        width, _, _ = text_to_path.get_text_width_height_descent(drawn, font, ismath=False)
    return (float(width) + SMALL * (len(text) - len(drawn))) / 72  # a letter without a font: as wide as high


def _shortened(text: str, room: float, *, head: float = 0.5) -> str:
    """A text cut (in its middle, or with another part of it as the head) until it fits."""
    keep = len(text)
    short = text
    while width_of(short) > room and keep > 4:
        keep -= 1
        first = round(keep * head)
        short = f"{text[:first]}\u2026{text[len(text) - (keep - first) :] if keep > first else ''}"
    return short


def fitted(labels: Sequence[str], room: float) -> list[str]:
    """Labels cut until they fit; those that would become the same lose what they have in common instead."""
    short = [_shortened(label, room) for label in labels]
    result = []
    for label, cut in zip(labels, short, strict=True):
        same = [other for other, its_cut in zip(labels, short, strict=True) if its_cut == cut]
        letters = zip(*same, strict=False) if len(same) > 1 else ()
        common = sum(1 for _ in itertools.takewhile(lambda them: len(set(them)) == 1, letters))
        # From the word in which they begin to differ.
        start = max(label.rfind(mark, 0, common) + 1 for mark in "(,. +")
        result.append(_shortened(f"\u2026{label[start:].lstrip()}", room, head=1.0) if start else cut)
    return result


def label_ends(axes: Axes, ends: list[tuple[str, str, float, float]], styles: dict[str, Look]) -> None:
    """Names beside the axes, each as near to its line's end as the others let it, with a thin line between."""
    figure, box = axes.get_figure(root=True), axes.get_position()
    assert figure is not None
    tall = box.height * figure.get_figheight()
    wide = figure.get_figwidth()
    room = (1 - box.x1) * wide - 0.34
    low, high = axes.get_ylim()
    wanted = [(y - low) / (high - low) if high > low else 0.5 for _, _, _, y in ends]
    placed = spread(wanted, gap=LINE / tall)
    left, right = axes.get_xlim()
    inch = 1 / (box.width * wide)
    labels = fitted([label for _, label, _, _ in ends], room)
    for (name, _, x, y), label, height in zip(ends, labels, placed, strict=True):
        look = styles[name]
        axes.plot(
            [1 + 0.22 * inch],
            [height],
            transform=axes.transAxes,
            clip_on=False,
            color=look.colour,
            marker=look.marker,
            markeredgecolor=PAPER,
            markeredgewidth=0.5,
        )
        at: dict[str, Any] = {
            "textcoords": "axes fraction",
            "va": "center",
            "annotation_clip": False,
        }
        beside = (1 + 0.3 * inch, height)
        axes.annotate(label, (1, height), xytext=beside, xycoords="axes fraction", fontsize=SMALL, **at)
        if x > right - 0.3 * (right - left):
            # From an end far to the left it would look like a line of the figure.
            arrow = {"arrowstyle": "-", "color": look.colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", (x, y), xytext=(1 + 0.18 * inch, height), arrowprops=arrow, **at)


def spread(wanted: Sequence[float], *, gap: float) -> list[float]:
    """Places in 0..1 at least `gap` apart, in the wanted order, and together as near to the wanted ones as can be.

    Labels that touch form a block, which stands where its members' mean displacement is nought.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[tuple[float, int]] = []  # where the first member of a block stands, and its members
    for index in order:
        blocks.append((min(max(wanted[index], 0.0), 1.0), 1))
        while len(blocks) > 1 and blocks[-2][0] + blocks[-2][1] * gap > blocks[-1][0]:
            (first, many), (second, more) = blocks[-2:]
            start = (first * many + (second - many * gap) * more) / (many + more)
            blocks[-2:] = [(min(max(start, 0.0), 1 - (many + more - 1) * gap), many + more)]
    places = [start + step * gap for start, many in blocks for step in range(many)]
    result = [0.0] * len(wanted)
    for index, place in zip(order, places, strict=True):
        result[index] = place
    return result
