"""A claim as written in TOML: who says what of which encodings, its published figures, and what would test it here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from posenc.api.spec import relocated
from posenc.common.errors import ConfigError
from posenc.common.toml import STRICT, read_toml, validate
from posenc.config.places import relocated_task
from posenc.config.suite import Grid, Suite, Times

ANY = "any"
"""In `not_at`: whatever the scale."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A figure that was published, or what is said where curves alone were.

    Attributes:
        metric: as it is named there, with its unit. encoding, baseline: the two figures.
        spread: of them, in words ("+- 2.45 and 2.91, 3 seeds"). says: what was published, where it is no such pair.
        source: the table, figure or address where it stands. second_hand: whether it was read in another text.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    metric: str = ""
    encoding: float | None = None
    baseline: float | None = None
    spread: str = ""
    says: str = ""
    source: str
    second_hand: bool = False

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("published: source = '': where a figure was read must be said")
        figures = (self.encoding, self.baseline) != (None, None)
        if not figures and not self.says:
            raise ConfigError(f"published: {self.source}: figures, or what it says, must be given")
        if figures and not self.metric:
            raise ConfigError(f"published: {self.source}: the metric of its figures must be given")


@dataclass(frozen=True, kw_only=True)
class Against:
    """In what, beside its encoding, the baseline's arm differs from the other; None where it does not.

    Attributes:
        times, trained, metric: as in Comparison. set: keys of the task.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    times: float | None = None
    trained: float | None = None
    metric: str | None = None
    set: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the ledger: two arms, paired by seed, and what counts as the claim holding.

    Attributes:
        encoding, baseline: of the two arms. against: what else differs in the baseline's.
        metric: our name for it; the task's main one by default.
        split: such as "test_sparse"; the first that is tested by default.
        times: scored at this multiple of the trained length. trained: at this multiple of the task's own length.
        set: keys of the task, for both arms.
        holds: what the claim says: the encoding's score is "better" or "worse" than the baseline's, or the "same".
        margin: by less than so much two scores that are the same differ, in the metric's unit.
        published: the figures beside which ours stand.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    encoding: str
    baseline: str
    metric: str = ""
    split: str = ""
    times: float = 1.0
    trained: float = 1.0
    set: dict[str, Any] = field(default_factory=dict)
    against: Against = field(default_factory=Against)
    holds: Literal["better", "worse", "same"]
    margin: float = 0.0
    published: list[Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.holds == "same") != (self.margin > 0):
            raise ConfigError(f"compare: holds = {self.holds!r}, margin = {self.margin}: 'same', and only it, has one")
        if min(self.arms(), key=lambda arm: min(arm.times, arm.trained)).smallest <= 0:
            raise ConfigError("compare: times and trained must be more than 0")
        mine, theirs = self.arms()
        if mine == theirs:
            raise ConfigError(f"compare: {self.encoding} is held against itself: the arms must differ")

    def arms(self) -> tuple[Arm, Arm]:
        """The encoding's and the baseline's."""
        mine = Arm(self.encoding, self.trained, self.set, self.times, self.metric)
        own = {
            key: value for key in ("times", "trained", "metric") if (value := getattr(self.against, key)) is not None
        }
        theirs = replace(mine, encoding=self.baseline, set={**self.set, **self.against.set}, **own)
        return mine, theirs


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: `encoding`, `trained` and `set` say which cells, `times` and `metric` which score."""

    encoding: str
    trained: float
    set: Mapping[str, Any]
    times: float
    metric: str

    @property
    def smallest(self) -> float:
        return min(self.times, self.trained)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What someone says of encodings, and the comparisons that test it.

    Attributes:
        name: of its results' folder too. title: as people read it. says: what is claimed, in words.
        who: says so. paper: with its arXiv number, or its address. where: in it. source_note: what to know of its
            figures.
        task: by name, or by the path of a file. attention, set, set_at: of all its cells, as in a suite's grid.
        seeds: in place of the suite's own.
        not_at: by scale (or "any"), why it cannot be tested there: it then stands in the ledger with the reason alone.
        published: figures of the whole of it. compare: the comparisons, a line of the ledger each.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    name: str
    title: str
    who: str
    paper: str
    where: str
    says: str
    task: str = ""
    attention: Literal["", "softmax", "performer"] = ""
    set: dict[str, Any] = field(default_factory=dict)
    set_at: dict[Literal["smoke", "small", "paper"], dict[str, Any]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    not_at: dict[Literal["smoke", "small", "paper", "any"], str] = field(default_factory=dict)
    published: list[Published] = field(default_factory=list)
    compare: list[Comparison] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):  # it names the folder of the results
            raise ConfigError(f"name = {self.name!r}: must be of letters, digits, '.', '_' and '-'")
        for key in ("title", "who", "paper", "where", "says"):
            if not getattr(self, key).strip():
                raise ConfigError(f"{key} = '': it must be said")
        if "" in self.not_at.values():
            raise ConfigError("not_at: the reason must be said")
        if ANY not in self.not_at:
            if not self.task:
                raise ConfigError("task is missing: only what not_at.any rules out has none")
            if not self.compare:
                raise ConfigError("compare is missing: at least one comparison must stand there")
        if not self.compare and not self.published:
            raise ConfigError("published is missing: a claim without comparisons must say what was published")

    def why_not(self, scale: str) -> str:
        """Why it is not tested at a scale; "" where it is."""
        written = {str(at): why for at, why in self.not_at.items()}
        return written.get(ANY) or written.get(scale, "")

    def arm_grid(self, arm: Arm) -> Grid:
        """The cells of one arm."""
        attention = {"backbone.attention": self.attention} if self.attention else {}
        return Grid(
            tasks=[self.task],
            encodings=[arm.encoding],
            lengths=Times(times=[arm.trained]) if arm.trained != 1 else [],
            seeds=self.seeds,
            set={**attention, **self.set},
            set_at=self.set_at,
            vary={key: [value] for key, value in arm.set.items()},
        )

    def grids(self) -> Iterator[Grid]:
        """The cells of each arm, each once."""
        known: list[Grid] = []
        for one in self.compare:
            for grid in map(self.arm_grid, one.arms()):
                if grid not in known:
                    known.append(grid)
                    yield grid

    def decides(self) -> dict[str, Any]:
        """All of it that decides cells and verdicts, and no words."""
        told = ("title", "who", "paper", "where", "says", "published")
        whole = {key: value for key, value in asdict(self).items() if key not in told}
        whole["compare"] = [{key: one[key] for key in one if key not in told} for one in whole["compare"]]
        return whole


@dataclass(frozen=True, kw_only=True)
class SuiteOfClaims(Suite):
    """A suite whose files of claims have been read.

    Attributes:
        ledger: its claims.
    """

    ledger: tuple[Claim, ...] = ()

    def tested(self, scale: str) -> list[Claim]:
        """The claims that are put to the test at a scale."""
        return [claim for claim in self.ledger if not claim.why_not(scale)]

    def placed(self, scale: str) -> list[tuple[str, Grid]]:
        claims = [(f"claim {claim.name}", grid) for claim in self.tested(scale) for grid in claim.grids()]
        return [*super().placed(scale), *claims]


def with_ledger(suite: Suite, ledger: Iterable[Claim]) -> SuiteOfClaims:
    """A suite with its claims."""
    own = {one.name: getattr(suite, one.name) for one in fields(Suite)}
    return SuiteOfClaims(**own, ledger=tuple(ledger))


def suite_of(claim: Claim, path: str) -> SuiteOfClaims:
    """A suite of one claim: its first comparison's baseline, five seeds where it names none."""
    baseline = claim.compare[0].baseline if claim.compare else "none"
    seeds = claim.seeds or list(range(5))
    told: dict[str, Any] = {"title": claim.title, "description": claim.says, "claims": [path]}
    return SuiteOfClaims(name=claim.name, baseline=baseline, seeds=seeds, ledger=(claim,), **told)


def read_claim(path: Path) -> Claim:
    """A claim as its TOML has it; paths in it start from its folder.

    Raises:
        ConfigError: it cannot be read, or a key, type or value in it is wrong.
    """
    claim = validate(Claim, read_toml(path), {}, str(path))
    folder = path.parent

    def at(one: Comparison) -> Comparison:
        return replace(one, encoding=relocated(one.encoding, folder), baseline=relocated(one.baseline, folder))

    return replace(claim, task=relocated_task(claim.task, folder), compare=[at(one) for one in claim.compare])


def read_claims(patterns: list[str], suite: Path) -> list[Claim]:
    """The claims that a suite names, in the order of its patterns and of their files' names.

    Args:
        suite: its file, in whose folder the patterns start.

    Raises:
        ConfigError: a pattern fits no file, a claim is wrong, or two have one name.
    """
    found: dict[str, tuple[Claim, Path]] = {}
    for pattern in patterns:
        start = Path(os.path.abspath(suite.parent / Path(pattern).expanduser()))
        files = sorted(start.parent.glob(start.name))
        if not files:
            raise ConfigError(f"{suite}: claims: {pattern}: no such file")
        for file in files:
            claim = read_claim(file)
            first = found.setdefault(claim.name, (claim, file))[1]
            if first != file:
                raise ConfigError(f"{file}: name = {claim.name!r}: {first} has it too")
    return [claim for claim, _ in found.values()]


def is_claim(raw: Mapping[str, Any]) -> bool:
    """Whether a TOML is a claim: no suite or task says who says so."""
    return "who" in raw and "grid" not in raw and "objective" not in raw
