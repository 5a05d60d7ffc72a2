"""A suite's TOML to cells: what is run, each with an identity that hashes all that can change its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posenc import registry
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import is_head, is_positional
from posenc.checked import read_toml, validate
from posenc.config import SCALES, SCRATCH, Task, available, plain, task_at
from posenc.cost import backend_taken, shapes
from posenc.data.text import ByteText
from posenc.errors import ConfigError, DataError, NotPossibleError, UnknownNameError
from posenc.objectives import factory
from posenc.objectives.causal_lm import CausalLM
from posenc.store import SCHEMA, digest
from posenc.suite import Grid, Suite, Times

TOKENS = ("tokeniser", "released", "revision")
"""Keys of data that say what a token is: a cell starts from weights that were trained on the same tokens."""
HANDED_ON = ("backbone.", "runtime.", *(f"data.{key}" for key in TOKENS))
"""What a grid sets of these goes to the cells that are made for its own to start from."""


@dataclass(frozen=True)
class Cell:
    """One training: a task at a scale, with an encoding, a length, a seed and what else the suite varies.

    Attributes:
        id: the first 16 hex digits of SHA-256 of `config`.
        name: for people: `enwik8/performer/rope/L64/s0`.
        config: everything that decides its numbers (see `cell_config`).
        backend: the attention backend that will run.
        why_not: why it cannot run, where it cannot.
        parent: the id of the cell whose trained weights it starts from.
        tuned: the values under which it stands in its suite's `tune`: keys to values.
        label: its encoding's name in its suite's report, where it has one of its own.
    """

    id: str
    name: str
    config: dict[str, Any]
    backend: str | None = None
    why_not: str | None = None
    parent: str | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def manifest(self) -> dict[str, Any]:
        return {
            **{key: getattr(self, key) for key in ("id", "name", "config", "parent", "label")},
            "tuned": dict(self.tuned),
        }


@dataclass(frozen=True)
class Choice:
    """What a command line changes of a suite; None leaves it as it is."""

    scale: str | None = None
    tasks: Sequence[str] | None = None
    encodings: Sequence[str] | None = None
    lengths: Sequence[int] | None = None
    seeds: Sequence[int] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A suite and its cells, in the order in which they run."""

    suite: Suite
    cells: list[Cell]

    def parents(self) -> frozenset[str]:
        """The ids of the cells that others start from."""
        return frozenset(cell.parent for cell in self.cells if cell.parent and not cell.why_not)

    def manifest(self, command: str, made: str) -> dict[str, Any]:
        suite = {key: getattr(self.suite, key) for key in ("name", "title", "description", "scale")}
        for key in ("baseline", "claim"):  # as the cells' configurations have them
            name = getattr(self.suite, key)
            suite[key] = registry.describe(name, f"{key} of suite {self.suite.name}")["name"] if name else ""
        cells = [cell.manifest() for cell in self.cells]
        tasks = {name: _about(name, self.suite.scale) for name in {cell.config["task"]: None for cell in self.cells}}
        return {"schema": SCHEMA, "suite": suite, "command": command, "made": made, "cells": cells, "tasks": tasks}


def _about(name: str, scale: str) -> dict[str, Any]:
    """A task's title and card, for the report; lengths of what the paper reported are those of this scale."""
    task = task_at(name, scale, {})
    card: dict[str, Any] = plain(task.card)
    for reported in card["reported"]:
        reported["length"] = round(reported.pop("times") * task.length)
    return {"title": task.title, "card": card}


def find_suite(given: str) -> Suite:
    """A suite by its name, by the path of its TOML, or a task's name: that task alone over the default encodings.

    Raises:
        UnknownNameError: neither. ConfigError: a wrong key, type or value in it.
    """
    suites, tasks = available("suites"), available("tasks")
    path = suites.get(given) or (Path(given) if given.endswith(".toml") else None)
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"suite {given}: no such file")
        suite = validate(Suite, read_toml(path), {}, str(path))
        if not suite.seeds and not all(grid.seeds for grid in suite.grid):
            raise ConfigError(f"{path}: seeds is empty")
        return suite
    if given in tasks:
        grid = Grid(tasks=[given], encodings=list(registry.DEFAULT))
        title = str(read_toml(tasks[given]).get("title", given))
        return Suite(name=given.replace("/", "-"), title=title, baseline="sinusoidal", seeds=[0], grid=[grid])
    raise UnknownNameError("suite or task", given, [*suites, *tasks])


def make(suite: Suite, choice: Choice, *, need_data: bool = True) -> Plan:
    """The cells of a suite as a command line chose it, and those that they start from.

    Args:
        need_data: whether missing data is an error; `posenc plan` counts without it.

    Raises:
        PosencError: anything unknown, of a wrong type, or missing; nothing has run or been written.
    """
    scale = choice.scale or suite.scale
    if scale not in SCALES:
        raise UnknownNameError("scale", scale, SCALES, "--scale")
    registry.describe(suite.baseline, f"baseline of suite {suite.name}")
    suite = replace(suite, scale=scale)  # type: ignore[arg-type]  # checked above
    tasks = _tasks_wanted(suite, choice)
    wanted = [
        one
        for index, grid in enumerate(suite.grid)
        for task in grid.tasks
        if task in tasks
        for one in _grid_cells(suite, grid, f"grid {index + 1} of suite {suite.name}", task, choice, need_data)
    ]
    if not wanted:
        raise ConfigError(f"suite {suite.name}: nothing is left to run")
    cells = _Family(scale, choice, need_data).cells(wanted)
    # Seeds vary slowest: stopped half-way, a suite has whole comparisons of its first seeds.
    return Plan(suite, sorted(cells, key=lambda cell: cell.config["seed"]))


def _tasks_wanted(suite: Suite, choice: Choice) -> list[str]:
    named = list(dict.fromkeys(task for grid in suite.grid for task in grid.tasks))
    for task in choice.tasks or ():
        if task not in named:
            raise UnknownNameError(f"task of suite {suite.name}", task, named, "--tasks")
    return list(choice.tasks or named)


Changes = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class _Wanted:
    """A cell whose parent is still to be found; `changes` are those of the task that made it."""

    task: Task
    encoding: dict[str, str]
    length: int
    seed: int
    data_digest: str
    varied: dict[str, Any]
    tuned: dict[str, Any]
    changes: Changes
    where: str
    label: str = ""


def _grid_cells(suite: Suite, grid: Grid, where: str, name: str, choice: Choice, need_data: bool) -> list[_Wanted]:
    encodings = list(choice.encodings or grid.encodings)
    if encodings == ["all"]:
        encodings = list(registry.entries())
    if both := sorted((grid.vary.keys() | grid.tune.keys()) & choice.changes.keys()):
        kind = "varies" if both[0] in grid.vary else "tunes over"
        raise ConfigError(f"--set {both[0]}: {where} {kind} it; change that instead")
    place = "--encodings" if choice.encodings else where
    described = [registry.describe(encoding, place) for encoding in encodings]
    labels = _labels(grid, where)
    wanted = []
    for values in itertools.product(*grid.vary.values()):
        varied = dict(zip(grid.vary, values, strict=True))
        changes: Changes = {key: (value, f"{where}, set") for key, value in grid.set.items()}
        own = grid.set_at.get(suite.scale, {})
        changes |= {key: (value, f"{where}, set_at.{suite.scale}") for key, value in own.items()}
        changes |= {key: (value, f"{where}, vary") for key, value in varied.items()}
        changes |= {key: (value, f"--set {key}") for key, value in choice.changes.items()}
        task = task_at(name, suite.scale, changes, where)
        lengths = choice.lengths or _lengths(grid, task, where) or [task.length]
        data_digest = _data_digest(task, lengths, choice.data, need_data)
        seeds = choice.seeds or grid.seeds or suite.seeds
        for tuned in _tuned(grid, task, where):
            more = changes | {key: (value, f"{where}, tune") for key, value in tuned.items()}
            one = task_at(name, suite.scale, more, where) if tuned else task
            for seed, length, encoding in itertools.product(seeds, lengths, described):
                settings = (one, encoding, length, seed, data_digest, varied, tuned, more, where)
                wanted.append(_Wanted(*settings, labels.get(encoding["name"], "")))
    return wanted


def _lengths(grid: Grid, task: Task, where: str) -> list[int]:
    """The training lengths that a grid names, in tokens."""
    if not isinstance(grid.lengths, Times):
        return grid.lengths
    lengths = [task.length * factor for factor in grid.lengths.times]
    for length in lengths:
        if length != int(length):
            raise ConfigError(f"{where}, lengths: {length:g} of task {task.name} is no whole number of tokens")
    return [int(length) for length in lengths]


def _tuned(grid: Grid, task: Task, where: str) -> list[dict[str, Any]]:
    """The combinations of values that a grid tunes over: one, of nothing, where it does not."""
    columns = []
    for key, values in grid.tune.items():
        if isinstance(values, Times):
            own = getattr(task.training, key.removeprefix("training."), None)
            if not isinstance(own, float):
                raise ConfigError(f"{where}, tune: {key} = {own!r} of task {task.name} has no multiples")
            columns.append([float(f"{own * factor:.12g}") for factor in values.times])
        else:
            columns.append(values)
    return [dict(zip(grid.tune, values, strict=True)) for values in itertools.product(*columns)]


def _labels(grid: Grid, where: str) -> dict[str, str]:
    """The rows' own names, by their encodings."""
    for encoding in grid.names:
        if encoding not in grid.encodings:
            raise UnknownNameError("encoding", encoding, grid.encodings, f"{where}, names")
    return {registry.describe(encoding, where)["name"]: label for encoding, label in grid.names.items()}


def _data_digest(task: Task, lengths: Sequence[int], folder: Path | None, need_data: bool) -> str:
    """The digest of a task's data, which must be enough for every length."""
    try:
        found, data_digest = factory.data(task.data, task.objective, folder)
        for length in lengths:
            if isinstance(found, ByteText):
                CausalLM(found, task.data.splits, length, task.evaluation)
        return data_digest
    except DataError:
        if need_data:
            raise
        return "not at hand"


class _Family:
    """Gives every cell its parent: one of the plan's, or else one made for it, at its own task's settings."""

    def __init__(self, scale: str, choice: Choice, need_data: bool) -> None:
        self.scale, self.choice, self.need_data = scale, choice, need_data
        self.made: dict[str, Cell] = {}

    def cells(self, wanted: Sequence[_Wanted]) -> list[Cell]:
        """All cells, parents before those that start from them."""
        waiting = [one for one in wanted if one.task.start != SCRATCH]
        for one in wanted:
            if one.task.start == SCRATCH:
                self._add(one, None)
        while waiting:
            unsettled = {one.task.name for one in waiting}
            ready = [one for one in waiting if one.task.start not in unsettled - {one.task.name}]
            if not ready:
                raise ConfigError(f"{waiting[0].where}: tasks start from one another: {', '.join(sorted(unsettled))}")
            for one in ready:
                self._add(one, self._parent(one, ()))
            waiting = [one for one in waiting if one not in ready]
        return list(self.made.values())

    def _add(self, one: _Wanted, parent: Cell | None) -> Cell:
        cell = _cell(one, self.scale, parent)
        return self.made.setdefault(cell.id, cell)

    def _parent(self, one: _Wanted, descendants: tuple[str, ...]) -> Cell:
        start = one.task.start
        if start in descendants:
            raise ConfigError(f"{one.where}: tasks start from one another: {', '.join(sorted(descendants))}")
        found = [
            cell
            for cell in self.made.values()
            if cell.config["task"] == start
            and (start != one.task.name or cell.parent is None)
            and cell.config["encoding"]["name"] == one.encoding["name"]
            and cell.config["seed"] == one.seed
            and cell.config["backbone"]["attention"] == one.task.backbone.attention
            and all(cell.config["data"][key] == getattr(one.task.data, key) for key in TOKENS)
        ]
        if len(found) > 1:
            names = ", ".join(cell.name for cell in found)
            raise ConfigError(f"{one.where}: start = {start!r} may be any of {names}: leave one of them in the suite")
        if found:
            return found[0]
        # What decides whether the weights fit goes to the parent too, and what the command line wants of every task:
        # all but packing, as a parent's rows may all have one length.
        changes = {
            key: change
            for key, change in one.changes.items()
            if key not in ("start", "training.packed") and (key in self.choice.changes or key.startswith(HANDED_ON))
        }
        task = task_at(start, self.scale, changes, f"{one.where}: start")
        data_digest = _data_digest(task, [task.length], self.choice.data, self.need_data)
        settled: dict[str, Any] = {"varied": {}, "tuned": {}, "changes": changes, "label": ""}
        parent = replace(one, task=task, length=task.length, data_digest=data_digest, **settled)
        return self._add(parent, self._parent(parent, (*descendants, start)) if task.start != SCRATCH else None)


def _cell(one: _Wanted, scale: str, parent: Cell | None) -> Cell:
    task, encoding, length = one.task, one.encoding, one.length
    if length < 1:
        raise ConfigError(f"length {length}: at least 1 is wanted")
    stages = task.training.stages
    max_length = max(length, *(stage.length for stage in stages), parent.config["max_length"] if parent else 0)
    written = plain(task)
    config = {
        "schema": SCHEMA,
        "task": task.name,
        "task_version": task.version,
        "scale": scale,
        "encoding": encoding,
        "length": length,
        "max_length": max_length,
        "seed": one.seed,
        "data": {**written["data"], "digest": one.data_digest},
        "objective": task.objective,
        "start": task.start,
        **{key: written[key] for key in ("backbone", "training", "evaluation", "runtime")},
        "parent": parent.id if parent else None,
    }
    extra = "".join(f"/{key.rsplit('.', 1)[-1]}={value}" for key, value in (one.varied | one.tuned).items())
    source = f"/from-{task.start}" if parent and "start" not in one.varied else ""
    source += f"/{task.data.tokeniser}" if task.data.tokeniser in ("characters", "words") else ""
    name = f"{task.name}/{task.backbone.attention}/{encoding['name']}/L{length}{source}{extra}/s{one.seed}"
    backend = why_not = None
    try:
        runtime = task.runtime
        backend = backend_taken(task.backbone, encoding["name"], max_length, runtime.backend, runtime.device)
        if task.training.packed and task.backbone.attention == "performer":
            raise NotPossibleError("not built: training.packed with a Performer")
        if parent:
            _require_fit(one, parent, max_length)
    except NotPossibleError as error:
        why_not = str(error)
    return Cell(digest(config)[:16], name, config, backend, why_not, config["parent"], one.tuned, one.label)


def portions(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """How many tokens a cell reads in training, by the length of the rows that they stand in.

    At most so many: rows may be shorter. An encoder-decoder reads two sides, and matching two pairs a row.
    """
    training = config["training"]
    sides = 2 if config["backbone"]["form"] == "encoder-decoder" or config["objective"] == "matching" else 1
    whole = {"length": config["length"], "batch": training["batch"], "steps": training["steps"]}
    stages = training["stages"] or [whole]
    return [(sides * stage["steps"] * stage["batch"] * stage["length"], stage["length"]) for stage in stages]


def _require_fit(one: _Wanted, parent: Cell, max_length: int) -> None:
    """The parent's weights must be those of this model, each of its shape.

    Raises:
        NotPossibleError: the encoding's own do not fit, or there will be none. ConfigError: the backbones differ.
    """
    if parent.why_not:
        raise NotPossibleError(f"its parent {parent.name} is not possible: {parent.why_not}")
    name = one.encoding["name"]
    theirs = shapes(validate(BackboneConfig, parent.config["backbone"], {}, "cell"), name, parent.config["max_length"])
    ours = shapes(one.task.backbone, name, max_length)
    for key in sorted(key for key in theirs.keys() | ours.keys() if not is_head(key)):  # each objective has its own
        if theirs.get(key) != ours.get(key):
            what = (
                f"{key} is {theirs.get(key, 'absent')} in its parent {parent.name} and {ours.get(key, 'absent')} here"
            )
            if is_positional(key):
                raise NotPossibleError(what)
            raise ConfigError(f"{one.where}: start = {one.task.start!r}: {what}")
