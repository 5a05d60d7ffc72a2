"""Two results folders held against each other: what changed between them, and by how much the scores moved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Group
from rich.table import Table
from rich.text import Text

from posenc.common.errors import StoreError
from posenc.common.files import write_atomically
from posenc.records.record import NOT_RUN_YET, Record, coordinates, dig, flat, variants
from posenc.records.store import Store
from posenc.report import words
from posenc.report.facts import ENDED
from posenc.report.markdown import table as markdown_table
from posenc.report.pages import csv_of
from posenc.report.places import group_title
from posenc.report.reading import manifest_of, records_of
from posenc.report.sections.made import provenance
from posenc.report.statistics import tables, tuning
from posenc.report.statistics.intervals import SEEDS_FOR_A_CLAIM, interval
from posenc.report.statistics.tables import GROUP

KEY = ("task", "attention", "variant", "encoding", "length", "seed")
"""By these a cell of the one finds its pair in the other. The scale is no part of it: it is one of the changes."""

FIELDS = (*GROUP, "encoding", "label", "split", "metric", "title", "better", "main", "evaluated", "n", "same", "mean_a",
          "mean_b", "difference", "low", "high", "p", "why")  # fmt: skip
MACHINE = {
    "torch": ("versions", "torch"),
    "CPU": ("hardware", "cpu"),
    "CPU instructions": ("hardware", "instructions"),
    "GPU": ("hardware", "gpu"),
    "GPU driver": ("hardware", "driver"),
    "CUDA": ("hardware", "cuda"),
    "cuDNN": ("hardware", "cudnn"),
}
"""On what the last bits of a sum hang: told cell by cell."""
_LINES = 30
"""Of what is only on one side, so many names are written out."""


class Grid(NamedTuple):
    """A table of texts."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Side:
    """One of the two: its cells by KEY, their records by the same, its scores; what of it could not be read."""

    name: str
    manifest: dict[str, Any]
    cells: dict[tuple[Any, ...], dict[str, Any]]
    records: dict[tuple[Any, ...], dict[str, Any]]
    frame: pd.DataFrame
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What is said of two folders.

    Attributes:
        changes: (what, in A, in B): of the suites, the code, the versions, the machine, the cells' configurations.
        cautions: what a reader must know first. alone: (side, cell's name, how it ended).
        scores: a row a group, encoding, metric and length: means over the pairs, B - A with its 95 % interval.
    """

    a: Side
    b: Side
    pairs: int
    changes: tuple[tuple[str, str, str], ...]
    cautions: tuple[str, ...]
    alone: tuple[tuple[str, str, str], ...]
    scores: pd.DataFrame


def compare(a: Store, b: Store) -> Comparison:
    """Hold two results folders against each other.

    Raises:
        StoreError: one of them has no results, or they are damaged; or no cell of the one has a pair in the other.
    """
    one, other = _side(a), _side(b)
    both = [key for key in one.cells if key in other.cells]
    if not both:
        raise StoreError(
            f"no cell of {a.folder} has a pair in {b.folder}: the same task, attention, encoding, length and seed;"
            f" there are {_there(one)} and {_there(other)}"
        )
    changes = [
        *_suites(one, other),
        *_made(one, other, both),
        *_machines(one, other, both),
        *_configurations(one, other, both),
    ]
    scores = _scores(one, other)
    return Comparison(
        one, other, len(both), tuple(changes), tuple(_cautions(one, other, both, scores)),
        tuple(_alone(one, other)), scores,
    )  # fmt: skip


def _there(side: Side) -> str:
    keys = list(side.cells)
    return f"{words.listed(key[0] for key in keys)} with {words.listed(key[3] for key in keys)}"


def _side(store: Store) -> Side:
    whole = manifest_of(store)
    unread: list[str] = []
    manifest, records, _ = tuning.choose(whole, records_of(store, whole, unread))
    by_id = variants(manifest["cells"])
    keys = {
        cell["id"]: tuple(({**coordinates(cell["config"]), "variant": by_id[cell["id"]]})[name] for name in KEY)
        for cell in manifest["cells"]
    }
    return Side(
        name=str(store.folder),
        manifest=manifest,
        cells={keys[cell["id"]]: cell for cell in manifest["cells"]},
        records={keys[record["id"]]: record for record in records},
        frame=tables.scores_frame(records, manifest),
        unread=tuple(unread),
    )


def _suites(a: Side, b: Side) -> Iterable[tuple[str, str, str]]:
    for key in ("name", "title", "scale", "baseline", "claim"):
        pair = [str(side.manifest["suite"].get(key) or "") for side in (a, b)]
        if pair[0] != pair[1]:
            yield f"suite: {key}", pair[0], pair[1]
    for key in ("command", "made"):
        pair = [str(side.manifest.get(key) or "") for side in (a, b)]
        if pair[0] != pair[1]:
            yield key if key == "command" else "asked for", pair[0], pair[1]


def _made(a: Side, b: Side, both: list[tuple[Any, ...]]) -> Iterable[tuple[str, str, str]]:
    """Code, versions and machines of the paired cells."""
    made = []
    for side in (a, b):
        records = [side.records[key] for key in both if key in side.records]
        told = dict(provenance({"command": None}, records))
        made.append({key: value for key, value in told.items() if key not in (*_APART, *MACHINE)})
    for key in dict.fromkeys([*made[0], *made[1]]):
        pair = [one.get(key, "not recorded") for one in made]
        if pair[0] != pair[1]:
            yield key, pair[0], pair[1]


_APART = ("command", "cells ran", "time in cells", "hardware")


def _machines(a: Side, b: Side, both: list[tuple[Any, ...]]) -> Iterable[tuple[str, str, str]]:
    """Where the records of a cell and of its pair tell of another torch, processor or card."""
    pairs = [(a.records[key], b.records[key]) for key in both if key in a.records and key in b.records]
    for name, path in MACHINE.items():
        found: dict[tuple[str, str], int] = {}
        for pair in pairs:
            if pair[0]["status"] == "not_possible" or pair[1]["status"] == "not_possible":
                continue
            one, other = (_told(record, path) for record in pair)
            if one != other:
                found[one, other] = found.get((one, other), 0) + 1
        for (one, other), cells in found.items():
            yield f"{name} ({words.plural(cells, 'cell')} of {len(both)})" if cells < len(both) else name, one, other


def _told(record: Record, path: tuple[str, str]) -> str:
    known = dig(record, path[:1]) or {}
    return str(known[path[1]] or "none") if path[1] in known else "not recorded"


def _configurations(a: Side, b: Side, both: list[tuple[Any, ...]]) -> Iterable[tuple[str, str, str]]:
    """Keys of the cells' configurations whose values differ between a cell and its pair."""
    found: dict[tuple[str, str, str], int] = {}
    for key in both:
        one, other = (flat(side.cells[key]["config"]) for side in (a, b))
        for name in {**one, **other}:
            # Ids and digests of what differs elsewhere would say it twice; the runtime stands above.
            if name in ("parent", "schema") or name in ("runtime.device", "runtime.precision", "runtime.threads"):
                continue
            if repr(one.get(name)) != repr(other.get(name)):
                change = (name, str(one.get(name, "\u2013")), str(other.get(name, "\u2013")))
                found[change] = found.get(change, 0) + 1
    for (name, before, after), cells in found.items():
        some = f" ({words.plural(cells, 'cell')} of {len(both)})" if cells < len(both) else ""
        yield f"{name}{some}", before, after


def _alone(a: Side, b: Side) -> Iterable[tuple[str, str, str]]:
    """Cells that stand on one side only, or ended otherwise than their pair."""
    for letter, side, other in (("A", a, b), ("B", b, a)):
        for key, cell in side.cells.items():
            status = _ended(side.records.get(key))
            if key not in other.cells:
                yield f"only in {letter}", str(cell["name"]), status
            elif letter == "A":
                theirs = _ended(other.records.get(key))
                if theirs != status:
                    yield "ended otherwise", str(cell["name"]), f"{status} in A, {theirs} in B"


def _ended(record: Record | None) -> str:
    return ENDED[record["status"]] if record else NOT_RUN_YET


def _scores(a: Side, b: Side) -> pd.DataFrame:
    """Scores of both sides paired by cell, split, metric and length."""
    on = [*KEY, "split", "metric", "evaluated"]
    pair = a.frame.merge(b.frame, on=on, suffixes=("_a", "_b"))
    pair = pair[pair["split"] != "validation"]
    rows: list[dict[str, Any]] = []
    keys = ["task", "attention", "variant", "length", "encoding", "split", "metric", "evaluated"]
    for values, group in pair.groupby(keys, dropna=False, sort=False):
        scored = group[group["value_a"].notna() & group["value_b"].notna()]
        moved = interval(list(scored["value_b"] - scored["value_a"]))
        mine, theirs = (words.listed(group[name].dropna()) for name in ("why_a", "why_b"))
        whys = [mine] if mine == theirs else [f"{side}: {why}" for side, why in (("A", mine), ("B", theirs)) if why]
        rows.append(
            {
                **dict(zip(keys, values, strict=True)),
                "scale": group["scale_b"].iloc[0],
                **{key: group[f"{key}_b"].iloc[0] for key in ("label", "title", "better", "main")},
                "n": len(scored),
                "same": int((scored["value_a"] == scored["value_b"]).sum()),
                "mean_a": scored["value_a"].mean(),
                "mean_b": scored["value_b"].mean(),
                "difference": moved.mean,
                "low": moved.low,
                "high": moved.high,
                "p": moved.p,
                "why": "; ".join(whys) or None,
            }
        )
    return pd.DataFrame(rows, columns=list(FIELDS))


def _cautions(a: Side, b: Side, both: list[tuple[Any, ...]], scores: pd.DataFrame) -> Iterable[str]:
    for letter, side in (("A", a), ("B", b)):
        yield from (f"Not read of {letter}: {line}." for line in side.unread)
    digests = [{str(dig(side.cells[key], ("config", "data", "digest"))) for key in both} for side in (a, b)]
    if digests[0] != digests[1]:
        yield "The data differ: scores on different data say little of what else changed."
    if [*_machines(a, b, both)]:
        yield "Some cells ran with another torch, processor or card than their pair: the last bits of sums may differ."
    if any(dig(side.records.get(key, {}), ("code", "dirty")) for side in (a, b) for key in both):
        yield "Some cells were made with changes that no commit holds."
    scored = scores[scores["n"] > 0]
    if len(scored) and (scored["same"] == scored["n"]).all():
        yield "Every paired score is the same to the bit."
    most = int(scores["n"].max()) if len(scores) else 0
    if 0 < most < SEEDS_FOR_A_CLAIM:
        yield f"{words.plural(most, 'seed')}: too few for a claim (five needed)."
    yield "Differences are B minus A, paired by seed; no interval is adjusted for how many there are."


def grids(found: Comparison) -> list[tuple[str, Grid]]:
    """The comparison as tables, each under its title."""
    made = [("What changed", Grid(("what", "A", "B"), found.changes))] if found.changes else []
    for values, group in found.scores.groupby(
        ["task", "attention", "variant", "length", "split", "metric"], dropna=False, sort=False
    ):
        place = dict(zip(("task", "attention", "variant", "length"), values, strict=False))
        split = "" if values[4] == "test" else f" ({values[4]})"
        better = group["better"].iloc[0]
        title = f"{group_title(place)}: {group['title'].iloc[0]}{split}"
        title += words.which_is_better(better)
        made.append((title, _score_grid(group)))
    if found.alone:
        shown = found.alone[:_LINES]
        more = len(found.alone) - len(shown)
        rows = [*shown, *([(f"and {more} more", "", "")] if more else [])]
        made.append(("Not paired", Grid(("where", "cell", "ended"), tuple(rows))))
    return made


def _score_grid(group: pd.DataFrame) -> Grid:
    decimals = words.decimals_for([*group["mean_a"], *group["mean_b"]])
    rows = []
    for row in group.to_dict("records"):
        texts = [str(row["label"]), f"{row['evaluated']:,}"]
        if row["n"]:
            moved = words.with_half_width(row["difference"], (row["high"] - row["low"]) / 2, decimals, signed=True)
            texts += [words.number(row["mean_a"], decimals), words.number(row["mean_b"], decimals)]
            texts += ["the same to the bit" if row["same"] == row["n"] else moved, str(row["n"])]
        else:
            texts += ["\u2013", "\u2013", str(row["why"] or "no score"), "0"]
        rows.append(tuple(texts))
    return Grid(("encoding", "at", "A", "B", "B \u2212 A \u00b1 half of 95 %", "seeds"), tuple(rows))


def summary_line(found: Comparison) -> str:
    """`27 pairs of cells; A: 27 cells, B: 30`."""
    pairs = f"{words.plural(found.pairs, 'pair')} of cells"
    return f"{pairs}; A: {words.plural(len(found.a.cells), 'cell')}, B: {words.plural(len(found.b.cells), 'cell')}"


def data(found: Comparison) -> dict[str, Any]:
    """The comparison for programs; a score that is not there is NaN."""
    # By pandas' own JSON, whose numbers are Python's.
    scores = json.loads(found.scores.to_json(orient="records", double_precision=15))
    return {
        "a": {"folder": found.a.name, "cells": len(found.a.cells)},
        "b": {"folder": found.b.name, "cells": len(found.b.cells)},
        "pairs": found.pairs,
        "cautions": list(found.cautions),
        "changes": [dict(zip(("what", "a", "b"), change, strict=True)) for change in found.changes],
        "alone": [dict(zip(("where", "cell", "ended"), one, strict=True)) for one in found.alone],
        "scores": scores,
    }


def terminal(found: Comparison) -> Group:
    """The comparison for a terminal of 100 characters."""
    parts: list[Table | Text] = [Text(f"A: {found.a.name}\nB: {found.b.name}\n{summary_line(found)}")]
    parts += [Text(caution) for caution in found.cautions]
    for title, grid in grids(found):
        parts.append(Text(f"\n{title}"))
        table = Table()
        for index, name in enumerate(grid.head):
            number = title not in ("What changed", "Not paired") and index
            table.add_column(Text(name), overflow="fold", justify="right" if number else "left")
        for row in grid.rows:
            table.add_row(*(Text(text) for text in row))
        parts.append(table)
    if not found.changes:
        parts.append(Text("\nNothing changed: the same configurations, code and versions."))
    return Group(*parts)


def markdown(found: Comparison) -> str:
    """The comparison as Markdown."""
    lines = ["# Two results compared", ""]
    lines += [
        f"- A: {words.markdown(found.a.name)}",
        f"- B: {words.markdown(found.b.name)}",
        f"- {summary_line(found)}",
    ]
    lines += [f"- {words.markdown(caution)}" for caution in found.cautions]
    for title, grid in grids(found):
        lines += ["", f"## {words.markdown(title)}", "", markdown_table(grid.head, grid.rows)]
    if not found.changes:
        lines += ["", "Nothing changed: the same configurations, code and versions."]
    return "\n".join(lines) + "\n"


def write(found: Comparison, output: Path) -> list[Path]:
    """Write `compare.md`, `compare.csv` (scores) and `changes.csv`.

    Raises:
        StoreError: the folder cannot be written.
    """
    changes = pd.DataFrame(found.changes, columns=["what", "a", "b"])
    files = {
        "compare.csv": csv_of(found.scores),
        "changes.csv": csv_of(changes),
        "compare.md": markdown(found),
    }
    try:
        for name, text in files.items():
            write_atomically(output / name, text)
    except OSError as error:
        raise StoreError(f"cannot write the comparison to {output}: {error}") from None
    return [output / name for name in files]
