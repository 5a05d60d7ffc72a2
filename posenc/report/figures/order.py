"""How the order of encodings agrees along a suite's axes: a dot and its interval a value, from -1 to 1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from posenc.records.record import is_number
from posenc.report import words
from posenc.report.figures.canvas import Picture, svg_of
from posenc.report.figures.forests import ROW
from posenc.report.figures.labels import fitted, width_of
from posenc.report.figures.style import INK, MUTED, SMALL, STYLE, WIDTH
from posenc.report.places import plain_name


def agreement(orders: pd.DataFrame) -> list[Picture]:
    """A figure for each task of Kendall's tau, a line a value of `statistics.order.orders`."""
    return [_picture(str(task), rows) for task, rows in orders.groupby("task", sort=False)]


def _picture(task: str, rows: pd.DataFrame) -> Picture:
    title = f"{task}: does the order of encodings stay?"
    alt = f"Kendall's tau between the order of encodings at each value and at the first, {task}, with 95 % intervals"
    notes = ("1: the same order as at the value that it is held against; 0: none; −1: the reverse.",)
    data = rows[["axis", "value", "reference", "encodings", "seeds", "tau", "tau_low", "tau_high"]]
    return Picture(f"order-{plain_name([task])}", "order", {}, title, alt, notes, _svg(rows.to_dict("records")), data)


def _svg(rows: Iterable[Mapping[str, Any]]) -> str:
    """Names at the left, figures at the right."""
    rows = list(rows)
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False}):
        names = [_short(row) for row in rows]
        texts = [words.number(row["tau"], 2) for row in rows]
        left = min(0.5 * WIDTH, max(map(width_of, names)) + 0.2)
        right = max(map(width_of, texts)) + 0.2
        top, bottom = 0.1, 0.5
        height = top + bottom + ROW * len(rows)
        figure = Figure(figsize=(WIDTH, height))
        box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, ROW * len(rows) / height)
        axes = figure.add_axes(box)
        for place, (row, name, text) in enumerate(zip(rows, fitted(names, left - 0.12), texts, strict=True)):
            y = len(rows) - 1 - place
            if is_number(row["tau_low"]):
                axes.hlines(y, row["tau_low"], row["tau_high"], color=INK, linewidth=1.8)
            if is_number(row["tau"]):
                axes.plot([row["tau"]], [y], marker="o", color=INK, markersize=6, linestyle="none")
            for said, at, ha, shift in ((name, 0, "right", -7), (text, 1, "left", 7)):
                axes.annotate(said, (at, y), xycoords=("axes fraction", "data"), xytext=(shift, 0), ha=ha, va="center",
                              textcoords="offset points", fontsize=SMALL)  # fmt: skip
        for x in (-1, 0, 1):
            axes.axvline(x, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlim(-1.08, 1.08)
        axes.set_xticks([-1, -0.5, 0, 0.5, 1])
        axes.set_yticks([])
        axes.tick_params(length=3)
        axes.set_xlabel("Kendall's tau")
        return svg_of(figure)


def _short(row: Mapping[str, Any]) -> str:
    """`learning_rate=0.004`, or `at 256 (learning_rate=0.004)`: there is little room."""
    value = re.sub(r"[\w.]+\.(?=\w+=)", "", str(row["value"]))
    return f"at {value}" if row["axis"] else value
