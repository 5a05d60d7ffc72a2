"""A suite as written in TOML: which tasks, encodings, lengths and seeds are compared, and with what."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from posenc.common.errors import ConfigError
from posenc.common.toml import STRICT


@dataclass(frozen=True, kw_only=True)
class Times:
    """Values as multiples of the one that a task has at its scale.

    Attributes:
        times: the factors.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    times: list[float]

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One product of a suite: tasks x encodings x lengths x seeds x what `vary` names, with `set` fixed in all.

    Attributes:
        tasks, encodings: by name, or by the path of a file. seeds: in place of the suite's own.
        set: keys of the task, each with its value. vary: keys of the task, each with its values.
        set_at: what is fixed at one scale alone, by the scale's name. A value of `vary` may be of any type, a list or a
            table too; numbers may be multiples of the task's own (`{ times = [0.5, 1, 2] }`).
        lengths: in tokens (`[64, 128]`), or multiples of the task's own at its scale (`{ times = [0.5, 1] }`).
        encodings_at, lengths_at: those at one scale alone, in place of `encodings` and `lengths`, by the scale's name.
        tune: for each key of training its values (`[0.001, 0.002]`, or `{ times = [0.5, 1, 2] }` of the task's own),
            tried for every encoding alike; the report shows the test scores of those that did best on validation,
            over all seeds, and how much the choice mattered.
        names: of rows in the report, by encoding: `learned` is BERT in one suite and nothing else in another.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    tasks: list[str]
    encodings: list[str]
    lengths: list[int] | Times = field(default_factory=list)
    encodings_at: dict[Literal["smoke", "small", "paper"], list[str]] = field(default_factory=dict)
    lengths_at: dict[Literal["smoke", "small", "paper"], list[int] | Times] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)
    set_at: dict[Literal["smoke", "small", "paper"], dict[str, Any]] = field(default_factory=dict)
    vary: dict[str, list[Any] | Times] = field(default_factory=dict)
    tune: dict[str, list[Any] | Times] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def every_encoding(self) -> list[str]:
        """At whatever scale."""
        return [*self.encodings, *(encoding for one in self.encodings_at.values() for encoding in one)]

    def __post_init__(self) -> None:
        for kind in ("vary", "tune"):
            for key, values in getattr(self, kind).items():
                if not len(values):
                    raise ConfigError(f"grid.{kind}.{key} = []: must have at least one value")
        if "length" in self.vary and len(self.lengths):
            raise ConfigError("grid.vary.length: grid.lengths names the trained lengths as well")
        for key in self.tune:
            if key in self.vary:
                raise ConfigError(f"grid.tune.{key}: it stands in vary as well")
            if not key.startswith("training."):
                raise ConfigError(f"grid.tune.{key}: must be keys of training, since data and model stay the same")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What is compared with what. Encodings are listed by name, so that what is installed does not change it.

    Attributes:
        name: of the results' folder too. title: as people read it. description: what the suite is for.
        baseline: the encoding from which differences are taken. scale: at which it runs where none is asked for.
        seeds: of every grid that has none of its own.
        claim: the encoding that is held against the baseline: on each task's main metric at the trained length, named
            here before anything has run. What else differs is described in the report and not claimed.
        time_limit: seconds that one cell may take; 0 for any.
        claims: files of claims, each a TOML of its own, from the suite's folder: `["claims/*.toml"]`. Their cells run
            beside those of `grid`, and the report's first section is their ledger. They are the suite's one family of
            named comparisons, so that `claim` stays empty.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    name: str
    title: str
    description: str = ""
    baseline: str
    claim: str = ""
    scale: Literal["smoke", "small", "paper"] = "smoke"
    seeds: list[int]
    time_limit: float = 0.0
    claims: list[str] = field(default_factory=list)
    grid: list[Grid] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):  # it names the folder of the results
            raise ConfigError(f"name = {self.name!r}: must be of letters, digits, '.', '_' and '-'")
        if self.time_limit < 0:
            raise ConfigError(f"time_limit = {self.time_limit}: must be at least 0 seconds")
        if not self.grid and not self.claims:
            raise ConfigError("grid is missing: what is compared must stand in a grid, or in claims")
        if self.claim and self.claims:
            raise ConfigError(f"claim = {self.claim!r}: with claims it must be empty, which name what is compared")
        named = list(dict.fromkeys(encoding for grid in self.grid for encoding in grid.every_encoding))
        if self.claim and self.claim == self.baseline:
            raise ConfigError(f"claim = {self.claim!r}: it is the baseline; name an encoding to hold against it")
        if self.claim and self.claim not in named:
            raise ConfigError(f"claim = {self.claim!r}: must be one of the suite's encodings: {', '.join(named)}")

    def placed(self, scale: str) -> list[tuple[str, Grid]]:
        """What runs at a scale, each grid behind the words for where it is written."""
        return [(f"grid {index + 1} of suite {self.name}", grid) for index, grid in enumerate(self.grid)]
