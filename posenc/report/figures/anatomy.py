"""What heads do with position, as small multiples: by distance, by layer, as maps; grey before training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from posenc.report.figures.canvas import Picture, file_name, svg_of
from posenc.report.figures.labels import fitted
from posenc.report.figures.style import INK, MUTED, PAPER, SMALL, STYLE, WIDTH, Look
from posenc.report.places import group_title
from posenc.report.statistics.anatomy import AFTER, BEFORE, Anatomies
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP, at_place
from posenc.report.words import listed

WIDE = 1.25 * WIDTH
ACROSS, PANEL = 4, 1.45
"""Panels side by side, and the height of one in inches."""
VIEWS = {
    "similarity": ("Similarity by distance, of the encoding alone", "score of a query and a key of the same content"),
    "score": ("Score by distance, on text", "mean score before the softmax"),
}
DOTS = {
    "mean_distance": "attended distance (tokens)",
    "evenness": "entropy (uniform: 1)",
    "first_token": "share on the first token",
}
BARS = {
    "kl_shuffled": "context shuffled", "kl_shifted": "context moved by one", "kl_swapped": "two tokens exchanged",
    "to_embeddings": "added to embeddings", "to_scores": "change of scores", "to_values": "added to values",
}  # fmt: skip


LEAST = 1e-6
"""Less attention than this is not drawn."""
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def places(found: Anatomies) -> list[dict[str, Any]]:
    """The groups of cells that were measured."""
    keys = found.heads[GROUP].drop_duplicates()
    return [dict(zip(GROUP, values, strict=True)) for values in keys.itertuples(index=False)]


def by_distance(found: Anatomies, styles: dict[str, Look]) -> list[Picture]:
    """For each view of scores a panel an encoding: thin lines its heads, one thick their mean."""
    pictures = []
    for place in places(found):
        for view, (title, axis) in VIEWS.items():
            curves = at_place(found.curves, place)
            curves = curves[curves["view"] == view]
            names = _named(curves, styles)
            if not names:
                continue
            with mpl.rc_context(STYLE):
                figure, panels = _panels(names, curves)
                for name, axes in panels.items():
                    mine = curves[curves["encoding"] == name]
                    for state, colour, over in ((BEFORE, MUTED, 2), (AFTER, styles[name].colour, 3)):
                        _heads(axes, mine[mine["state"] == state], colour, over)
                figure.supxlabel("distance (tokens)", fontsize=SMALL)
                _over(figure, axis)
                svg = svg_of(figure)
            notes = (
                "Grey: before training; in colour: after. Thin: a head of the first seed; thick: the mean of the heads."
                " Scores have their own scale in each panel.",
            )
            alt = f"{title}: {listed(names)}"
            kind = f"anatomy-{view}"
            pictures.append(_picture(kind, place, f"{title}: {group_title(place)}", alt, notes, svg, curves))
    return pictures


def _heads(axes: Axes, curves: pd.DataFrame, colour: str, over: int) -> None:
    for _, head in curves.groupby(["layer", "head"]):
        axes.plot(head["distance"], head["value"], color=colour, linewidth=0.5, alpha=0.55, zorder=over)
    mean = curves.groupby("distance")["value"].mean()
    axes.plot(mean.index, mean, color=colour, linewidth=1.8, zorder=over)


def beyond(found: Anatomies, styles: dict[str, Look]) -> list[Picture]:
    """Attention by distance after training, at the trained length and at the longest: a line an encoding."""
    pictures = []
    for place in places(found):
        weights = at_place(found.means, place)
        weights = weights[(weights["view"] == "weight") & (weights["state"] == AFTER) & (weights["distance"] >= 0)]
        if weights.empty:
            continue
        lengths = sorted({int(place["length"]), int(weights["evaluated"].max())})
        names = _named(weights, styles)
        labels = weights.groupby("encoding")["label"].first()
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(WIDE, 2.9), layout="constrained")
            grid = np.ravel(figure.subplots(1, len(lengths), squeeze=False, sharey=True))
            for axes, length in zip(grid, lengths, strict=True):
                at = weights[weights["evaluated"] == length]
                for name in _named(at, styles):
                    line, look = at[at["encoding"] == name], styles[name]
                    shown = {"color": look.colour, "dashes": look.dashes or (None, None), "label": labels[name]}
                    axes.plot(line["distance"] + 1, line["value"], linewidth=1.3, **shown)
                axes.set(xscale="log", yscale="log")
                axes.set_ylim(bottom=max(LEAST, weights["value"].min() / 2))
                axes.xaxis.set_major_formatter(PLAIN)
                axes.yaxis.set_major_formatter(PLAIN)
                axes.minorticks_off()
                axes.set_title(
                    f"{length:,} tokens" + (", trained" if length == place["length"] else ""), fontsize=SMALL
                )
            grid[0].set_ylabel("mean attention weight")
            figure.supxlabel("distance (tokens) + 1", fontsize=SMALL)
            handles, texts = grid[0].get_legend_handles_labels()
            figure.legend(handles, fitted(texts, 1.2), loc="outside right center", frameon=False, fontsize=SMALL)
            svg = svg_of(figure)
        notes = ("Means over layers, heads and seeds. An encoding without a line has no answer for that length.",)
        alt = f"Attention by distance: {listed(names)}"
        title = f"Attention by distance, after training: {group_title(place)}"
        pictures.append(_picture("anatomy-weight", place, title, alt, notes, svg, weights))
    return pictures


def by_layer(found: Anatomies, styles: dict[str, Look]) -> list[Picture]:
    """How far, how evenly and how much at the first token heads look: a dot a head, at the trained length."""
    pictures = []
    for place in places(found):
        heads = at_place(found.heads, place)
        heads = heads[(heads["evaluated"] == place["length"]) & heads["metric"].isin(DOTS)]
        names = _named(heads, styles)
        dots = _intervals(heads, ["encoding", "label", "state", "metric", "layer", "rank"])
        layers = int(heads["layer"].max())

        def draw(axes: Axes, row: Any, names: list[str] = names, layers: int = layers) -> None:
            # Of each encoding a lane a layer, the first at the top.
            lane = names.index(row.encoding) + 0.7 * ((row.layer - 0.5) / layers - 0.5)
            _dot(axes, lane, row, styles[row.encoding].colour)

        svg = _lanes(DOTS, names, heads, dots, 0.22 * (1 + layers / 2), draw)
        notes = (
            "A dot a head, in a lane a layer, the first layer on top. Grey rings: before training; in colour: after."
            " Heads are ranked within their layer in each seed; mean over seeds with its interval, cut at the edge.",
        )
        alt = f"Heads of {listed(names)}: {listed(DOTS.values())}"
        title = f"Heads by layer: {group_title(place)}"
        pictures.append(_picture("anatomy-heads", place, title, alt, notes, svg, dots))
    return pictures


def bars(scores: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """How much predictions change with the context's order, and how much the encoding adds, at the trained length.

    Args:
        scores: a row a score, with `state`.
    """
    pictures = []
    mine = scores[(scores["evaluated"] == scores["length"]) & scores["metric"].isin(BARS)]
    for values, group in mine.groupby(GROUP, dropna=False, sort=False):
        place = dict(zip(GROUP, values, strict=True))
        names = _named(group, styles)
        means = _intervals(group, ["encoding", "label", "state", "metric"])

        def draw(axes: Axes, row: Any, names: list[str] = names) -> None:
            colour, lane = styles[row.encoding].colour, names.index(row.encoding)
            if row.state == AFTER:
                axes.barh(lane, row.mean, 0.62, color=colour, alpha=0.8, zorder=2)
                _whisker(axes, lane, row, INK)
            else:
                _dot(axes, lane, row, colour)

        svg = _lanes(BARS, names, group, means, 0.22, draw)
        notes = (
            "Above: the divergence of predictions, in nats a token, when the tokens before them change places. Below:"
            " what the encoding adds or changes, over what was there without it. Bars: after training; grey rings:"
            " before; mean over seeds, with its 95 % interval, cut at the edge. Each panel has its own scale.",
        )
        alt = f"Sensitivity and what is added: {listed(names)}"
        title = f"Order of the context, and what the encoding adds: {group_title(place)}"
        pictures.append(_picture("anatomy-bars", place, title, alt, notes, svg, means))
    return pictures


def _lanes(
    titles: Mapping[str, str], names: list[str], frame: pd.DataFrame, values: pd.DataFrame, height: float,
    draw: Callable[[Axes, Any], None],
) -> str:  # fmt: skip
    """SVG of a panel for each metric, an encoding a row of it: `draw` is given each of the metric's values."""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, grid = _rows_of(list(titles), names, frame, height=height)
        for axes, (metric, title) in zip(grid, titles.items(), strict=True):
            mine = values[values["metric"] == metric]
            axes.set_title(title, fontsize=SMALL)
            for row in mine.itertuples():
                draw(axes, row)
            _from_nought(axes, mine)
        return svg_of(figure)


def gallery(found: Anatomies, styles: dict[str, Look]) -> list[Picture]:
    """Attention maps of one seed after training: the heads that look nearest and farthest, of first and last layer."""
    pictures = []
    for place in places(found):
        mine = {str(at["encoding"]): (label, maps, away) for at, label, maps, away in found.maps if _same(at, place)}
        names = [name for name in styles if name in mine]
        if not names:
            continue
        layers = sorted({0, len(mine[names[0]][1]) - 1})
        columns = [(layer, pick) for layer in layers for pick in ("nearest", "farthest")]
        with mpl.rc_context({**STYLE, "axes.grid": False}):
            side = WIDTH / 4.6
            size = (side * len(columns) + 0.9, side * len(names) + 0.5)
            figure = Figure(figsize=size, layout="constrained")
            grid = figure.subplots(len(names), len(columns), squeeze=False)
            labels = fitted([mine[name][0] for name in names], side)
            for row, name in enumerate(names):
                for column, (layer, pick) in enumerate(columns):
                    axes = grid[row][column]
                    head = _picked(mine[name][2][layer], pick)
                    _map(axes, mine[name][1][layer, head], styles[name].colour)
                    if row == 0:
                        axes.set_title(f"layer {layer + 1},\n{pick} head", fontsize=SMALL)
                grid[row][0].set_ylabel(labels[row], fontsize=SMALL)
            svg = svg_of(figure)
        notes = (
            "One seed, one row of text, its first tokens: a query a line, downwards; a key a column. Each line is over"
            " its own largest weight. Nearest and farthest by mean attended distance.",
        )
        alt = f"Attention maps of {listed(names)}"
        title = f"Attention maps: {group_title(place)}"
        data = pd.DataFrame([_map_row(name, mine[name], layer, pick) for name in names for layer, pick in columns])
        pictures.append(_picture("anatomy-maps", place, title, alt, notes, svg, data))
    return pictures


def _map(axes: Axes, weights: Any, colour: str) -> None:
    shares = weights.astype(float)
    shares = shares / np.maximum(shares.max(axis=1, keepdims=True), 1e-9)
    axes.imshow(shares, cmap=sns.light_palette(colour, as_cmap=True), vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _picked(away: Any, pick: str) -> int:
    return int(away.argmin() if pick == "nearest" else away.argmax())


def _map_row(name: str, found: tuple[str, Any, Any], layer: int, pick: str) -> dict[str, Any]:
    label, _, away = found
    head = _picked(away[layer], pick)
    about = {"encoding": name, "label": label, "layer": layer + 1, "head": head + 1, "picked": pick}
    return {**about, "mean_distance": float(away[layer, head])}


def _same(one: dict[str, Any], place: dict[str, Any]) -> bool:
    return all(one[key] == place[key] for key in GROUP)


def _named(frame: pd.DataFrame, styles: dict[str, Look]) -> list[str]:
    return [name for name in styles if name in set(frame["encoding"])]


def _intervals(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The mean over seeds and its interval, for each of the keys."""
    rows = [
        {**dict(zip(keys, values, strict=True)), "seeds": group["seed"].nunique(),
         **interval([value for value in group["value"] if math.isfinite(value)])._asdict()}
        for values, group in frame.dropna(subset="value").groupby(list(keys), sort=False)
    ]  # fmt: skip
    columns = [*keys, "seeds", "mean", "sd", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _dot(axes: Axes, lane: float, row: Any, colour: str) -> None:
    """A head or an encoding at its value: a grey ring before training, a dot after."""
    before = row.state == BEFORE
    look: dict[str, Any] = {
        "markerfacecolor": PAPER if before else colour,
        "markeredgecolor": MUTED if before else PAPER,
    }
    axes.plot(row.mean, lane, marker="o", markersize=3.6, linestyle="", zorder=3 if before else 4, **look)
    _whisker(axes, lane, row, MUTED if before else colour)


def _from_nought(axes: Axes, rows: pd.DataFrame) -> None:
    """An axis to the largest mean: of few seeds an interval may be many times as wide, and is cut off."""
    axes.set_xlim(0, 1.12 * (rows["mean"].max() or 1.0))
    axes.locator_params(axis="x", nbins=3)
    axes.xaxis.set_major_formatter(PLAIN)


def _whisker(axes: Axes, lane: float, row: Any, colour: str) -> None:
    if math.isfinite(row.low):
        axes.plot([row.low, row.high], [lane, lane], color=colour, linewidth=0.8, zorder=2.5)


def _rows_of(
    metrics: list[str], names: list[str], frame: pd.DataFrame, height: float
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Panels, three to a row, whose lanes are encodings, the first on top."""
    down = math.ceil(len(metrics) / 3)
    figure = Figure(figsize=(WIDE, down * (0.65 + height * len(names))), layout="constrained")
    grid = list(np.ravel(figure.subplots(down, 3, squeeze=False, sharey=True)))
    labels = frame.groupby("encoding")["label"].first()
    for axes in grid:
        axes.set_yticks(range(len(names)), fitted([labels[name] for name in names], 1.3))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
    return figure, grid


def _panels(names: list[str], frame: pd.DataFrame) -> tuple[Figure, dict[str, Axes]]:
    """A panel an encoding, under its name."""
    across = min(ACROSS, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(WIDE, 0.7 + PANEL * down), layout="constrained")
    grid = list(np.ravel(figure.subplots(down, across, squeeze=False, sharex=True)))
    labels = frame.groupby("encoding")["label"].first()
    for axes, text in zip(grid, fitted([labels[name] for name in names], WIDE / across - 0.5), strict=False):
        axes.set_title(text, fontsize=SMALL)
        axes.locator_params(nbins=4)
    for axes in grid[len(names) :]:
        axes.remove()
    return figure, dict(zip(names, grid, strict=False))


def _over(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=SMALL)


def _picture(
    kind: str, place: dict[str, Any], title: str, alt: str, notes: tuple[str, ...], svg: str, data: pd.DataFrame
) -> Picture:
    return Picture(file_name(kind, place), "anatomy", place, title, alt, notes, svg, data)


ALL: tuple[Callable[[Anatomies, dict[str, Look]], list[Picture]], ...] = (by_distance, beyond, by_layer, gallery)
