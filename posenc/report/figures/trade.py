"""Cost against quality: a panel for each group of cells, an encoding a point; up and to the left is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from posenc.report import words
from posenc.report.figures.canvas import Picture, Tips, canvas, file_name, finish, svg_of
from posenc.report.figures.labels import LINE, fitted, label_ends, width_of
from posenc.report.figures.style import MUTED, PAPER, SMALL, STYLE, Look
from posenc.report.places import short_title
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM
from posenc.report.statistics.tables import GROUP

LEAST = 2
"""So many encodings beside the baseline are worth a figure."""
WIDE = 2
"""Of more groups the panels are small, name the best for their cost alone, and share a key."""
NARROW, NAMES = 3.3, 1.1  # inches
COSTS = {
    "s": "training time (no two cells ran at once, the seeds of each encoding agree within 10 %)",
    "FLOPs a token": "FLOPs a token",
}


def cost_against_quality(rows: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """Panels of `statistics.trade`, and a key to their marks where they do not name all of them."""
    groups = [group for _, group in rows.groupby(GROUP, dropna=False, sort=False) if len(group) > LEAST]
    places = [{key: group[key].iloc[0] for key in GROUP} for group in groups]
    small = len(groups) > WIDE
    pictures = [
        _panel(group, place, short_title(place, places), styles, small=small)
        for group, place in zip(groups, places, strict=True)
    ]
    if small:
        labels = {
            name: str(label) for group in groups for name, label in zip(group["encoding"], group["label"], strict=False)
        }
        pictures.append(_key({name: labels[name] for name in styles if name in labels}, styles))
    return pictures


def said(rows: pd.DataFrame) -> str:
    """What the panels show, in words."""
    costs = words.listed(COSTS[unit] for unit in dict.fromkeys(rows["unit"]))
    return (
        f"Cost is {costs}, over the baseline's; quality is the difference from the baseline in the metric's own units,"
        " at the trained length, up always better. Bar: 95 % interval, paired by seed; hollow: too few seeds for a"
        " claim; grey: neither is better than a score without a model. Points of one cost stand side by side. No point"
        " is a claim."
    )


def front(rows: pd.DataFrame) -> list[str]:
    """The encodings than which none is cheaper and better at once."""
    sign = -1 if rows["better"].iloc[0] == "lower" else 1
    ordered = sorted(rows.to_dict("records"), key=lambda row: (row["times"], -sign * row["difference"]))
    found: list[dict[str, Any]] = []
    for row in ordered:
        if not found or sign * row["difference"] > sign * found[-1]["difference"]:
            found.append(row)
    return [row["encoding"] for row in found]


def _panel(group: pd.DataFrame, place: dict[str, Any], title: str, styles: dict[str, Look], *, small: bool) -> Picture:
    rows = group.assign(x=_side_by_side(group, small=small))
    lower, unit = rows["better"].iloc[0] == "lower", str(rows["unit"].iloc[0])
    baseline = rows.loc[(rows["pairs"] == 0), "encoding"].iloc[0]
    named = [baseline, *front(rows)] if small else list(rows["encoding"])
    decimals, tips = words.decimals_for(rows["difference"]), Tips()
    with mpl.rc_context(STYLE):
        labels = rows.set_index("encoding")["label"].astype(str)
        shown = [name for name in rows["encoding"] if name in named]
        figure, axes = _small([labels[name] for name in shown]) if small else canvas([labels[n] for n in shown])
        colours = {row.encoding: MUTED if row.at_floor else styles[row.encoding].colour for row in rows.itertuples()}
        for row in rows.to_dict("records"):
            if row["difference_low"] < row["difference_high"]:
                bar = row["difference_low"], row["difference_high"]
                axes.vlines(row["x"], *bar, color=colours[row["encoding"]], linewidth=1.2, alpha=0.7)
        sns.scatterplot(
            rows, x="x", y="difference", hue="encoding", style="encoding", palette=colours, legend=False, ax=axes,
            markers={name: styles[name].marker for name in rows["encoding"]}, s=38, zorder=3,
        )  # fmt: skip
        points = axes.collections[-1]
        few = (rows["pairs"] < SEEDS_FOR_A_CLAIM) & (rows["encoding"] != baseline)
        own = [colours[name] for name in rows["encoding"]]
        points.set_facecolor([PAPER if hollow else colour for hollow, colour in zip(few, own, strict=True)])
        points.set_edgecolor(own)
        points.set_linewidth(1.2)
        tips.on(points, *(_tip(row, decimals, baseline) for row in rows.to_dict("records")))
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
        if lower:
            axes.invert_yaxis()
        _cost_axis(axes, list(rows["x"]))
        over = "training time" if unit == "s" else unit
        finish(axes, f"{over}, times {baseline}'s", f"\u2191 better: {rows['title'].iloc[0]} less {baseline}'s")
        ends = [(row.encoding, labels[row.encoding], row.x, row.difference) for row in rows.itertuples()]
        label_ends(
            axes, [end for end in ends if end[0] in shown], {n: Look(colours[n], styles[n].marker, "") for n in shown}
        )
        svg = svg_of(figure, tips)
    alt = f"Cost against quality of {words.listed(labels)}: {title}"
    data = rows.drop(columns=["x"])
    return Picture(file_name("trade", place), "trade", place, title, alt, (), svg, data)


def _small(labels: Sequence[str]) -> tuple[Figure, Axes]:
    room = min(NAMES, max(map(width_of, labels)) + 0.4)
    height = max(2.3, 1.0 + len(labels) * LINE)
    figure = Figure(figsize=(NARROW, height))
    left, bottom, top = 0.52, 0.55, 0.34
    box = (left / NARROW, bottom / height, (NARROW - left - room) / NARROW, (height - bottom - top) / height)
    return figure, figure.add_axes(box)


def _side_by_side(group: pd.DataFrame, *, small: bool) -> list[float]:
    """Costs, those that are the same a little apart."""
    step = max(group["times"].max() - group["times"].min(), 0.02) * (0.045 if small else 0.03)
    same = group["times"].round(3)
    place, many = group.groupby(same).cumcount(), same.map(same.value_counts())
    return list(group["times"] + (place - (many - 1) / 2) * step)


def _cost_axis(axes: Axes, x: Sequence[float]) -> None:
    low, high = min(x), max(x)
    # Costs that are all alike lie in the middle of 4 % of a cost: its ticks must differ in three figures.
    margin = max(0.08 * (high - low), 0.02 - (high - low) / 2)
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _tip(row: dict[str, Any], decimals: int, baseline: str) -> str:
    cost = words.duration(row["cost"]) if row["unit"] == "s" else f"{words.short_count(row['cost'])} {row['unit']}"
    cost = f"{cost}, {words.times(row['times'])} {baseline}'s"
    if row["encoding"] == baseline:
        return f"{row['label']}, the baseline: {cost}"
    half = (row["difference_high"] - row["difference_low"]) / 2
    apart = words.with_half_width(row["difference"], half, decimals, signed=True)
    return f"{row['label']}: {apart} {row['title']}, {words.plural(int(row['pairs']), 'seed')}; {cost}"


def _key(labels: dict[str, str], styles: dict[str, Look]) -> Picture:
    """All marks with their names, in columns."""
    texts = fitted(list(labels.values()), 1.35)
    columns = 2
    lines = -(-len(texts) // columns)
    height = 0.2 + lines * LINE * 1.15
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(NARROW, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, NARROW)
        axes.set_ylim(height, 0)
        for index, (name, text) in enumerate(zip(labels, texts, strict=True)):
            column, line = divmod(index, lines)
            x, y = 0.15 + column * NARROW / columns, 0.1 + (line + 0.5) * LINE * 1.15
            axes.plot([x], [y], marker=styles[name].marker, color=styles[name].colour, linestyle="none")
            axes.annotate(text, (x, y), xytext=(8, 0), textcoords="offset points", va="center", fontsize=SMALL)
        svg = svg_of(figure)
    data = pd.DataFrame({"encoding": list(labels), "label": list(labels.values())})
    alt = f"Marks of {words.listed(labels.values())}"
    return Picture("trade-key", "key", {}, "Marks", alt, (), svg, data)
