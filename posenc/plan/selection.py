"""What is asked for: a suite by its name, and what a command line changes of it. What is wrong is told without torch.

`posenc.plan.plan` makes the cells of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posenc.api import registry
from posenc.api.spec import relocated
from posenc.common.errors import ConfigError, PluginError, UnknownNameError
from posenc.common.toml import read_toml, validate
from posenc.config.claim import SuiteOfClaims, is_claim, read_claim, read_claims, suite_of, with_ledger
from posenc.config.places import CLAIMS, available, relocated_task, task_file, task_name
from posenc.config.suite import Grid, Suite
from posenc.config.task import SCALES

RUNTIME = ("device", "precision", "backend", "threads", "processes")
"""Keys of `runtime` that the command line has an option for."""
MOST_SEEDS = 1000
"""So many seeds may be named at once: each is a training of everything else."""
LONGEST = 2**24
"""Tokens of the longest row."""


@dataclass(frozen=True)
class Selection:
    """What a command line changes of a suite; None leaves it as it is.

    Attributes:
        options: by a key of `changes` the option that was typed for it, where that is not `--set`.
    """

    scale: str | None = None
    tasks: Sequence[str] | None = None
    encodings: Sequence[str] | None = None
    lengths: Sequence[int] | None = None
    seeds: Sequence[int] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def option(self, key: str) -> str:
        """What was typed to change a key: `--device`, `--set training.steps`."""
        return self.options.get(key, f"--set {key}")

    def typed(self, key: str, value: object) -> str:
        """A key and its value as they were typed, or as a file has them."""
        if key not in self.changes:
            return f"{key} = {value}"
        return f"{self.options[key]} {value}" if key in self.options else f"--set {key}={value}"


def choose(
    *,
    scale: str | None = None,
    tasks: Sequence[str] | None = None,
    encodings: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    data: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    **runtime: Any,
) -> Selection:
    """A choice as options give it; `runtime` has the keys of RUNTIME, None where an option is not given.

    Raises:
        ConfigError: `data` is no folder, or a length or a seed is beyond all measure.
    """
    for length in lengths or ():
        if not 1 <= length <= LONGEST:
            raise ConfigError(f"--lengths {length}: must be from 1 to {LONGEST:,} tokens")
    for seed in seeds or ():
        if abs(seed) >= 2**63:
            raise ConfigError(f"--seeds {seed}: must have at most 64 bits")
    own = {f"runtime.{key}": runtime[key] for key in RUNTIME if runtime.get(key) is not None}
    options = {key: f"--{key.removeprefix('runtime.')}" for key in own if key not in (changes or {})}
    return Selection(scale, tasks, encodings, lengths, seeds, own | dict(changes or {}), data_folder(data), options)


def seeds_of(text: str) -> list[int]:
    """The seeds that a text names, each once: `3`, `0,2`, `0-4`, or `0,5-9`.

    Raises:
        ValueError: it names none, or more than MOST_SEEDS.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(-?\d{1,30})(?:-(-?\d{1,30}))?", part.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"{part.strip()!r} in {text!r}: must be whole numbers or ranges, such as 0,1,2 or 0-4")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f"{part.strip()!r}: a range must rise, such as {last}-{first}")
        if last - first >= MOST_SEEDS:
            raise ValueError(f"{part.strip()!r} names {last - first + 1:,} seeds: must be at most {MOST_SEEDS:,}")
        found |= dict.fromkeys(range(first, last + 1))
    if len(found) > MOST_SEEDS:
        raise ValueError(f"{text!r} names {len(found):,} seeds: must be at most {MOST_SEEDS:,}")
    return list(found)


def ranges(seeds: Iterable[int]) -> str:
    """Seeds as `seeds_of` reads them: `0-4,7`."""
    runs: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if runs and runs[-1][1] == seed - 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def data_folder(given: str | Path | None) -> Path | None:
    """--data, else POSENC_DATA, else None.

    Raises:
        ConfigError: it is no folder.
    """
    source = "--data" if given else "POSENC_DATA"
    chosen = given or os.environ.get("POSENC_DATA")
    if not chosen:
        return None
    folder = Path(chosen)
    if not folder.is_dir():
        raise ConfigError(f"{source} {folder}: no such folder")
    return folder.absolute()


def find_suite(given: str, where: str = "") -> Suite:
    """A suite by its name, by the path of its TOML, or a task (by name or path): that alone over the default encodings.

    A claim's TOML, by its path, is a suite of that claim alone. A task without a `smoke` scale runs at the first that
    it has.

    Args:
        where: the option that named it, for errors.

    Raises:
        UnknownNameError: neither. ConfigError: a wrong key, type or value in it.
    """
    suites, tasks = available("suites"), available("tasks")
    path = suites.get(given) or (Path(given) if given.endswith(".toml") else None)
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"suite {given}: no such file")
        raw = read_toml(path)
        if "objective" in raw and "grid" not in raw:
            return _of_task(given, raw)
        if is_claim(raw):
            return suite_of(read_claim(path), str(path))
        suite = validate(Suite, raw, {}, str(path))
        if not suite.seeds and not all(grid.seeds for grid in suite.grid):
            raise ConfigError(f"{path}: seeds is empty")
        suite = _relocated(suite, path.parent)
        return with_ledger(suite, read_claims(suite.claims, path)) if suite.claims else suite
    if given in tasks:
        return _of_task(given, read_toml(tasks[given]))
    raise UnknownNameError("suite or task", given, [*suites, *tasks], where)


def find_claim(given: str) -> str:
    """The path of a claim's TOML, of one that posenc brings by its name.

    Raises:
        UnknownNameError: no such claim. ConfigError: no such file, or it is no claim.
    """
    known = available(CLAIMS)
    path = known.get(given) or (Path(given) if given.endswith(".toml") else None)
    if path is None:
        raise UnknownNameError("claim", given, known)
    if not path.is_file():
        raise ConfigError(f"claim {given}: no such file")
    if not is_claim(read_toml(path)):
        raise ConfigError(f"{path}: no claim: who (says so) is missing")
    return str(path)


def _of_task(given: str, raw: Mapping[str, Any]) -> Suite:
    """A task alone, over the default encodings."""
    grid, name = Grid(tasks=[given], encodings=list(registry.DEFAULT)), task_name(given)
    scales = raw.get("scales", {"small": {}})  # one that is the same at each scale reads the user's own data
    scale = next((one for one in SCALES if one in scales), SCALES[0])
    title = str(raw.get("title") or name)
    suite = Suite(name=name.replace("/", "-"), title=title, baseline="sinusoidal", seeds=[0], grid=[grid])
    return replace(suite, scale=scale)  # type: ignore[arg-type]  # one of SCALES


def _relocated(suite: Suite, folder: Path) -> Suite:
    """A suite in which the file paths of encodings, written from the folder that it lies in, hold here."""

    def at(text: str) -> str:
        return relocated(text, folder)

    grids = [
        replace(
            grid,
            tasks=[relocated_task(task, folder) for task in grid.tasks],
            encodings=[at(encoding) for encoding in grid.encodings],
            encodings_at={scale: [at(encoding) for encoding in one] for scale, one in grid.encodings_at.items()},
            names={at(encoding): label for encoding, label in grid.names.items()},
        )
        for grid in suite.grid
    ]
    return replace(suite, baseline=at(suite.baseline), claim=at(suite.claim), grid=grids)


def scale_wanted(suite: Suite, choice: Selection) -> str:
    """The scale that is chosen."""
    scale = choice.scale or suite.scale
    if scale not in SCALES:
        raise UnknownNameError("scale", scale, SCALES, "--scale")
    return scale


def tasks_wanted(suite: Suite, choice: Selection) -> list[str]:
    """The suite's tasks that run, as it names them; `--tasks` may name one that has a path by that or by its name.

    Raises:
        UnknownNameError: no such task. ConfigError: the command line names encodings or lengths, and the suite claims,
            which say what is compared.
    """
    for option, given in (("--encodings", choice.encodings), ("--lengths", choice.lengths)):
        if given and isinstance(suite, SuiteOfClaims):
            raise ConfigError(f"{option}: the claims of suite {suite.name} say what is compared; leave it out")
    named = list(dict.fromkeys(task for _, grid in suite.placed(scale_wanted(suite, choice)) for task in grid.tasks))
    chosen = []
    for task in choice.tasks or ():
        found = next(
            (one for one in named if task in (one, task_name(one)) or relocated_task(task, Path()) == one), None
        )
        if found is None:
            raise UnknownNameError(f"task of suite {suite.name}", task, map(task_name, named), "--tasks")
        chosen.append(found)
    return chosen or named


def encodings_wanted(grid: Grid, choice: Selection, scale: str) -> list[str]:
    """The encodings of a grid that are chosen, at a scale."""
    encodings = list(choice.encodings or grid.encodings_at.get(scale, grid.encodings))  # type: ignore[call-overload]
    if encodings == ["all"]:
        return [name for name in registry.entries() if name not in registry.NEED_OTHERS]
    return encodings


def require_known(suite: Suite, choice: Selection) -> None:
    """Refuse names that nothing has, before what a plan needs is loaded: of the scale, of tasks, of encodings.

    Raises:
        UnknownNameError: such a name. ConfigError: an encoding that cannot be read.
    """
    scale = scale_wanted(suite, choice)
    tasks = tasks_wanted(suite, choice)
    for where, grid in suite.placed(scale):
        for task in grid.tasks:
            if task in tasks:
                task_file(task, where)
        for encoding in encodings_wanted(grid, choice, scale):
            with suppress(PluginError):  # one that cannot be loaded fails its own cells
                registry.require_known(encoding, "--encodings" if choice.encodings else where)
