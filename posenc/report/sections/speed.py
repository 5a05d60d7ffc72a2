"""Speed and memory by length, from what `posenc bench --json` measured beside the suites."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.ticker import FuncFormatter

from posenc.api.blocks import Block, Group, Note, Sources, Table, titled
from posenc.api.sections import ReportSection, Section
from posenc.common.errors import StoreError
from posenc.records.record import is_number
from posenc.report import words
from posenc.report.figures.canvas import Picture, canvas, draw_line, finish, svg_of
from posenc.report.figures.labels import label_ends
from posenc.report.figures.style import MUTED, STYLE, Look, looks
from posenc.report.places import plain_name
from posenc.report.reading import cleaned
from posenc.report.view import View

_PLAIN = (str, int, float, type(None))
NUMBERS = ("seconds", "seconds_low", "seconds_high", "peak_bytes", "ratio_to_none", "ratio_low", "ratio_high")
FIELDS = ("subject", "encoding", "attention", "backend", "pass", "length", "device", "dtype", "hardware", "size",
          "compile", "rows", *NUMBERS)  # fmt: skip
SAID = "Measured by posenc bench, one at a time: median time, as a multiple of none's, peak memory."
APART = ["subject", "attention", "pass", "device", "dtype", "hardware", "size", "compile", "rows"]
"""Measurements that share these are compared with each other."""


class Speed(ReportSection):
    name = "speed"
    order = 90

    def make(self, view: View) -> Section | None:
        """Figures, then a table for each comparison; nothing where nothing was measured beside the suites."""
        try:
            bench = read(view.store.folder.parent / "bench.json")
        except StoreError as error:
            view.unread.append(str(error))
            return None
        if bench.empty:
            return None
        blocks: list[Block] = [Note(SAID)]
        if drawn := pictures(bench, looks([*view.encodings, *bench["encoding"]])):
            blocks += [Note("Bars: what the repetitions varied by."), Group(tuple(map(view.figure, drawn)))]
        blocks += [*titled(_tables(bench)), Sources(view.sources("tables/speed.csv"))]
        return Section("Speed and memory by length", tuple(blocks), link="Speed", files={"speed": bench})


def read(path: Path) -> pd.DataFrame:
    """The measurements, a row each; none where there is no such file.

    Raises:
        StoreError: the file is not a list of measurements.
    """
    try:
        rows = cleaned(json.loads(path.read_text(encoding="utf-8")))
        for number, row in enumerate(rows):
            plain = ({*APART} - {"hardware"}) | {"encoding", "backend"}
            odd = [name for name in sorted(plain) if not isinstance(row.get(name), _PLAIN)]
            if odd or not isinstance(row.get("length"), int) or not isinstance(row.get("encoding"), str):
                raise ValueError(f"row {number}: {', '.join(odd) or 'length or encoding'}")
        described = [{**row, "hardware": _machine(row.get("hardware"))} for row in rows]
    except FileNotFoundError:
        return pd.DataFrame(columns=list(FIELDS))
    except (OSError, RecursionError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is no list of measurements ({error}): make it again by posenc bench --json") from None
    frame = pd.DataFrame(described).reindex(columns=list(FIELDS))
    for name in NUMBERS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    given = frame[["size", "compile", "rows"]].astype(object)
    return frame.assign(**given.fillna({"size": "small", "compile": "none", "rows": ""}))


def _machine(hardware: Any) -> str:
    if not isinstance(hardware, dict):
        return str(hardware or "a machine that was not recorded")
    cores = f", {words.plural(hardware['cores'], 'core')}" if hardware.get("cores") else ""
    return str(hardware.get("gpu") or f"{hardware.get('cpu') or 'unknown CPU'}{cores}")


def title_of(place: dict[str, Any]) -> str:
    """`attention, softmax, forward, cpu float32; a CPU, 2 cores`."""
    shown = [place[key] for key in ("subject", "attention", "pass") if place[key] == place[key]]
    shown += [place["size"]] if place["size"] != "small" else []
    shown += [f"compiled ({place['compile']})"] if place["compile"] != "none" else []
    shown += [words.plural(place["rows"], "row")] if place["rows"] else []
    kind = ", ".join(map(str, shown))
    return f"{kind}, {place['device']} {place['dtype']}; {place['hardware']}"


def _tables(bench: pd.DataFrame) -> Iterable[tuple[str, Table]]:
    """A table for each comparison: encodings down, lengths across; time, its ratio to `none`, memory."""
    for values, group in bench.groupby(APART, dropna=False, sort=False):
        lengths = sorted(set(group["length"]))
        rows = []
        for (encoding, backend), mine in group.groupby(["encoding", "backend"], dropna=False, sort=False):
            by_length = {row["length"]: row for row in mine.to_dict("records")}
            texts = [_measured(by_length.get(length)) for length in lengths]
            rows.append((str(encoding), str(backend) if backend == backend else "\u2013", *texts))
        head = ("encoding", "backend", *(f"at {length:,}" for length in lengths))
        yield title_of(dict(zip(APART, values, strict=True))), Table(head, tuple(rows))


def _measured(row: dict[str, Any] | None) -> str:
    if row is None or not is_number(row["seconds"]):
        return "\u2013"
    parts = [words.short_time(row["seconds"])]
    if is_number(row["ratio_to_none"]):
        parts.append(f"{row['ratio_to_none']:.2f}\u00d7")
    if is_number(row["peak_bytes"]):
        parts.append(words.size_in_bytes(row["peak_bytes"]))
    return ", ".join(parts)


def pictures(bench: pd.DataFrame, styles: dict[str, Look]) -> list[Picture]:
    """Time by length, as a ratio to `none` where that was measured; the bars are what the repetitions varied by."""
    found = []
    for values, group in bench.groupby(APART, dropna=False, sort=False):
        place = dict(zip(APART, values, strict=True))
        ratio = group["ratio_to_none"].notna().any()
        value, low, high = ("ratio_to_none", "ratio_low", "ratio_high") if ratio else (
            "seconds", "seconds_low", "seconds_high")  # fmt: skip
        shown = group[group[value].notna()].sort_values("length").drop_duplicates(["encoding", "length"])
        if shown["length"].nunique() < 2:
            continue
        names = [name for name in styles if name in set(shown["encoding"])]
        with mpl.rc_context(STYLE):
            figure, axes = canvas(names)
            for name in names:
                mine = shown[shown["encoding"] == name]
                draw_line(axes, list(mine["length"]), list(mine[value]), styles[name], marked=True)
            for row in shown.to_dict("records"):
                axes.vlines(row["length"], row[low], row[high], styles[row["encoding"]].colour, linewidth=1.2)
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted(set(shown["length"])))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            axes.minorticks_off()
            if ratio:
                axes.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            else:
                axes.set_yscale("log")
            finish(axes, "length", "time, as a multiple of none's" if ratio else "seconds", "lower")
            last = shown.groupby("encoding").last()
            label_ends(axes, [(n, n, last.loc[n, "length"], last.loc[n, value]) for n in names], styles)
            svg = svg_of(figure)
        name = plain_name(["speed", *values[:5]])
        alt = f"Time by length of {words.listed(names)}"
        found.append(Picture(name, "speed", {}, title_of(place), alt, (), svg, shown))
    return found
