"""A suite's TOML to cells: what is run, each with an identity that hashes all that can change its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posenc import registry
from posenc.config import SCALES, Grid, Suite, Task, available, plain, read_toml, task_at, validate
from posenc.cost import backend_taken
from posenc.data import text
from posenc.errors import ConfigError, DataError, NotPossibleError, UnknownNameError
from posenc.objectives.causal_lm import CausalLM
from posenc.store import SCHEMA, digest


@dataclass(frozen=True)
class Cell:
    """One training: a task at a scale, with an encoding, a length, a seed and what else the suite varies.

    Attributes:
        id: the first 16 hex digits of SHA-256 of `config`.
        name: for people: `enwik8/performer/rope/L64/s0`.
        config: everything that decides its numbers (see `cell_config`).
        backend: the attention backend that will run.
        why_not: why it cannot run, where it cannot.
    """

    id: str
    name: str
    config: dict[str, Any]
    backend: str | None = None
    why_not: str | None = None
    parent: str | None = None

    def manifest(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "config": self.config, "parent": self.parent}


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

    def manifest(self, command: str, made: str) -> dict[str, Any]:
        suite = {key: getattr(self.suite, key) for key in ("name", "title", "description", "baseline", "scale")}
        cells = [cell.manifest() for cell in self.cells]
        return {"schema": SCHEMA, "suite": suite, "command": command, "made": made, "cells": cells}


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
    """The cells of a suite as a command line chose it.

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
    wanted = _tasks_wanted(suite, choice)
    cells: dict[str, Cell] = {}
    for index, grid in enumerate(suite.grid):
        for task in grid.tasks:
            if task in wanted:
                for cell in _grid_cells(
                    suite, grid, f"grid {index + 1} of suite {suite.name}", task, choice, need_data
                ):
                    cells.setdefault(cell.id, cell)
    if not cells:
        raise ConfigError(f"suite {suite.name}: nothing is left to run")
    # Seeds vary slowest: stopped half-way, a suite has whole comparisons of its first seeds.
    ordered = sorted(cells.values(), key=lambda cell: cell.config["seed"])
    return Plan(suite, ordered)


def _tasks_wanted(suite: Suite, choice: Choice) -> list[str]:
    named = list(dict.fromkeys(task for grid in suite.grid for task in grid.tasks))
    for task in choice.tasks or ():
        if task not in named:
            raise UnknownNameError(f"task of suite {suite.name}", task, named, "--tasks")
    return list(choice.tasks or named)


def _grid_cells(suite: Suite, grid: Grid, where: str, name: str, choice: Choice, need_data: bool) -> list[Cell]:
    encodings = list(choice.encodings or grid.encodings)
    if encodings == ["all"]:
        encodings = list(registry.entries())
    if both := sorted(set(grid.vary) & set(choice.changes)):
        raise ConfigError(f"--set {both[0]}: {where} varies it; change that instead")
    place = "--encodings" if choice.encodings else where
    described = [registry.describe(encoding, place) for encoding in encodings]
    cells = []
    for values in itertools.product(*grid.vary.values()):
        varied = dict(zip(grid.vary, values, strict=True))
        changes = {key: (value, f"{where}, set") for key, value in grid.set.items()}
        changes |= {key: (value, f"{where}, vary") for key, value in varied.items()}
        changes |= {key: (value, f"--set {key}") for key, value in choice.changes.items()}
        task = task_at(name, suite.scale, changes, where)
        lengths = choice.lengths or grid.lengths or [task.length]
        data_digest = _data_digest(task, lengths, choice.data, need_data)
        seeds = choice.seeds or grid.seeds or suite.seeds
        for seed, length, encoding in itertools.product(seeds, lengths, described):
            cells.append(_cell(task, suite.scale, encoding, length, seed, data_digest, varied))
    return cells


def _data_digest(task: Task, lengths: Sequence[int], folder: Path | None, need_data: bool) -> str:
    """The digest of a task's data, which must be enough for every length."""
    try:
        found = text.load(task.data.source, folder)
        for length in lengths:
            CausalLM(found, task.data.splits, length, task.evaluation)
        return found.digest
    except DataError:
        if need_data:
            raise
        return "not at hand"


def _cell(
    task: Task, scale: str, encoding: dict[str, str], length: int, seed: int, data_digest: str, varied: dict[str, Any]
) -> Cell:
    if length < 1:
        raise ConfigError(f"length {length}: at least 1 is wanted")
    written = plain(task)
    config = {
        "schema": SCHEMA,
        "task": task.name,
        "task_version": task.version,
        "scale": scale,
        "encoding": encoding,
        "length": length,
        "seed": seed,
        "data": {**written["data"], "digest": data_digest},
        "objective": task.objective,
        **{key: written[key] for key in ("backbone", "training", "evaluation", "runtime")},
        "parent": None,
    }
    extra = "".join(f"/{key.rsplit('.', 1)[-1]}={value}" for key, value in varied.items())
    name = f"{task.name}/{task.backbone.attention}/{encoding['name']}/L{length}{extra}/s{seed}"
    backend = why_not = None
    try:
        runtime = task.runtime
        backend = backend_taken(task.backbone, encoding["name"], length, runtime.backend, runtime.device)
    except NotPossibleError as error:
        why_not = str(error)
    return Cell(digest(config)[:16], name, config, backend, why_not)
