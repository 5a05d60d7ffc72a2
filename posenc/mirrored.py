"""What MLflow is told of a cell: plain functions of records and curves, without MLflow."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from posenc.store import Record, canonical, digest

CURVE_POINTS = 500  # the most that one metric of one run gets
TEXT = 4000  # older servers refuse longer tags and params
AXES: dict[str, Callable[[dict[str, Any]], Any]] = {  # the swept axes under their fixed names
    "encoding": lambda config: config["encoding"]["name"],
    "task": lambda config: config["task"],
    "length": lambda config: config["length"],
    "seed": lambda config: config["seed"],
    "backbone": lambda config: config["backbone"]["attention"],
    "scale": lambda config: config["scale"],
}


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


def finite(value: Any) -> bool:
    """Whether MLflow may have it as a metric."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
            if not finite(value):
                continue
            point = Point(key, row["step"], float(value), float(row.get("seconds") or 0))
            if place > taken.get(key, -1):
                taken[key] = place
                held.pop(key, None)
                points.append(point)
            else:
                held[key] = point
    return points + (list(held.values()) if ended else [])


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


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested tables: `("training.steps", "400")`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, canonical(value)


def extra_axes(cells: list[dict[str, Any]]) -> list[str]:
    """Fields of the configuration that a suite varies beside the fixed axes, such as `training.learning_rate`."""
    seen: dict[tuple[Any, ...], dict[str, str]] = {}
    found: dict[str, None] = {}
    for cell in cells:
        config = cell["config"]
        kinds = ("objective", "start", "data", "backbone", "training", "evaluation", "runtime")
        fields = dict(flat({kind: config.get(kind) for kind in kinds}))
        fields.pop("data.digest", None)  # it follows from what is read
        first = seen.setdefault(tuple(axis(config) for axis in AXES.values()), fields)
        found |= {key: None for key in fields.keys() | first.keys() if fields.get(key) != first.get(key)}
    return sorted(found)


def parameters(config: dict[str, Any], extra: list[str]) -> dict[str, str]:
    """The swept axes of one cell, as MLflow's params."""
    fields = dict(flat(config))
    return {name: str(axis(config)) for name, axis in AXES.items()} | {key: fields.get(key, "null") for key in extra}


def run_name(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """`rope/L64/s0`; before it the task and the attention, where a suite has several."""
    task, attention = cell["config"]["task"], cell["config"]["backbone"]["attention"]
    rest: str = cell["name"].removeprefix(f"{task}/{attention}/")
    if rest == cell["name"]:
        return rest
    parts = [task] if len({other["config"]["task"] for other in cells}) > 1 else []
    if len({other["config"]["backbone"]["attention"] for other in cells}) > 1:
        parts.append(attention)
    return "/".join([*parts, rest])


def group_of(name: str) -> str:
    """A run's name without its seed: MLflow's page groups by it, and shows the mean over the seeds."""
    return name.rpartition("/")[0] or name


def final_metrics(record: Record) -> dict[str, float]:
    """The scores and costs of a record, under names that are the same for every encoding."""
    times, counts = record.get("times") or {}, record.get("parameters") or {}
    values = {score_name(score): score.get("value") for score in record.get("scores") or []}
    values |= {metric_name("baseline", name): value for name, value in (record.get("baselines") or {}).items()}
    names = ("tokens_per_second", "tokens_seen", "flops_per_token", "peak_memory_bytes")
    values |= {name: record.get(name) for name in names}
    values |= {name: times.get(name) for name in ("seconds", "compile_seconds")}
    values |= {"parameters": counts.get("total")}
    values["parameters_positional"] = counts.get("positional")
    return {name: float(value) for name, value in values.items() if value is not None and finite(value)}


def final_tags(record: Record) -> dict[str, str]:
    """How a cell ended, by what code and backend, and which scores were not possible."""
    why = [f"{score_name(score)}: {score['why']}" for score in record.get("scores") or [] if score.get("why")]
    tags = {
        "status": record["status"],
        "reason": record.get("reason"),
        "backend": record.get("backend"),
        "commit": (record.get("code") or {}).get("commit"),
        "not_possible": "\n".join(why),
    }
    return {key: str(value)[:TEXT] for key, value in tags.items() if value}


def summaries(cells: list[dict[str, Any]], records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """For each encoding the mean, standard deviation and number of seeds of each test score.

    What a suite varies beside encoding and seed is never pooled: it stands before the metric's name.
    """
    extra = extra_axes(cells)
    rows = [parameters(cell["config"], extra) for cell in cells]
    varied = [key for key in (rows[0] if rows else {}) if len({row[key] for row in rows}) > 1]
    varied = [key for key in varied if key not in ("encoding", "seed")]
    values: dict[tuple[str, str], list[float]] = {}
    for record in records:
        row = parameters(record["config"], extra)
        label = [row[key] if key in ("task", "backbone", "scale") else f"{key} {row[key]}" for key in varied]
        for score in record.get("scores") or []:
            if score["split"] == "test" and finite(score.get("value")):
                name = "/".join([*(metric_name(part) for part in label), score_name(score)])
                values.setdefault((row["encoding"], name), []).append(score["value"])
    out: dict[str, dict[str, float]] = {AXES["encoding"](cell["config"]): {} for cell in cells}
    for (encoding, name), seeds in values.items():
        found = out.setdefault(encoding, {})
        found |= {f"{name}/mean": statistics.fmean(seeds), f"{name}/seeds": float(len(seeds))}
        if len(seeds) > 1:
            found[f"{name}/sd"] = statistics.stdev(seeds)
    return {encoding: found for encoding, found in out.items() if found}
