"""Figures as SVG text: learning curves, and scores by evaluated length.

One figure a group of cells, narrow enough for a phone. Colour, line and marker belong to the encoding and
are the same in every figure; names stand at the ends of the lines. Figures are drawn without pyplot's
state, and the same records give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from posenc.report.figures.canvas import Picture, Tips, canvas, draw_line, file_name, finish, svg_of
from posenc.report.figures.labels import label_ends
from posenc.report.figures.style import MUTED, SMALL, STYLE, Look
from posenc.report.places import group_title, plain_name
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP, at_place
from posenc.report.words import decimals_for, listed, plural, with_half_width


def learning_curves(curves: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """Validation score against training tokens: the mean over seeds, and its 95 % interval as a band."""
    pictures = []
    for place, group in _groups(curves):
        names = [name for name in styles if name in set(group["encoding"])]
        with mpl.rc_context(STYLE):
            labels = group.groupby("encoding")["label"].first()
            figure, axes = canvas(list(labels))
            # A marker on each of many points would hide the line; on a few it shows where it was measured.
            marked = group["tokens"].nunique() <= 12
            drawn = pd.DataFrame(
                [
                    {"encoding": name, "tokens": tokens, "n": len(values), **interval(list(values))._asdict()}
                    for (name, tokens), values in _by(group, "encoding", "tokens")
                ]
            )
            unit, tips = str(group["title"].iloc[0]), Tips()
            _lines(axes, drawn, "tokens", labels, styles, tips, unit, marked=marked)
            for name, mine in drawn.groupby("encoding"):
                colour = styles[str(name)].colour
                axes.fill_between(mine["tokens"], mine["low"], mine["high"], color=colour, alpha=0.15, linewidth=0)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            finish(axes, "training tokens", f"validation {group['title'].iloc[0]}", group["better"].iloc[0])
            last = drawn.groupby("encoding").last()
            ends = [(name, labels[name], last.loc[name, "tokens"], last.loc[name, "mean"]) for name in names]
            label_ends(axes, ends, styles)
            svg = svg_of(figure, tips)
        alt = f"Learning curves of {listed(names)}"
        shown = group[["encoding", "label", "seed", "tokens", "seconds", "value", "id"]]
        title = group_title(place)
        notes = ("Band: the 95 % interval of the mean over seeds.",)
        pictures.append(Picture(file_name("curve", place), "curve", place, title, alt, notes, svg, shown))
    return pictures


def score_by_length(summary: pd.DataFrame, references: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """The score at each evaluated length, with its interval; the trained length is marked."""
    pictures = []
    for place, group in _groups(summary[summary["main"].astype(bool)]):
        scored = group[group["n"] > 0]
        if group["evaluated"].nunique() < 2 or scored.empty:  # of one length the table says as much
            continue
        names = [name for name in styles if name in set(scored["encoding"])]
        notes = _unscored(group)
        labels = {name: _end_label(name, group) for name in names}
        with mpl.rc_context(STYLE):
            figure, axes = canvas(list(labels.values()), bottom=0.74)
            points = _points(scored, names)
            tips = Tips()
            _lines(axes, points, "x", group.groupby("encoding")["label"].first(), styles, tips,
                   str(group["title"].iloc[0]), marked=True)  # fmt: skip
            bars = points[points["low"].notna()]
            axes.vlines(bars["x"], bars["low"], bars["high"], [styles[name].colour for name in bars["encoding"]],
                        linewidth=1.2)  # fmt: skip
            _length_axis(axes, sorted(set(scored["evaluated"])), place["length"])
            _reference_lines(axes, references, place)
            finish(
                axes,
                "evaluated length",
                f"{place['split'] or 'test'} {group['title'].iloc[0]}",
                group["better"].iloc[0],
            )
            last = points.sort_values("x").groupby("encoding").last()
            label_ends(axes, [(n, labels[n], last.loc[n, "x"], last.loc[n, "mean"]) for n in names], styles)
            svg = svg_of(figure, tips)
        alt = f"Score by evaluated length of {listed(names)}"
        shown = group[["encoding", "label", "evaluated", "n", "mean", "low", "high", "seeds", "why"]]
        title = group_title(place)
        pictures.append(Picture(file_name("length", place), "length", place, title, alt, tuple(notes), svg, shown))
    return pictures


def _lines(
    axes: Axes, data: pd.DataFrame, x: str, labels: Mapping[Any, Any], styles: dict[str, Look], tips: Tips, unit: str,
    *, marked: bool,
) -> None:  # fmt: skip
    """A line for each encoding through its means, as they are; what each of its points is, to whoever points at it."""
    decimals = decimals_for(data["mean"])
    at = "evaluated" if "evaluated" in data else x
    parts = dict(iter(data.sort_values(x).groupby("encoding")))
    for name in (name for name in styles if name in parts):
        mine = parts[name]
        line = draw_line(axes, list(mine[x]), list(mine["mean"]), styles[name], marked=marked)
        told = [
            f"{labels[name]} at {place:,}{'' if at == 'evaluated' else f' {at}'}:"
            f" {with_half_width(mean, (high - low) / 2, decimals)} {unit}, {plural(int(n), 'seed')}"
            for place, mean, low, high, n in zip(*(mine[key] for key in (at, "mean", "low", "high", "n")), strict=True)
        ]
        # A single point has marks alone, and no line before them.
        tips.on(line, *([str(labels[name])] if len(mine) > 1 else []), *(told if marked else []))


def _by(group: pd.DataFrame, *keys: str) -> Iterable[tuple[tuple[Any, ...], list[float]]]:
    """The values of each of a table's groups, in the order of their keys; pandas' own takes a frame for each."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for *place, value in zip(*(group[key] for key in (*keys, "value")), strict=True):
        found.setdefault(tuple(place), []).append(value)
    return sorted(found.items())


def _groups(frame: pd.DataFrame) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    keys = [*GROUP, "split"] if "split" in frame else GROUP
    for values, group in frame.groupby(keys, dropna=False, sort=False):
        yield dict(zip(keys, values, strict=True)), group


def _points(scored: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Points on a binary logarithmic axis, encodings a little side by side so that their intervals can be seen."""
    span = math.log2(max(scored["evaluated"])) - math.log2(min(scored["evaluated"]))
    step = (span or 1.0) * 0.012
    shift = {name: (index - (len(names) - 1) / 2) * step for index, name in enumerate(names)}
    pairs = zip(scored["evaluated"], scored["encoding"], strict=True)
    x = [math.log2(evaluated) + shift[name] for evaluated, name in pairs]
    return scored.assign(x=x)


def _length_axis(axes: Axes, lengths: list[int], trained: int) -> None:
    lengths = sorted({*lengths, trained})
    texts = [f"{length:,}\ntrained" if length == trained else f"{length:,}" for length in lengths]
    axes.set_xticks([math.log2(length) for length in lengths], texts)
    if len(lengths) == 1:
        axes.set_xlim(math.log2(lengths[0]) - 0.5, math.log2(lengths[0]) + 0.5)
    axes.axvline(math.log2(trained), color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)


def _reference_lines(axes: Axes, references: pd.DataFrame, place: dict[str, Any]) -> None:
    rows = list(at_place(references, place).itertuples())
    for row in rows:
        axes.axhline(row.value, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)), zorder=0)
    low, high = axes.get_ylim()
    for row in rows:
        under = row.value > low + 0.9 * (high - low)  # there is no room over a line at the top
        axes.annotate(
            f"{row.name} (no model)",
            (0.5, row.value),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3 if under else 3),
            textcoords="offset points",
            ha="center",
            va="top" if under else "bottom",
            color=MUTED,
            fontsize=SMALL,
        )


def _end_label(name: str, group: pd.DataFrame) -> str:
    """The name, and at which lengths the line does not go on."""
    mine = group[group["encoding"] == name]
    label = str(mine["label"].iloc[0])
    last = mine.loc[mine["n"] > 0, "evaluated"].max()
    missing = sorted(set(mine.loc[(mine["n"] == 0) & (mine["evaluated"] > last), "evaluated"]))
    if not missing:
        return label
    return f"{label}, none {'at' if len(missing) == 1 else 'from'} {missing[0]:,}"


def _unscored(group: pd.DataFrame) -> list[str]:
    """What the figure lacks, and why: a line a reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in group[group["n"] == 0].itertuples():
        found.setdefault((row.encoding, row.why), []).append(f"{row.evaluated:,}")
    return [f"{name} at {listed(lengths)}: {why}" for (name, why), lengths in found.items()]


def decay_by_distance(found: list[dict[str, Any]], styles: dict[str, Look]) -> list[Picture]:
    """RoFormer's Figure 2: its bound by distance, beside what an encoding's scores were measured to be."""
    pictures = []
    for one in found:
        name, place = one["place"]["encoding"], one["place"]
        colour = styles[name].colour
        lines: list[tuple[str, list[float], str, dict[str, Any]]] = [
            ("measured, random", one.get("random") or [], colour, {"linewidth": 0.7, "alpha": 0.55}),
            ("measured, same content", one.get("same") or [], colour, {}),
            ("the paper's bound", one.get("bound") or [], MUTED, {"linestyle": (0, (4, 2))}),
        ]
        drawn = [line for line in lines if line[1]]
        if not drawn:
            continue
        ends, looks = [], {}
        with mpl.rc_context(STYLE):
            figure, axes = canvas([line[0] for line in drawn])
            for label, values, hue, how in drawn:
                # Each as a share of its own largest value: a bound of sums and a score have no common unit.
                most = max(map(abs, values)) or 1.0
                scaled = [value / most for value in values]
                axes.plot(one["distances"], scaled, color=hue, **how)
                ends.append((label, label, one["distances"][-1], scaled[-1]))
                looks[label] = Look(hue, "o", "")
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            finish(axes, "relative distance", f"{one['label']}: score, as a share of its largest")
            label_ends(axes, ends, looks)
            svg = svg_of(figure)
        data = pd.DataFrame({"distance": one["distances"], **{line[0]: line[1] for line in drawn}})
        alt = f"Decay by distance of {one['label']}"
        notes = ("The paper's bound is of the largest size of a score: random queries and keys need not follow it.",)
        name = file_name("decay", place) + "-" + plain_name([place["encoding"]])
        pictures.append(Picture(name, "decay", place, str(one["label"]), alt, notes, svg, data))
    return pictures
