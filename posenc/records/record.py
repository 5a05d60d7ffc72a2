"""What a record and a manifest are: their shape, how a cell may have ended, where it stands in a comparison.

Told here once; the progress of a run, `status`, MLflow's mirror and the report read it.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Required, TypedDict

from posenc.common.files import digest
from posenc.records.claim import ClaimShape

SCHEMA = 1

STATUSES = {"done": "done", "failed": "failed", "timed_out": "timed out", "not_possible": "not possible"}
"""How a cell may have ended, and the words for it."""
DONE, FAILED, TIMED_OUT, NOT_POSSIBLE = STATUSES
FAILURES = (FAILED, TIMED_OUT)
"""Those that count as a failure of the run."""
MACHINE = "machine"
"""The cause of a failure that says nothing of training: memory, time, a killed process."""
DATA = "data"
"""The cause of a failure by a damaged file that is only read as training asks for it."""
NOT_RUN_YET = "not run yet"
"""What is said of a cell without a record."""

POSITIONS = "positions."
"""So begin, among a cell's items, the names of arrays by place in the row: see posenc.api.objective.Scored."""

Record = dict[str, Any]
"""A record as it was read: held to `RecordShape`."""


class MetricShape(TypedDict, total=False):
    name: Required[str]
    title: str
    better: str
    over: str
    items: list[str]
    test: str
    running: bool


class DetailsShape(TypedDict, total=False):
    holds: dict[str, bool]
    distances: list[float]
    bound: list[float] | None
    same: list[float]
    random: list[float]


class ScoreShape(TypedDict, total=False):
    """`value` is None where there is none, and `why` says why."""

    split: Required[str]
    metric: Required[str]
    length: int | None
    value: float | None
    items: int
    why: str | None
    details: DetailsShape | None


class StageShape(TypedDict, total=False):
    stage: Required[int]
    length: Required[int]
    batch: Required[int]
    steps: Required[int]
    items: int
    scores: Required[dict[str, float | None]]


class EncodingShape(TypedDict, total=False):
    name: Required[str]


class BackboneShape(TypedDict, total=False):
    attention: str


class EvaluationShape(TypedDict, total=False):
    length_factors: list[float]


class ConfigShape(TypedDict, total=False):
    """What readers of a record ask of a cell's configuration (all of it: posenc.config.settings)."""

    task: Required[str]
    scale: Required[str]
    encoding: Required[EncodingShape]
    length: Required[int]
    seed: Required[int]
    data: dict[str, Any]
    backbone: BackboneShape
    training: dict[str, Any]
    evaluation: EvaluationShape
    runtime: dict[str, Any]
    parent: str | None


class DataShape(TypedDict, total=False):
    name: str
    digest: str | None
    bytes: int | None
    expected_bytes: int | None
    rows: dict[str, int]
    expected_rows: dict[str, int] | None
    generated: bool
    note: str | None


class CodeShape(TypedDict, total=False):
    commit: str | None
    dirty: bool | None


class HardwareShape(TypedDict, total=False):
    """`instructions`: the level of the CPU's that torch uses; `gpu` and what follows: None where none is used."""

    cpu: str | None
    instructions: str | None
    cores: int | None
    system: str
    gpu: str | None
    driver: str | None
    cuda: str | None
    cudnn: str | None


class TimesShape(TypedDict, total=False):
    started: str
    ended: str
    seconds: float | None
    training_seconds: float | None
    evaluation_seconds: float | None
    compile_seconds: float | None


class RecordShape(TypedDict, total=False):
    """One cell's end. What is not Required is absent where the cell did not come so far.

    `cause` is MACHINE or DATA where a failure says nothing of training; otherwise None.
    `flops_per_token` are those of the forward passes of its training, padding included, over `tokens_seen`, which has
    none; `padding` is the share of places that hold no token. `encodings` is what posenc.properties.facts says of each
    part of its encoding.
    """

    schema: Required[int]
    id: Required[str]
    name: Required[str]
    status: Required[str]
    config: Required[ConfigShape]
    suite: str
    reason: str | None
    cause: str | None
    traceback: str | None
    metric: MetricShape | None
    choice: str
    metrics: list[MetricShape]
    scores: list[ScoreShape]
    stages: list[StageShape]
    baselines: dict[str, float | None]
    best_step: int | None
    parameters: dict[str, Any]
    encodings: list[dict[str, Any]]
    flops_per_token: float | None
    padding: float | None
    tokens_seen: int | None
    tokens_per_second: float | None
    data: DataShape | None
    checkpoint: dict[str, str]
    peak_memory_bytes: float | None
    items: str | None
    backend: str | None
    kernel_options: dict[str, str]
    code: CodeShape
    plugins: dict[str, Any]
    remarks: list[str]
    versions: dict[str, str]
    hardware: HardwareShape | None
    times: TimesShape
    digest: str


class CellShape(TypedDict, total=False):
    id: Required[str]
    name: Required[str]
    config: Required[ConfigShape]
    parent: str | None
    label: str
    tuned: dict[str, Any] | None


class SuiteShape(TypedDict, total=False):
    name: Required[str]
    title: str
    description: str
    scale: str
    baseline: str | None
    claim: str | None
    definition: str | None


class AskedShape(TypedDict, total=False):
    """The seeds asked for from a time on; `ended`: how many cells had ended by then."""

    made: str | None
    seeds: Required[list[int]]
    ended: int


class ManifestShape(TypedDict, total=False):
    schema: Required[int]
    suite: Required[SuiteShape]
    cells: Required[list[CellShape]]
    tasks: dict[str, dict[str, Any]]
    claims: list[ClaimShape]
    command: str | None
    made: str | None
    asked: list[AskedShape]
    digest: str


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def misfit(value: Any, shape: Any, path: str = "") -> str | None:
    """Where a value is not of a shape: `config.length must be a whole number, not '64'`; None where it is."""
    if shape is Any:
        return None
    kind = typing.get_origin(shape)
    if kind in (typing.Union, types.UnionType):
        tried = [misfit(value, one, path) for one in typing.get_args(shape)]
        return None if None in tried else tried[0]
    if typing.is_typeddict(shape):
        if not isinstance(value, Mapping):
            return _must_be("a table", value, path)
        hints, required = _hints(shape)
        if missing := [key for key in required if key not in value]:
            return f"{_below(path, missing[0])} is missing"
        parts = ((value[key], hint, key) for key, hint in hints.items() if key in value)
    elif kind is dict:
        if not isinstance(value, Mapping):
            return _must_be("a table", value, path)
        parts = ((inner, typing.get_args(shape)[1], key) for key, inner in value.items())
    elif kind is list:
        if not isinstance(value, list):
            return _must_be("a list", value, path)
        parts = ((inner, typing.get_args(shape)[0], str(index)) for index, inner in enumerate(value))
    elif shape in (int, float):
        fits = isinstance(value, int if shape is int else int | float) and not isinstance(value, bool)
        return None if fits else _must_be(_WORDS[shape], value, path)
    else:
        return None if isinstance(value, shape) else _must_be(_WORDS[shape], value, path)
    return next((found for inner, hint, key in parts if (found := misfit(inner, hint, _below(path, key)))), None)


@lru_cache
def _hints(shape: Any) -> tuple[dict[str, Any], list[str]]:
    """What each key of a table is, and which of them must be there (annotations that are text hide it from typing)."""
    marked = typing.get_type_hints(shape, include_extras=True)
    return typing.get_type_hints(shape), [k for k, hint in marked.items() if typing.get_origin(hint) is Required]


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _must_be(what: str, value: Any, path: str) -> str:
    shown = repr(value)
    return f"{path or 'it'} must be {what}, not {shown if len(shown) <= 40 else type(value).__name__}"


def is_failure(record: Mapping[str, Any]) -> bool:
    """Whether a cell's end counts as a failure of the run; what is not possible is none."""
    return record["status"] in FAILURES


def ending(record: Mapping[str, Any]) -> str:
    """How a cell without scores ended, in words: `failed: RuntimeError: ...`."""
    word = STATUSES.get(record["status"], record["status"])
    reason = str(record.get("reason") or "").strip()
    return reason if reason.startswith(word) else f"{word}: {reason}" if reason else word


def is_number(value: Any) -> bool:
    """Whether there is a finite number here (pandas writes a missing one as NaN or None)."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def dig(value: Any, path: Iterable[str]) -> Any:
    """`record["a"]["b"]`, or None where any step is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration with keys joined by dots: `training.steps`."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def coordinates(config: Mapping[str, Any]) -> dict[str, Any]:
    """Where a cell stands in the comparison, but for its variant."""
    return {
        "task": config.get("task"),
        "scale": config.get("scale"),
        "attention": dig(config, ("backbone", "attention")),
        "encoding": dig(config, ("encoding", "name")),
        "length": config.get("length"),
        "seed": config.get("seed"),
    }


MEASURED = ("theory", "anatomy")
"""Splits of scores that tell what an encoding or a model does, and not how well: they are described, never claimed."""

_NOT_AN_AXIS = ("schema", "task", "task_version", "scale", "encoding", "length", "seed", "backbone.attention")
_FOLLOWS_FROM_OTHERS = ("data.digest", "data.released", "data.revision", "backbone.vocabulary", "parent", "max_length")


def varying(cells: Iterable[Mapping[str, Any]], *, tuned: bool) -> dict[Any, list[str]]:
    """By task, the fields beside the coordinates in which cells of the same coordinates differ.

    Of those that follow from others, such as the digest of the data, only where there are no others.

    Args:
        tuned: whether the fields count too that a cell's suite tunes over.
    """
    varied: dict[Any, set[str]] = {}
    for group in _by_coordinates(cells):
        found = varied.setdefault(coordinates(group[0]["config"])["task"], set())
        if len(group) == 1:
            continue  # nothing varies: mostly so, and then no configuration need be read
        fixed = _fixed_where_others_tune(group)
        members = []
        for cell in group:
            apart = _NOT_AN_AXIS if tuned else (*_NOT_AN_AXIS, *(cell.get("tuned") or ()), *fixed)
            members.append({key: value for key, value in flat(cell["config"]).items() if not is_key(key, apart)})
        names = {key for keys in members for key in keys}
        # Of one task: another need not vary the same.
        found.update(key for key in names if len({repr(keys.get(key)) for keys in members}) > 1)
    return {
        task: sorted(key for key in found if key not in _FOLLOWS_FROM_OTHERS) or sorted(found)
        for task, found in varied.items()
    }


def variants(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """For each cell's id, what else its suite varies (and does not tune): `backbone.redraw=0`, mostly nothing.

    Without this, cells that differ in some field that no table names would be averaged as if they were seeds.
    """
    cells = list(cells)
    shown = varying(cells, tuned=False)
    result = {}
    for group in _by_coordinates(cells):
        keys = shown[coordinates(group[0]["config"])["task"]]
        fixed = _fixed_where_others_tune(group)
        for cell in group:
            apart, fields = (*(cell.get("tuned") or ()), *fixed), flat(cell["config"]) if keys else {}
            here = (key for key in keys if key in fields and not is_key(key, apart))
            result[cell["id"]] = ", ".join(f"{key}={fields[key]}" for key in here)
    return result


def _by_coordinates(cells: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault(tuple(coordinates(cell["config"]).values()), []).append(cell)
    return list(found.values())


def _fixed_where_others_tune(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that some of these cells tune and that the others all leave at one value: no axis of theirs.

    A suite that tunes the rate in one grid and varies the depth in another has the axis of depth alone.
    """
    tuned = {key for cell in cells for key in cell.get("tuned") or ()}
    rest = [flat(cell["config"]) for cell in cells if not cell.get("tuned")] if tuned else []
    return sorted(key for key in tuned if len({repr(one.get(key)) for one in rest}) == 1)


def labels(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """For each cell's id the name of its row: its encoding, behind the suite's own name for it where it has one."""
    result = {}
    for cell in cells:
        name = str(coordinates(cell["config"])["encoding"])
        result[cell["id"]] = f"{cell['label']} ({name})" if cell.get("label") else name
    return result


def without_seed(config: Mapping[str, Any]) -> str:
    """What the cells of one arm of a comparison share: a digest of a configuration but for its seed and parent."""
    return digest({key: value for key, value in config.items() if key not in ("seed", "parent")})[:16]


def is_key(key: str, families: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or stands under one."""
    return any(key == family or key.startswith(f"{family}.") for family in families)


def evaluated_lengths(config: Mapping[str, Any]) -> list[int]:
    """The lengths at which a cell is to be scored."""
    factors = dig(config, ("evaluation", "length_factors")) or [1]
    return [round(config["length"] * factor) for factor in factors]
