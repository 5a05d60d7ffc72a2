"""All at once: encodings by groups of cells, how far each lies from the baseline."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from posenc.records.record import NOT_RUN_YET, is_number
from posenc.report import words
from posenc.report.figures.canvas import Picture, Tips, svg_of
from posenc.report.figures.labels import fitted, width_of
from posenc.report.figures.style import MUTED, SMALL, STYLE, WIDTH
from posenc.report.places import short_title
from posenc.report.statistics.tables import GROUP, at_trained

LEAST = 6
"""Fewer cells than these are read at a glance in the tables."""
MOST = 3.0
"""Differences of so many standard deviations and more have the deepest colour."""
ROW, COLUMN = 0.26, 0.62


def heat_map(summary: pd.DataFrame) -> list[Picture]:
    """Differences from the baseline at the trained length, in standard deviations over seeds; above 0 is better.

    Cohen's d: the difference of the means over the root of the mean of both variances. So groups of different metrics
    stand side by side; what a standard deviation is worth in the metric's units stands in the tables.
    """
    groups = [rows for rows in at_trained(summary) if any(row["n"] or row["why"] != NOT_RUN_YET for row in rows)]
    places = [rows[0] for rows in groups]
    titles = [short_title(place, places) for place in places]
    baseline = str(places[0]["baseline"] or "") if places else ""
    names = [name for name in dict.fromkeys(row["encoding"] for rows in groups for row in rows) if name != baseline]
    if not baseline or len(names) * len(groups) < LEAST:
        return []
    labels = {row["encoding"]: str(row["label"]) for rows in groups for row in rows}
    values = np.full((len(names), len(groups)), np.nan)
    texts, tips = (np.full(values.shape, "", dtype=object) for _ in range(2))
    floors: list[tuple[int, int]] = []
    shown = []
    for column, rows in enumerate(groups):
        by_name = {row["encoding"]: row for row in rows}
        for index, name in enumerate(names):
            row = by_name.get(name)
            found = _effect(row, by_name.get(baseline))
            values[index, column] = found
            texts[index, column] = _text(row, found)
            tips[index, column] = f"{labels[name]}, {titles[column]}: {_tip(row, found)}"
            if row is not None and row["at_floor"]:
                floors.append((index, column))
            if row is not None:
                shown.append({**{key: row[key] for key in GROUP}, "encoding": name, "deviations": found,
                              "at_floor": bool(row["at_floor"]), "why": row["why"]})  # fmt: skip
    svg = _drawn(values, texts, tips, [labels[name] for name in names], titles, floors)
    notes = [
        f"Difference from {baseline} over the seeds' standard deviation (root of the mean of both variances). Above 0"
        " is better, whichever way the metric runs. No cell is a claim.",
    ]
    if floors:
        notes.append("Hatched: neither is better than a score without a model.")
    if any(text == "n/p" for text in texts.flat):
        notes.append("n/p: not possible; the tables say why.")
    alt = f"Encodings by groups of cells: {words.listed(labels[name] for name in names)}"
    title = "All encodings at once, at the trained length"
    return [Picture("overview", "overview", {}, title, alt, tuple(notes), svg, pd.DataFrame(shown))]


def _effect(row: dict[str, Any] | None, theirs: dict[str, Any] | None) -> float:
    if row is None or theirs is None or not row["pairs"]:
        return math.nan
    spread = math.sqrt((row["sd"] ** 2 + theirs["sd"] ** 2) / 2)
    if not (is_number(row["difference"]) and is_number(spread) and spread > 0):
        return math.nan
    return float(row["difference"] / spread * (-1 if row["better"] == "lower" else 1))


def _text(row: dict[str, Any] | None, value: float) -> str:
    if is_number(value):
        return words.number(value, 0 if abs(value) >= 9.95 else 1, signed=True)
    if row is not None and str(row["why"] or "").startswith("not possible"):
        return "n/p"
    return "\u2013"


def _tip(row: dict[str, Any] | None, value: float) -> str:
    """The difference in the metric's own units, and in standard deviations."""
    if row is None:
        return "not asked for"
    if not row["pairs"]:
        return str(row["why"] or row["baseline_note"] or "no difference")
    half = (row["difference_high"] - row["difference_low"]) / 2
    apart = words.with_half_width(row["difference"], half, words.decimals_for([row["mean"]]), signed=True)
    deviations = f", {words.number(value, 1, signed=True)} standard deviations" if is_number(value) else ""
    floor = "; at the floor" if row["at_floor"] else ""
    return f"{apart} {row['title']}{deviations}, {words.plural(int(row['pairs']), 'seed')}{floor}"


def _drawn(
    values: np.ndarray[Any, Any], texts: np.ndarray[Any, Any], told: np.ndarray[Any, Any], names: list[str],
    titles: list[str], floors: list[tuple[int, int]],
) -> str:  # fmt: skip
    with mpl.rc_context({**STYLE, "axes.grid": False, "hatch.linewidth": 0.6}):
        left = min(2.4, max(map(width_of, names)) + 0.2)
        titles = fitted(titles, 2.4)
        slanted = max(map(width_of, titles)) * 0.77  # at 40 degrees, across and up alike
        top, width = slanted + 0.2, max(WIDTH, left + COLUMN * (len(titles) - 0.5) + slanted + 0.15)
        height = top + ROW * len(names) + 0.15
        figure = Figure(figsize=(width, height))
        box = (left / width, 0.1 / height, COLUMN * len(titles) / width, ROW * len(names) / height)
        axes = figure.add_axes(box)
        sns.heatmap(
            np.clip(np.nan_to_num(values), -MOST, MOST), mask=np.isnan(values), ax=axes, cbar=False, linewidths=1.0,
            cmap=sns.diverging_palette(28, 250, s=75, l=55, as_cmap=True), norm=TwoSlopeNorm(0, -MOST, MOST),
            linecolor="none",
        )  # fmt: skip
        for (row, column), text in np.ndenumerate(texts):
            empty = math.isnan(values[row, column])
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=SMALL - 0.5,
                      color=MUTED if empty else "#101418")  # fmt: skip
        for row, column in floors:
            axes.add_patch(Rectangle((column, row), 1, 1, fill=False, hatch="////", edgecolor=MUTED, linewidth=0))
        turned: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
        axes.set_xticks(np.arange(len(titles)) + 0.5, titles, **turned)
        axes.set_yticks(np.arange(len(names)) + 0.5, fitted(names, left - 0.12), rotation=0)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        tips = Tips()
        tips.on(axes.collections[0], *told.flat)
        return svg_of(figure, tips)
