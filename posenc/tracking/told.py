"""What MLflow is told of a cell: plain functions of records and curves, without MLflow."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from posenc.common.files import canonical, digest
from posenc.common.text import masked
from posenc.records.record import Record, coordinates, flat, is_number, varying

CURVE_POINTS = 500  # the most that one metric of one run gets
AXES = ("encoding", "task", "length", "seed", "attention", "scale")
YEARS = 1e9  # seconds: longer than any cell, and what MLflow's times still hold
TEXT = 4000  # older servers refuse longer tags and params
DIGEST = 36  # what MLflow keeps of a dataset's digest
FORM = "2"
"""Of all that is told here: runs that were told in another form are sent anew."""
SHORT = {
    "encoding.name": "encoding",
    "encoding.version": "encoding_version",
    "encoding.package": "package",
    "backbone.attention": "backbone",
}
"""The leaves of a configuration that have a shorter name as a param."""
VIEW_KEY = "posenc"
"""The name of the view that an experiment has as a tag; an address that names it opens that view."""
ANSWER = "## The answer"
"""The heading under which a report in Markdown has its answer."""


class Point(NamedTuple):
    key: str
    step: int
    value: float
    seconds: float


def metric_name(*parts: object) -> str:
    """A name that MLflow takes on every system (no `@`, no `:`), from parts that may hold anything."""
    clean = (re.sub(r"[^\w\-. ]", "_", str(part)).strip() for part in parts)
    return "/".join(part if part.strip(".") else "_" for part in clean)[:250]


def score_name(score: dict[str, Any]) -> str:
    """`test/bits_per_character/L256`. MLflow's page groups charts by all but the last part."""
    # A curve already has the name validation/...; the score of the checkpoint that it chose has its own.
    split = "chosen" if score["split"] == "validation" else score["split"]
    return metric_name(split, score["metric"], *([] if score.get("length") is None else [f"L{score['length']}"]))


def row_metrics(row: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names and values of one row of a curve; None and NaN too."""
    if "split" in row:
        yield metric_name(row["split"], row.get("metric"), f"L{row.get('length')}"), row.get("value")
    else:
        yield from ((metric_name("train", key), row[key]) for key in row if key not in ("step", "tokens", "seconds"))


def thin(rows: Iterable[dict[str, Any]], steps: int | None, ended: bool) -> list[Point]:
    """At most CURVE_POINTS points a metric, evenly over the `steps` planned, and the last when it has ended.

    The points of a curve begin with the points of the same curve when it was shorter: so those already
    sent stay right, and live, resumed and synced curves are the same.
    """
    rows = [row for row in rows if isinstance(row.get("step"), int)]
    if not steps:
        if not ended:
            return []
        steps = max((row["step"] for row in rows), default=1)
    places = CURVE_POINTS - 2
    taken: dict[str, int] = {}
    held: dict[str, Point] = {}
    points = []
    for row in rows:
        place = min(row["step"], steps) * places // max(steps, places)
        for key, value in row_metrics(row):
            if not is_number(value):
                continue
            point = Point(key, row["step"], float(value), _seconds(row))
            if place > taken.get(key, -1):
                taken[key] = place
                held.pop(key, None)
                points.append(point)
            else:
                held[key] = point
    return points + (list(held.values()) if ended else [])


def _seconds(row: dict[str, Any]) -> float:
    """A row's seconds of training, as far as they are a time: nought where a damaged row tells no such thing."""
    told: Any = row.get("seconds")
    return float(told) if is_number(told) and 0 <= told < YEARS else 0.0


def diverged_at(rows: Iterable[dict[str, Any]]) -> int | None:
    """The first step whose loss or score is not a number."""
    for row in rows:
        for _, value in row_metrics(row):
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                return int(row.get("step") or 0)
    return None


def points_digest(points: list[Point]) -> str:
    """Tells whether a curve is the one sent before; times, which a resume changes, do not count."""
    return digest([[point.key, point.step, point.value] for point in points])


def axes(config: dict[str, Any]) -> dict[str, Any]:
    """The swept axes of a cell under their fixed names."""
    found = coordinates(config)
    names = {key: "backbone" if key == "attention" else key for key in AXES}
    return {names[key]: found[key] for key in AXES}


def leaves(config: dict[str, Any]) -> dict[str, str]:
    """The leaves of nested tables: `"training.steps": "400"`."""
    return {key: canonical(value) for key, value in flat(config).items()}


def said(value: Any) -> str:
    """A value as people write it: text without quotes."""
    return value if isinstance(value, str) and value else canonical(value)


def extra_axes(cells: list[dict[str, Any]]) -> list[str]:
    """Fields of the configuration that a suite varies beside the fixed axes, such as `training.learning_rate`."""
    return sorted({key for keys in varying(cells, tuned=True).values() for key in keys})


def place(config: dict[str, Any], extra: list[str]) -> dict[str, str]:
    """Where a cell stands: the swept axes, and what else its suite varies."""
    fields = flat(config)
    return {name: str(value) for name, value in axes(config).items()} | {key: said(fields.get(key)) for key in extra}


def varied(cells: list[dict[str, Any]]) -> list[str]:
    """The names of what a suite varies, then of the axes that have one value in it."""
    extra = extra_axes(cells)
    rows = [place(cell["config"], extra) for cell in cells]
    names = list(rows[0]) if rows else []
    return sorted(names, key=lambda name: len({row[name] for row in rows}) < 2)


def parameters(cell: dict[str, Any], first: list[str]) -> dict[str, str]:
    """Every leaf of a cell's configuration and its id, as MLflow's params: those named in `first` come first."""
    config = cell["config"]
    fields = {SHORT.get(key, key): said(value) for key, value in flat(config).items()}
    fields |= {"id": cell["id"], **{name: str(value) for name, value in axes(config).items()}}
    ordered = {key: fields.get(key, "null") for key in [*first, *sorted(fields)]}
    told: dict[str, str] = {}
    for key, value in ordered.items():
        told.setdefault(metric_name(key), masked(value)[:TEXT])  # MLflow refuses all of a run that has a name twice
    return told


def origin(config: dict[str, Any]) -> dict[str, str]:
    """Whose a cell's encoding is: the package with its version, and the encoding's own version."""
    encoding = config.get("encoding") or {}
    found = {"package": encoding.get("package"), "encoding_version": encoding.get("version")}
    return {key: str(value) for key, value in found.items() if value}


def source(suite: dict[str, Any], user: str) -> dict[str, str]:
    """Whose a run is, and what made it: the tags for MLflow's own columns."""
    return {
        "mlflow.user": user,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": masked(f"posenc run {suite['name']}")[:TEXT],
    }


def how_to_load(folder: Path, cell: str) -> str:
    """The line of Python that loads a kept model."""
    return f"posenc.load({f'{folder.parent.name}/{folder.name}'!r}, {cell!r})"


class Data(NamedTuple):
    """A dataset, as MLflow takes one."""

    name: str
    digest: str
    source_type: str
    source: str
    profile: str


def dataset(record: Record) -> Data | None:
    """What a cell read; None where it did not come so far. MLflow keeps the first 36 characters of a digest."""
    data = record.get("data")
    if not data:
        return None
    asked = record["config"].get("data") or {}
    name = str(data.get("name") or asked.get("source") or "unknown")
    known = str(data.get("digest") or asked.get("digest") or digest(data))
    kept = ("bytes", "rows", "generated", "note")
    profile = {"sha256": known, **{key: data[key] for key in kept if data.get(key)}}
    origin_of = {"source": asked.get("source"), "name": name}
    return Data(name[:500], known[:DIGEST], "posenc", masked(canonical(origin_of)), masked(canonical(profile)))


def baseline_tags(record: Record) -> dict[str, str]:
    """The trivial scores of a cell, such as a unigram model's: the same for every encoding, so they are no chart."""
    found = {}
    for name, value in (record.get("baselines") or {}).items():
        if is_number(value):
            found[name if name.isidentifier() else metric_name("baseline", name)] = f"{value:.6g}"
    return found


def answer(report: str) -> str:
    """The answer of a report in Markdown, without its pictures; "" where it has none."""
    _, found, rest = f"\n{report}".partition(f"\n{ANSWER}\n")
    if not found:
        return ""
    lines = rest.partition("\n## ")[0].splitlines()
    text = masked("\n".join(line for line in lines if not line.startswith("![")))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if len(text) <= TEXT:
        return text
    whole = text[: TEXT - 40].rpartition("\n")[0]
    return f"{whole}\n\nThe rest stands in the report."


def run_names(cells: list[dict[str, Any]]) -> dict[str, str]:
    """By a cell's id, `rope/L64/s0`; before it the task and the attention, where a suite has several."""
    places = [coordinates(cell["config"]) for cell in cells]
    several = [key for key in ("task", "attention") if len({place[key] for place in places}) > 1]
    names = {}
    for cell, place in zip(cells, places, strict=True):
        rest: str = cell["name"].removeprefix(f"{place['task']}/{place['attention']}/")
        parts = [] if rest == cell["name"] else [str(place[key]) for key in several]
        names[cell["id"]] = "/".join([*parts, rest])
    return names


def group_of(name: str) -> str:
    """A run's name without its seed: MLflow's page groups by it, and shows the mean over the seeds."""
    return name.rpartition("/")[0] or name


def final_metrics(record: Record) -> dict[str, float]:
    """The scores and costs of a record, under names that are the same for every encoding."""
    times, counts = record.get("times") or {}, record.get("parameters") or {}
    values = {score_name(score): score.get("value") for score in record.get("scores") or []}
    names = ("tokens_per_second", "tokens_seen", "flops_per_token", "peak_memory_bytes")
    values |= {name: record.get(name) for name in names}
    values |= {name: times.get(name) for name in ("seconds", "compile_seconds")}
    values |= {"parameters": counts.get("total")}
    values["parameters_positional"] = counts.get("positional")
    return {name: float(value) for name, value in values.items() if value is not None and is_number(value)}


def final_tags(record: Record) -> dict[str, str]:
    """How a cell ended, by what code, package and backend, and which scores were not possible."""
    why = [f"{score_name(score)}: {score['why']}" for score in record.get("scores") or [] if score.get("why")]
    commit = (record.get("code") or {}).get("commit")
    tags = {
        **baseline_tags(record),
        "status": record["status"],
        "reason": record.get("reason"),
        "backend": record.get("backend"),
        "commit": commit,
        "mlflow.source.git.commit": commit,
        **origin(record["config"]),
        "plugins": canonical(record["plugins"]) if record.get("plugins") else None,
        "not_possible": "\n".join(why),
    }
    return {key: str(value)[:TEXT] for key, value in tags.items() if value}


def summaries(cells: list[dict[str, Any]], records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """For each encoding the mean, standard deviation and number of seeds of each test score.

    What a suite varies beside encoding and seed is never pooled: it stands before the metric's name.
    """
    extra = extra_axes(cells)
    rows = [place(cell["config"], extra) for cell in cells]
    several = [key for key in (rows[0] if rows else {}) if len({row[key] for row in rows}) > 1]
    several = [key for key in several if key not in ("encoding", "seed")]
    values: dict[tuple[str, str], list[float]] = {}
    for record in records:
        row = place(record["config"], extra)
        label = [row[key] if key in ("task", "backbone", "scale") else f"{key} {row[key]}" for key in several]
        for score in record.get("scores") or []:
            if score["split"] == "test" and is_number(score.get("value")):
                name = "/".join([*(metric_name(part) for part in label), score_name(score)])
                values.setdefault((row["encoding"], name), []).append(score["value"])
    out: dict[str, dict[str, float]] = {str(coordinates(cell["config"])["encoding"]): {} for cell in cells}
    for (encoding, name), seeds in values.items():
        found = out.setdefault(encoding, {})
        found |= {f"{name}/mean": statistics.fmean(seeds), f"{name}/seeds": float(len(seeds))}
        if len(seeds) > 1:
            found[f"{name}/sd"] = statistics.stdev(seeds)
    return {encoding: found for encoding, found in out.items() if found}
