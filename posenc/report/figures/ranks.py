"""The critical-difference diagram of Demsar 2006 (JMLR 7): mean ranks over tasks, and which lie too near to tell."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from posenc.report import words
from posenc.report.figures.canvas import Picture, Tips, svg_of
from posenc.report.figures.labels import LINE, fitted, width_of
from posenc.report.figures.style import INK, MUTED, SMALL, STYLE, WIDTH, Look
from posenc.report.statistics.intervals import LEVEL
from posenc.report.statistics.ranks import Ranks

BAR = 0.1
"""Inches from one bar to the next."""


def critical_differences(found: Ranks, labels: dict[str, str], styles: dict[str, Look]) -> Picture:
    """The better half of the encodings stands at the left, the others at the right."""
    many, tips = len(found.encodings), Tips()
    texts = [f"{labels[name]} {rank:.2f}" for name, rank in zip(found.encodings, found.ranks, strict=True)]
    half = -(-many // 2)
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        room = min(0.3 * WIDTH, max(map(width_of, texts)) + 0.12)
        axis, first = 0.62, 0.62 + 0.16 + BAR * len(found.together) + 0.12
        height = first + half * LINE * 1.15 + 0.05
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        left, inch = room + 0.15, (WIDTH - 2 * room - 0.3) / (many - 1)

        def at(rank: float) -> float:
            return left + (rank - 1) * inch

        line: dict[str, Any] = {"color": MUTED, "linewidth": 1}
        axes.plot([at(1), at(many)], [axis, axis], **line)
        for tick in range(1, many + 1):
            axes.plot([at(tick)] * 2, [axis - 0.05, axis], **line)
            if many <= 12 or tick % 2:
                axes.text(at(tick), axis - 0.08, str(tick), ha="center", va="bottom", fontsize=SMALL, color=MUTED)
        if found.critical <= many - 1:
            axes.plot([at(1), at(1 + found.critical)], [0.22, 0.22], color=INK, linewidth=1.5)
        text = f"critical difference {found.critical:.2f}"
        axes.text(at(1), 0.17, text, ha="left", va="bottom", fontsize=SMALL)
        shown = fitted(texts, room - 0.06)
        for place, (name, rank) in enumerate(zip(found.encodings, found.ranks, strict=True)):
            y = first + (place if place < half else many - 1 - place) * LINE * 1.15 + LINE / 2
            end, ha, shift = (left - 0.12, "right", -4) if place < half else (WIDTH - left + 0.12, "left", 4)
            look = styles[name]
            axes.plot([at(rank), at(rank), end], [axis, y, y], color=look.colour, linewidth=1)
            (mark,) = axes.plot([at(rank)], [axis], marker=look.marker, color=look.colour, linestyle="none", zorder=3)
            tips.on(mark, f"{labels[name]}: mean rank {rank:.2f} over {len(found.tasks)} tasks")
            axes.annotate(shown[place], (end, y), xytext=(shift, 0), textcoords="offset points", ha=ha, va="center",
                          fontsize=SMALL)  # fmt: skip
        for index, (one, last) in enumerate(found.together):
            y = axis + 0.16 + index * BAR
            axes.plot([at(found.ranks[one]) - 0.04, at(found.ranks[last]) + 0.04], [y, y], color=INK, linewidth=3,
                      solid_capstyle="butt")  # fmt: skip
        svg = svg_of(figure, tips)
    data = pd.DataFrame({"encoding": list(found.encodings), "rank": list(found.ranks)})
    alt = f"Mean ranks over {len(found.tasks)} tasks: {words.listed(texts)}"
    title = f"Mean ranks over {len(found.tasks)} tasks above the floor"
    return Picture("ranks", "ranks", {}, title, alt, tuple(_notes(found, labels)), svg, data)


def _notes(found: Ranks, labels: dict[str, str]) -> list[str]:
    test = f"Friedman's test over {len(found.tasks)} tasks: p {words.p_value(found.p)}"
    joined = (
        "Encodings that a bar joins lie no further apart than Nemenyi's critical difference at 5 %."
        if found.p < 1 - LEVEL
        else "It finds no difference, so a bar joins them all."
    )
    notes = [f"1 is best on each task, by the mean over seeds. {test}. {joined} A task is one sample here: no claim."]
    if found.left_out:
        notes.append(f"Without a score on each task, so left out: {words.listed(found.left_out)}.")
    return notes
