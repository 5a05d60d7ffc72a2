"""The loss by place in the window as SVG: one figure a group of cells, a line an encoding."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.ticker import FuncFormatter, NullLocator

from posenc.report.figures.canvas import Picture, Tips, canvas, draw_line, file_name, finish, svg_of
from posenc.report.figures.labels import label_ends
from posenc.report.figures.style import MUTED, STYLE, Look
from posenc.report.places import group_title
from posenc.report.statistics.tables import GROUP
from posenc.report.words import listed


def loss_by_position(positions: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """The mean loss at each place, with its interval: of the shortest windows that reach it, as they are the most.

    The table beside it has the places of every length's windows.
    """
    pictures = []
    for values, group in positions.groupby([*GROUP, "split"], dropna=False, sort=False):
        place = dict(zip([*GROUP, "split"], values, strict=True))
        shown = _shortest(group)
        names = [name for name in styles if name in set(shown["encoding"])]
        if shown["x"].nunique() < 2:
            continue
        with mpl.rc_context(STYLE):
            labels = shown.groupby("encoding")["label"].first()
            figure, axes = canvas(list(labels))
            axes.set_xscale("log", base=2)
            tips = Tips()
            for name, mine in shown.sort_values("x").groupby("encoding"):
                colour = styles[str(name)].colour
                tips.on(
                    draw_line(axes, list(mine["x"]), list(mine["mean"]), styles[str(name)], marked=False),
                    str(labels[name]),
                )
                axes.fill_between(mine["x"], mine["low"], mine["high"], color=colour, alpha=0.15, linewidth=0)
            axes.axvline(place["length"], color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.xaxis.set_minor_locator(NullLocator())
            unit = shown["unit"].iloc[0]
            finish(axes, "place in the window, in tokens", f"{place['split'] or 'test'} loss, {unit} a token", "lower")
            last = shown.sort_values("x").groupby("encoding").last()
            label_ends(axes, [(n, labels[n], last.loc[n, "x"], last.loc[n, "mean"]) for n in names], styles)
            svg = svg_of(figure, tips)
        pictures.append(
            Picture(
                file_name("positions", place), "positions", place, group_title(place),
                f"Loss by place in the window of {listed(names)}", _notes(shown, place), svg, group,
            )
        )  # fmt: skip
    return pictures


def _shortest(group: pd.DataFrame) -> pd.DataFrame:
    """Of each encoding and place the row of the shortest windows that reach it; x: a bin's middle, as the axis has it.

    Places are counted from 1.
    """
    parts = []
    for _, mine in group.groupby("encoding", sort=False):
        reached = 0
        for length, rows in mine.groupby("evaluated"):
            parts.append(rows[rows["last"] > reached])
            reached = length
    return pd.concat(parts).assign(x=lambda rows: (rows["first"] * rows["last"]) ** 0.5)


def _notes(shown: pd.DataFrame, place: dict[str, Any]) -> tuple[str, ...]:
    """What the reader must know: where training ended, of which windows a place is, whose do not go as far."""
    lengths = listed(f"{length:,}" for length in sorted(set(shown["evaluated"])))
    said = f"Dotted: {place['length']:,} tokens, the trained length."
    said += f" Windows of {lengths} tokens; each place is of the shortest that reach it."
    furthest = shown.groupby("encoding")["last"].transform("max")
    short = shown[(furthest < shown["last"].max()) & (shown["last"] == furthest)]
    return (said, *(f"{row.label}: not possible beyond {row.last:,} tokens." for row in short.itertuples()))
