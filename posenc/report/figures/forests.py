"""Forest figures: paired differences from the baseline with their intervals, a line a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posenc.report import words
from posenc.report.figures.canvas import Picture, Tips, file_name, svg_of
from posenc.report.figures.labels import fitted, width_of
from posenc.report.figures.style import FONT, MUTED, PAPER, SMALL, STYLE, WIDTH, Look
from posenc.report.places import group_title, short_title
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM
from posenc.report.statistics.tables import COLUMN, GROUP

ROW = 0.27
"""The height of a row in inches."""


@dataclass(frozen=True)
class Line:
    """One row: a difference, its interval over seeds, that over the test items where there is one, and each seed's."""

    label: str
    mean: float
    low: float
    high: float
    item_low: float
    item_high: float
    text: str
    look: Look
    seeds: tuple[float, ...] = ()


def differences(summary: pd.DataFrame, items: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """For each group of cells the difference of every encoding from the baseline, at the trained length."""
    pictures = []
    main = summary[summary["main"].astype(bool) & (summary["evaluated"] == summary["length"]) & (summary["pairs"] > 0)]
    by_items = {tuple(row[name] for name in (*COLUMN, "encoding")): row for row in items.to_dict("records")}
    for values, group in main.groupby([*GROUP, "split"], dropna=False, sort=False):
        place = dict(zip([*GROUP, "split"], values, strict=True))
        decimals = words.decimals_for(group["mean"])
        rows = group.to_dict("records")
        lines = []
        for row in rows:
            item = by_items.get(tuple(row[name] for name in (*COLUMN, "encoding")), {})
            half = (row["difference_high"] - row["difference_low"]) / 2
            lines.append(
                Line(
                    str(row["label"]),
                    row["difference"],
                    row["difference_low"],
                    row["difference_high"],
                    item.get("item_low", math.nan),
                    item.get("item_high", math.nan),
                    words.with_half_width(row["difference"], half, decimals, signed=True),
                    styles[row["encoding"]],
                    _seeds(row),
                )
            )
        baseline = str(group["baseline"].iloc[0])
        axis = f"{group['title'].iloc[0]}, difference from {baseline}"
        svg = _forest(lines, axis, rows[0]["better"], baseline)
        shown = group[["encoding", "label", "pairs", "difference", "difference_low", "difference_high", "p", "named"]]
        if len(items):
            keys = [*COLUMN, "encoding"]
            more = items[[*keys, "item_low", "item_high"]]
            shown = group[[*keys, *[c for c in shown.columns if c not in keys]]].merge(more, on=keys, how="left")
        alt = f"Differences from {baseline} with 95 % intervals: {words.listed(line.label for line in lines)}"
        extra = "" if place["split"] in (None, "test") else f"-{place['split']}"
        title = group_title(place) + ("" if place["split"] in (None, "test") else f" ({place['split']})")
        pictures.append(
            Picture(file_name("forest", place) + extra, "forest", place, title, alt, _notes(lines), svg, shown)
        )
    return pictures


def _notes(lines: Sequence[Line]) -> tuple[str, ...]:
    said = [
        "At the trained length. Large point: mean of the differences paired by seed (hollow where seeds are too few for"
        " a claim); bar: its 95 % interval; small points: the seeds."
    ]
    if any(not math.isnan(line.item_low) for line in lines):
        said.append("Thin grey bar below: 95 % interval over the test items, the seeds as they are.")
    return tuple(said)


def _seeds(row: dict[str, Any]) -> tuple[float, ...]:
    return tuple(map(float, str(row["differences"]).split()))


def overview(rows: Sequence[dict[str, Any]], styles: dict[str, Look]) -> list[Picture]:
    """The comparison named by the suite in all groups of cells: a figure for each metric, in its own units.

    Different metrics share no unit, per cent of a score neither. Groups at the floor are left out: they say nothing of
    encodings.
    """
    named = [row for row in rows if row["named"] and row["pairs"]]
    shown = [row for row in named if not row["at_floor"]]
    if len(shown) < 2:
        return []
    at_floor = words.listed(short_title(row, rows) for row in named if row["at_floor"])
    claim, baseline = rows[0]["claim"], str(rows[0]["baseline"])
    pictures: list[Picture] = []
    for metric in dict.fromkeys(row["metric"] for row in shown):
        own = [row for row in shown if row["metric"] == metric]
        decimals = max(row["decimals"] for row in own)
        lines = []
        for row in own:
            half = (row["difference_high"] - row["difference_low"]) / 2
            text = words.with_half_width(row["difference"], half, decimals, signed=True)
            # Where all of them are at one length, or of one attention, that need not be said in every row.
            lines.append(
                Line(short_title(row, rows), row["difference"], row["difference_low"], row["difference_high"],
                     math.nan, math.nan, text, styles[row["encoding"]], _seeds(row))
            )  # fmt: skip
        columns = [*GROUP, "encoding", "difference", "difference_low", "difference_high", "pairs", "p_holm"]
        title = str(own[0]["title"])
        svg = _forest(lines, f"{title}: {claim} less {baseline}", own[0]["better"], baseline)
        notes = ["Differences paired by seed, with 95 % intervals; small points: the seeds; hollow: too few to claim."]
        if at_floor and not pictures:
            notes.append(f"Left out, as neither is better than a score without a model: {at_floor}.")
        alt = f"{claim} against {baseline}, {title}, with 95 % intervals"
        name = "answer" if len({row["metric"] for row in shown}) == 1 else f"answer-{metric}"
        head = f"{claim} against {baseline}, named by the suite: {title}"
        pictures.append(Picture(name, "answer", {}, head, alt, tuple(notes), svg, pd.DataFrame(own)[columns]))
    return pictures


def _forest(lines: Sequence[Line], axis: str, better: Any, baseline: str) -> str:
    """The SVG of a forest: names at the left, figures at the right, the baseline a line at nought."""
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False}):
        names = [line.label for line in lines]
        left = min(0.38 * WIDTH, max(map(width_of, names)) + 0.2)
        right = max(width_of(line.text) for line in lines) + 0.2
        top, bottom = 0.62, 0.5
        height = top + bottom + ROW * len(lines)
        figure = Figure(figsize=(WIDTH, height))
        box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, ROW * len(lines) / height)
        axes = figure.add_axes(box)
        tips, rows = Tips(), [(len(lines) - 1 - place, line) for place, line in enumerate(lines)]
        by_items = [(y - 0.22, line.item_low, line.item_high) for y, line in rows if not math.isnan(line.item_low)]
        if by_items:
            axes.hlines(*zip(*by_items, strict=True), color=MUTED, linewidth=1.2)
        whole = [(y, line.low, line.high, line.look.colour) for y, line in rows if not math.isnan(line.low)]
        if whole:
            axes.hlines(*zip(*whole, strict=True), linewidth=1.8)
        for y, line in rows:
            if len(line.seeds) > 1:
                axes.plot(line.seeds, [y + 0.24] * len(line.seeds), marker="o", color=line.look.colour, markersize=2.4,
                          linestyle="none", alpha=0.8)  # fmt: skip
            few: dict[str, Any] = {} if len(line.seeds) >= SEEDS_FOR_A_CLAIM else {"markerfacecolor": PAPER}
            (mark,) = axes.plot([line.mean], [y], marker=line.look.marker, color=line.look.colour, markersize=6,
                                linestyle="none", **few)  # fmt: skip
            tips.on(mark, f"{line.label}: {line.text}, {words.plural(len(line.seeds), 'seed')}")
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_yticks([])
        _texts(axes, lines, names, left - 0.12)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.05 * (high - low)), max(high, 0.05 * (high - low)))
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(length=3)
        at: dict[str, Any] = {"xycoords": ("figure fraction", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(axis, (0, 1), xytext=(6, 26), fontsize=FONT, **at)
        aside: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        aside |= {"fontsize": SMALL, "color": MUTED, "annotation_clip": False}
        if better in ("lower", "higher"):
            sides = ("better", "worse") if better == "lower" else ("worse", "better")
            for text, ha, shift in ((f"← {sides[0]}", "right", -5), (f"{sides[1]} →", "left", 5)):
                axes.annotate(text, (0, 1), xytext=(shift, 4), ha=ha, **aside)
        axes.set_xlabel("")
        axes.annotate(f"{baseline} = 0", (0, 0), xytext=(0, -24), ha="center", **aside)
        return svg_of(figure, tips)


def _texts(axes: Axes, lines: Sequence[Line], names: Sequence[str], room: float) -> None:
    for place, (line, name) in enumerate(zip(lines, fitted(names, room), strict=True)):
        y = len(lines) - 1 - place
        at: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": SMALL}
        axes.annotate(name, (0, y), xycoords=("axes fraction", "data"), xytext=(-7, 0), ha="right", **at)
        axes.annotate(line.text, (1, y), xycoords=("axes fraction", "data"), xytext=(7, 0), ha="left", **at)
