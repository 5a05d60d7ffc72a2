"""A suite's TOML to cells: what is run, each with an identity that hashes all that can change its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from posenc.api import registry
from posenc.api.entry_points import own_package
from posenc.backbone.cost import backend_taken, shapes
from posenc.backbone.transformer import is_head, is_positional
from posenc.common.errors import ConfigError, MissingDataError, NotPossibleError, PluginError, UnknownNameError
from posenc.common.files import digest
from posenc.config.claim import SuiteOfClaims
from posenc.config.objectives import OBJECTIVES, objective
from posenc.config.places import task_file, task_name
from posenc.config.suite import Grid, Suite
from posenc.config.task import SCRATCH, Task, plain, task_at
from posenc.objectives import factory
from posenc.plan.arms import told
from posenc.plan.axes import combinations, lengths_of, shown
from posenc.plan.cell import Cell
from posenc.plan.later import IN_FIRST_DEFINITIONS, without_defaults
from posenc.plan.selection import LONGEST, Selection, encodings_wanted, find_suite, scale_wanted, tasks_wanted
from posenc.records.record import SCHEMA, variants

__all__ = ["Plan", "Selection", "find_suite", "make"]

TOKENS = ("tokeniser", "released", "revision")
"""Keys of data that say what a token is: a cell starts from weights that were trained on the same tokens."""
HANDED_ON = ("backbone.", "runtime.", *(f"data.{key}" for key in TOKENS))
"""What a grid sets of these goes to the cells that are made for its own to start from."""
WITHOUT_WORDS = ("bytes", "symbols", "patches")
"""Tokenisers that no text decides."""


@dataclass(frozen=True)
class Plan:
    """A suite and its cells, in the order in which they run.

    Attributes:
        definition: hashes all of the suite that decides cells and that a command line does not narrow.
        tasks: by the name of each task that its suite or a task names by a path, that path.
        claims: of the suite, as the report's ledger reads them (`posenc.records.record.ClaimShape`).
    """

    suite: Suite
    cells: list[Cell]
    definition: str = ""
    tasks: Mapping[str, str] = field(default_factory=dict)
    claims: Sequence[Mapping[str, Any]] = ()

    def parents(self) -> frozenset[str]:
        """The ids of the cells that others start from."""
        return frozenset(cell.parent for cell in self.cells if cell.parent and not cell.why_not)

    def manifest(self, command: str, made: str) -> dict[str, Any]:
        suite = {key: getattr(self.suite, key) for key in ("name", "title", "description", "scale")}
        for key in ("baseline", "claim"):  # as the cells' configurations have them
            name = getattr(self.suite, key)
            suite[key] = registry.describe(name, f"{key} of suite {self.suite.name}")["name"] if name else ""
        suite["definition"] = self.definition
        cells = [cell.manifest() for cell in self.cells]
        names = {cell.config["task"]: None for cell in self.cells}
        tasks = {name: _about(self.tasks.get(name, name), self.suite.scale) for name in names}
        claims = {"claims": list(self.claims)} if self.claims else {}
        return {"schema": SCHEMA, "suite": suite, "command": command, "made": made, "cells": cells, "tasks": tasks,
                **claims}  # fmt: skip


def _about(name: str, scale: str) -> dict[str, Any]:
    """A task's title and card, for the report; lengths of what the paper reported are those of this scale."""
    task = task_at(name, scale, {})
    card: dict[str, Any] = plain(task.card)
    for reported in card["reported"]:
        reported["length"] = round(reported.pop("times") * task.length)
    return {"title": task.title, "card": card}


def _described(encoding: str, where: str) -> dict[str, str]:
    """An encoding's part in a cell's identity. One that cannot be loaded stands as it was written: its cells fail."""
    try:
        return registry.describe(encoding, where)
    except PluginError:
        names = [spec.name for spec in registry.parse(encoding, where)]
        brought = [registry.entries()[name].package if name in registry.entries() else "a file" for name in names]
        return {"name": encoding, "version": "unknown", "package": ", ".join(dict.fromkeys(brought))}


def make(suite: Suite, choice: Selection, *, need_data: bool = True) -> Plan:
    """The cells of a suite as a command line chose it, and those that they start from.

    Args:
        need_data: whether missing data is an error; `posenc plan` counts without it.

    Raises:
        PosencError: anything unknown, of a wrong type, or missing; nothing has run or been written.
    """
    scale = scale_wanted(suite, choice)
    registry.describe(suite.baseline, f"baseline of suite {suite.name}")
    suite = replace(suite, scale=scale)  # type: ignore[arg-type]  # checked above
    tasks = tasks_wanted(suite, choice)
    wanted = [
        one
        for where, grid in suite.placed(scale)
        for task in grid.tasks
        if task in tasks
        for one in _grid_cells(suite, grid, where, task, choice, need_data)
    ]
    if not wanted:
        raise ConfigError(f"suite {suite.name}: nothing is left to run")
    family = _Family(scale, choice, need_data)
    cells = _named_apart(family.cells(wanted))
    # Seeds vary slowest: stopped half-way, a suite has whole comparisons of its first seeds.
    in_order = sorted(cells, key=lambda cell: cell.config["seed"])
    claims = told(suite, wanted, family.known) if isinstance(suite, SuiteOfClaims) else []
    return Plan(suite, in_order, _definition(suite, choice), family.tasks, claims)


def _named_apart(cells: Sequence[Cell]) -> list[Cell]:
    """The cells with names of their own: two that differ in what no name says have it added."""
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        by_name.setdefault(cell.name, []).append(cell)
    apart = variants([cell.manifest() for cell in cells]) if len(by_name) < len(cells) else {}
    return [
        replace(cell, name=cell.name.replace(f"/s{cell.config['seed']}", f"/{apart[cell.id]}/s{cell.config['seed']}"))
        if len(by_name[cell.name]) > 1
        else cell
        for cell in cells
    ]


def _definition(suite: Suite, choice: Selection) -> str:
    """What a suite is known by, whichever of its tasks, encodings, lengths and seeds were chosen to run."""
    # Of people and clocks, or where it is written: no cell hangs on them.
    apart = ("title", "description", "time_limit", "claims", "ledger")
    written = {key: value for key, value in asdict(suite).items() if key not in apart}
    for grid in written["grid"]:  # keys that came after the first definitions count where something stands there
        for key in ("encodings_at", "lengths_at"):
            if not grid[key]:
                del grid[key]
    if isinstance(suite, SuiteOfClaims):
        written["ledger"] = [claim.decides() for claim in suite.ledger]
    tasks = {}
    for name in {task for _, grid in suite.placed(suite.scale) for task in grid.tasks}:
        task = without_defaults(plain(task_at(name, suite.scale, {})), IN_FIRST_DEFINITIONS)
        tasks[name] = {key: task[key] for key in task if key not in ("title", "card")}
    return digest([written, tasks, dict(choice.changes)])


Changes = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class _Wanted:
    """A cell whose parent is still to be found.

    Attributes:
        given: its task's name, or path. grid: in which it stands. changes: those of the task that made it.
    """

    given: str
    task: Task
    encoding: dict[str, str]
    length: int
    seed: int
    data_digest: str
    varied: dict[str, Any]
    tuned: dict[str, Any]
    changes: Changes
    where: str
    grid: Grid
    label: str = ""


def _grid_cells(suite: Suite, grid: Grid, where: str, name: str, choice: Selection, need_data: bool) -> list[_Wanted]:
    encodings = encodings_wanted(grid, choice, suite.scale)
    if both := sorted((grid.vary.keys() | grid.tune.keys()) & choice.changes.keys()):
        kind = "varies" if both[0] in grid.vary else "tunes over"
        raise ConfigError(f"{choice.option(both[0])}: {where} {kind} it; change that instead")
    place = "--encodings" if choice.encodings else where
    described = [_described(encoding, place) for encoding in encodings]
    labels = _labels(grid, where)
    wanted = []
    fixed: Changes = {key: (value, f"{where}, set") for key, value in grid.set.items()}
    own = grid.set_at.get(suite.scale, {})
    fixed |= {key: (value, f"{where}, set_at.{suite.scale}") for key, value in own.items()}
    typed = {key: (value, choice.option(key)) for key, value in choice.changes.items()}
    if choice.lengths and "length" in grid.vary:
        raise ConfigError(f"--lengths: {where} varies length; leave it out")
    for varied in combinations(grid.vary, lambda: task_at(name, suite.scale, fixed | typed, where), f"{where}, vary"):
        changes = fixed | {key: (value, f"{where}, vary") for key, value in varied.items()} | typed
        task = task_at(name, suite.scale, changes, where)
        lengths = choice.lengths or lengths_of(grid, suite.scale, task, where) or [task.length]
        _require_lengths(task, lengths, where)
        data_digest = _data_digest(name, task, lengths, choice.data, need_data)
        seeds = choice.seeds or grid.seeds or suite.seeds
        for tuned in combinations(grid.tune, lambda: task, f"{where}, tune"):  # noqa: B023
            more = changes | {key: (value, f"{where}, tune") for key, value in tuned.items()}
            one = task_at(name, suite.scale, more, where) if tuned else task
            for seed, length, encoding in itertools.product(seeds, lengths, described):
                settings = (name, one, encoding, length, seed, data_digest, varied, tuned, more, where, grid)
                wanted.append(_Wanted(*settings, labels.get(encoding["name"], "")))
    return wanted


def _require_lengths(task: Task, lengths: Sequence[int], where: str) -> None:
    """Every length at which a task is scored must be one, whichever it is trained at."""
    try:
        for length in lengths:
            task.evaluation.lengths(length)
    except ConfigError as error:
        raise ConfigError(f"{where}, task {task.name}: {error}") from None


def _labels(grid: Grid, where: str) -> dict[str, str]:
    """The rows' own names, by their encodings."""
    for encoding in grid.names:
        if encoding not in grid.every_encoding:
            raise UnknownNameError("encoding", encoding, grid.every_encoding, f"{where}, names")
    return {_described(encoding, where)["name"]: label for encoding, label in grid.names.items()}


def _data_digest(given: str, task: Task, lengths: Sequence[int], folder: Path | None, need_data: bool) -> str:
    """The digest of a task's data, which must be enough for every length."""
    try:
        found, data_digest = factory.data(task.data, task.objective, folder, task_file(given).path.parent)
        for length in lengths:
            objective(task.objective).require_data(found, task, length)
        return data_digest
    except MissingDataError:
        if need_data:
            raise
        return "not at hand"


class _Family:
    """Gives every cell its parent: one of the plan's, or else one made for it, at its own task's settings.

    `known` has the cell of each that was wanted, by its id in this process.
    """

    def __init__(self, scale: str, choice: Selection, need_data: bool) -> None:
        self.scale, self.choice, self.need_data = scale, choice, need_data
        self.made: dict[str, Cell] = {}
        self.known: dict[int, Cell] = {}
        self.tasks: dict[str, str] = {}

    def cells(self, wanted: Sequence[_Wanted]) -> list[Cell]:
        """All cells, parents before those that start from them."""
        for one in wanted:
            self._told_apart(one.given, one.task.name, one.where)
        waiting = [one for one in wanted if one.task.start != SCRATCH]
        for one in wanted:
            if one.task.start == SCRATCH:
                self._add(one, None)
        while waiting:
            unsettled = {one.task.name for one in waiting}
            ready = [one for one in waiting if task_name(one.task.start) not in unsettled - {one.task.name}]
            if not ready:
                raise ConfigError(f"{waiting[0].where}: tasks start from one another: {', '.join(sorted(unsettled))}")
            for one in ready:
                self._add(one, self._parent(one, ()))
            waiting = [one for one in waiting if one not in ready]
        return list(self.made.values())

    def _told_apart(self, given: str, name: str, where: str) -> None:
        """Two tasks of one name would be one in records and report."""
        first = self.tasks.setdefault(name, given)
        if task_file(first).path != task_file(given).path:
            raise ConfigError(f"{where}: {given} and {first} are both named {name!r}: rename one")

    def _add(self, one: _Wanted, parent: Cell | None) -> Cell:
        cell = _cell(one, self.scale, parent)
        self.known[id(one)] = self.made.setdefault(cell.id, cell)
        return self.known[id(one)]

    def _parent(self, one: _Wanted, descendants: tuple[str, ...]) -> Cell:
        start = task_name(one.task.start)
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
        given = one.task.start
        task = task_at(given, self.scale, changes, f"{one.where}: start")
        self._told_apart(given, start, one.where)
        data_digest = _data_digest(given, task, [task.length], self.choice.data, self.need_data)
        settled: dict[str, Any] = {"varied": {}, "tuned": {}, "changes": changes, "label": ""}
        parent = replace(one, given=given, task=task, length=task.length, data_digest=data_digest, **settled)
        return self._add(parent, self._parent(parent, (*descendants, start)) if task.start != SCRATCH else None)


def _cell(one: _Wanted, scale: str, parent: Cell | None) -> Cell:
    task, encoding, length = one.task, one.encoding, one.length
    if not 1 <= length <= LONGEST:
        raise ConfigError(f"length {length}: must be from 1 to {LONGEST:,} tokens")
    if abs(one.seed) >= 2**63:
        raise ConfigError(f"seed {one.seed}: must have at most 64 bits")
    stages = task.training.stages
    longest = objective(task.objective).longest_row(task.data, length)
    max_length = max(longest, *(stage.length for stage in stages), parent.config["max_length"] if parent else 0)
    written, file, package = plain(task), task_file(one.given), OBJECTIVES.entry(task.objective).package
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
        "start": parent.config["task"] if parent else task.start,
        **{key: written[key] for key in ("backbone", "training", "evaluation", "runtime")},
        "parent": parent.id if parent else None,
        "task_source": file.digest,
        "objective_package": "" if package == own_package() else package,
    }
    config = without_defaults(config)
    extra = "".join(f"/{key.rsplit('.', 1)[-1]}={shown(value)}" for key, value in (one.varied | one.tuned).items())
    source = f"/from-{config['start']}" if parent and "start" not in one.varied else ""
    source += f"/{task.data.tokeniser}" if task.data.tokeniser in ("characters", "words") else ""
    name = f"{task.name}/{task.backbone.attention}/{encoding['name']}/L{length}{source}{extra}/s{one.seed}"
    backend, why_not, faulty = None, None, False
    try:
        runtime = task.runtime
        backend = backend_taken(
            task.backbone, encoding["name"], max_length, runtime.backend, runtime.device, precision=runtime.precision,
            length=length,
        )  # fmt: skip
        if parent:
            _require_fit(one, parent, max_length)
    except (NotPossibleError, PluginError) as error:
        why_not, faulty = str(error), isinstance(error, PluginError)
    more: dict[str, Any] = {"tuned": one.tuned, "label": one.label, "faulty": faulty}
    more["folder"] = str(file.path.parent)
    return Cell.of(config, name, backend=backend, why_not=why_not, **more)


def _require_fit(one: _Wanted, parent: Cell, max_length: int) -> None:
    """The parent's weights must be those of this model, each of its shape.

    Raises:
        NotPossibleError: the encoding's own do not fit, or there will be none. ConfigError: the backbones differ; where
            nothing is learnt, in whatever it may be, as another model would be measured than the one that was trained.
    """
    if parent.why_not:
        raise NotPossibleError(f"its parent {parent.name} is not possible: {parent.why_not}")
    name = one.encoding["name"]
    if not objective(one.task.objective).learns:
        trained, here = (plain(each) for each in (parent.settings.backbone, one.task.backbone))
        if differ := [f"backbone.{key} is {trained[key]!r} there and {here[key]!r} here" for key in here
                      if trained[key] != here[key]]:  # fmt: skip
            what = f"what is measured must be the model of {parent.name}: {'; '.join(differ)}"
            raise ConfigError(f"{one.where}: start = {one.task.start!r}: {what}")
    _require_same_tokens(one, parent)
    theirs = shapes(parent.settings.backbone, name, parent.settings.max_length)
    ours = shapes(one.task.backbone, name, max_length)
    for key in sorted(key for key in theirs.keys() | ours.keys() if not is_head(key)):  # each objective has its own
        if theirs.get(key) != ours.get(key):
            what = (
                f"{key} is {theirs.get(key, 'absent')} in its parent {parent.name} and {ours.get(key, 'absent')} here"
            )
            if is_positional(key):
                raise NotPossibleError(what)
            raise ConfigError(f"{one.where}: start = {one.task.start!r}: {what}")


def _require_same_tokens(one: _Wanted, parent: Cell) -> None:
    """Weights are of tokens: a tokeniser that is trained here must be trained on the text that its parent's was."""
    here, there = one.task.data, parent.settings.data
    if here.released or here.tokeniser in WITHOUT_WORDS or here.own:  # no task can name the text of another's files
        return
    ours, theirs = ((data.vocabulary_of or data.source, data.files or None) for data in (here, there))
    if ours != theirs:
        raise ConfigError(
            f"{one.where}: start = {one.task.start!r}: the tokens of {parent.name} are those of the text of"
            f" {theirs[0]!r}, and here of {ours[0]!r}: data.vocabulary_of must be {theirs[0]!r}"
        )
