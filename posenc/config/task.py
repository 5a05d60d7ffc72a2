"""Tasks as written in TOML, checked key by key.

A task has base tables (`data`, `backbone`, `training`, `evaluation`) and, under `scales.<name>`, what each scale
changes in them. `--set key=value` and a suite's `set` and `vary` change single keys after that. An error names the
value, what is allowed, and the file and key where it was written.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from posenc.backbone.config import BackboneConfig
from posenc.common.errors import ConfigError
from posenc.common.toml import STRICT, read_toml, validate
from posenc.config.card import Card
from posenc.config.data import DataConfig
from posenc.config.objectives import OBJECTIVES, objective
from posenc.config.places import available, relocated_task, task_file

if TYPE_CHECKING:
    from posenc.api.objective import Objective

__all__ = ["CHANGED", "SCALES", "SCRATCH", "DataConfig", "EvaluationConfig", "RuntimeConfig", "Stage", "Task",
    "TrainingConfig", "available", "plain", "task_at"]  # fmt: skip

SCALES = ("smoke", "small", "paper")
SCRATCH = "scratch"
CLOSE = Fraction(1, 10**6)
"""Tokens by which a multiple of a length may miss a whole number: 256 of 196 has no decimal fraction that is exact."""
CHANGED = ("length", "start", "data", "backbone", "training", "evaluation", "runtime")
"""What `--set` and a suite may change of a task; the rest says what it is."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a training that goes through several lengths and batch sizes; scored on validation at its end.

    Attributes:
        length: of its rows, in tokens. batch: sequences a step. accumulate: parts that a batch is worked off in.
        steps: optimiser steps.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    length: int
    batch: int
    steps: int
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("length", "batch", "steps", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.stages: {name} = {getattr(self, name)}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained; the same for every encoding.

    AdamW. Weight decay falls on matrices of the backbone alone: biases, norms, embeddings and whatever an
    encoding owns have none, so that it regularises the same parameters whatever the encoding.

    Attributes:
        steps: optimiser steps; 0 where nothing is learnt. batch: sequences a step.
        learning_rate: the largest, which the schedule reaches. warmup: steps that it rises over, from 0.
        betas, epsilon, weight_decay: AdamW's.
        accumulate: parts that a batch is worked off in.
        packed: rows of unequal length stand one after another in rows of at most the task's length, in place of
            padding, where the objective has such rows. The same loss and gradients but for rounding; with dropout they
            differ, since its masks fall on other places. Scoring pads in any case.
        stages: lengths and batches that the steps go through one after another, in place of one length and `batch`.
        schedule: after `warmup` steps that rise linearly from 0, the rate stays, falls along a cosine to a tenth
            or linearly to zero at the last step, or falls as 1/sqrt(step).
        clip: largest norm of the gradient; 0 leaves it alone.
        label_smoothing: of the targets (Szegedy et al. 2016), where the objective is translation.
        shift: of images, by up to how many of their own pixels each is moved along rows and columns, at random; what
            comes in is 0. flip: whether every other one, at random, is mirrored, left to right. Of training alone.
        average: test the mean of the weights at the last so many validations, in place of the best; 0 for the best.
        validate_every: steps between scores on validation; the best of them is the model that is tested.
        log_every: steps between rows of the training curve.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    steps: int
    batch: int
    accumulate: int = 1
    packed: bool = False
    stages: list[Stage] = field(default_factory=list)
    learning_rate: float
    schedule: Literal["constant", "cosine", "linear", "inverse_square_root"] = "constant"
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 0.0
    label_smoothing: float = 0.0
    shift: int = 0
    flip: bool = False
    average: int = 0
    validate_every: int
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} = {getattr(self, name)}: must be at least 1")
        if self.stages and (together := sum(stage.steps for stage in self.stages)) != self.steps:
            raise ConfigError(f"training.steps = {self.steps}: the stages have {together}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"training.label_smoothing = {self.label_smoothing}: must be at least 0 and less than 1")
        for name in ("warmup", "weight_decay", "clip", "average", "shift"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.{name} = {getattr(self, name)}: must be at least 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"training.betas = {list(self.betas)}: must be at least 0 and less than 1")
        if self.epsilon <= 0:
            raise ConfigError(f"training.epsilon = {self.epsilon}: must be more than 0")
        if self.learning_rate <= 0:
            raise ConfigError(f"training.learning_rate = {self.learning_rate}: must be more than 0")

    def stage(self, step: int, length: int) -> Stage:
        """The stage that a step (counted from 1) falls into; without stages the whole training, at `length`."""
        for stage in self.stages:
            if step <= stage.steps:
                return stage
            step -= stage.steps
        return Stage(length=length, batch=self.batch, steps=max(1, self.steps), accumulate=self.accumulate)

    def ends(self) -> list[int]:
        """The last step of each stage."""
        return list(accumulate(stage.steps for stage in self.stages))

    def ended(self, step: int) -> int | None:
        """Which stage, counted from 1, ends with this step, if one does."""
        ends = self.ends()
        return ends.index(step) + 1 if step in ends else None


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a model is scored.

    Attributes:
        length_factors: the test split is scored at these multiples of the training length, 1 among them; 1.5 is one,
            too, where it gives a whole number of tokens.
        tokens: how many tokens of each split are scored, the same ones at every length; 0 means all.
        stride: of windows that slide, in tokens, where the objective has them: the test split is then also scored with
            at least length - stride tokens before each, and so with no more than the training length; 0 for none.
        batch_tokens: tokens that are scored at once.
        rows: that a test set has, where the objective is sequence; validation has as many.
        longer_than: rows of more tokens than this are also scored apart, where the objective is matching; 0 for none.
        metrics: which of the objective's metrics are scored, the main one first, where it leaves a choice.
        beam: sentences kept at each step of a translation.
        length_penalty: a in score / length^a, by which finished sentences compete.
        min_tokens: the fewest tokens of a translation; 1, as fairseq has it, so that none is empty.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    length_factors: list[float] = field(default_factory=lambda: [1])
    tokens: int = 0
    stride: int = 0
    batch_tokens: int = 16384
    rows: int = 500
    longer_than: int = 0
    metrics: list[str] = field(default_factory=list)
    beam: int = 4
    length_penalty: float = 0.6
    min_tokens: int = 1

    def __post_init__(self) -> None:
        if 1 not in self.length_factors or not all(0 < factor < math.inf for factor in self.length_factors):
            raise ConfigError(
                f"evaluation.length_factors = {self.length_factors}: must be more than 0 each, 1 among them"
            )
        # A whole number is written as one, in whatever way it was given: it is part of a cell's identity.
        factors = [int(factor) if factor == int(factor) else factor for factor in self.length_factors]
        object.__setattr__(self, "length_factors", factors)
        if self.min_tokens < 0:
            raise ConfigError(f"evaluation.min_tokens = {self.min_tokens}: must be at least 0")
        if self.stride < 0:
            raise ConfigError(f"evaluation.stride = {self.stride}: must be at least 0")
        if min(self.tokens, self.longer_than) < 0 or min(self.batch_tokens, self.beam, self.rows) < 1:
            raise ConfigError(
                "evaluation.tokens and longer_than must be at least 0, batch_tokens, beam and rows at least 1"
            )

    def lengths(self, length: int) -> list[int]:
        """The lengths at which the test split of a model trained at `length` is scored, in tokens.

        Raises:
            ConfigError: a multiple is no whole number of tokens.
        """
        found = [Fraction(str(factor)) * length for factor in self.length_factors]
        for factor, longer in zip(self.length_factors, found, strict=True):
            if abs(longer - round(longer)) > CLOSE:
                raise ConfigError(
                    f"evaluation.length_factors: {factor} times the length {length:,} is {float(longer):g},"
                    " no whole number of tokens"
                )
        return [round(longer) for longer in found]


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and in what precision a cell runs: part of its identity, since it changes its numbers.

    Attributes:
        device: that the cell is trained and scored on. precision: float32, or bfloat16 by autocast.
        backend: of softmax attention; auto is a fixed rule.
        threads: of each process on the CPU.
        processes: how many train one cell together, each on a GPU of its own where the device is cuda.
        compile: "inductor": training's passes through the stacks by torch.compile. "cudagraphs": a whole step recorded
            as a CUDA graph, for models so small that starting kernels takes longer than running them. The numbers are
            those of "none" but for rounding, dropout's masks the same. Scores are of the plain form.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    processes: int = 1
    backend: Literal["auto", "reference", "sdpa", "blocks", "flex", "xformers"] = "auto"
    compile: Literal["none", "inductor", "cudagraphs"] = "none"

    def __post_init__(self) -> None:
        if self.compile == "cudagraphs" and self.device != "cuda":
            raise ConfigError(f"runtime.compile = 'cudagraphs': runtime.device must be 'cuda', not {self.device!r}")
        if self.compile == "cudagraphs" and self.processes > 1:
            raise ConfigError(
                f"runtime.compile = 'cudagraphs': a graph is one process's, and runtime.processes = {self.processes}"
            )
        for name in ("threads", "processes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"runtime.{name} = {getattr(self, name)}: must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task at one scale, every key decided.

    Attributes:
        name: the file's name, after its folder where it has one (glue/mrpc). title: as people read it.
        version: raised when a task's numbers change in meaning; part of each cell's id.
        objective: what is learnt and how it is scored. length: of the training rows, in tokens.
        start: "scratch", or the task whose trained model, of the same encoding and seed, training starts from.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    name: str
    title: str
    version: int = 1
    objective: str
    length: int
    start: str = SCRATCH
    card: Card = field(default_factory=Card)
    data: DataConfig
    backbone: BackboneConfig
    training: TrainingConfig
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", self.name):
            raise ConfigError(f"name = {self.name!r}: must be of letters, digits, '.', '_', '-' and '/'")
        if self.length < 1:
            raise ConfigError(f"length = {self.length}: must be at least 1")
        if self.objective not in OBJECTIVES.entries():
            names = " or ".join(map(repr, OBJECTIVES.entries()))
            raise ConfigError(f"objective = {self.objective!r}: must be {names}")
        self._require_objective(objective(self.objective))
        for stage in self.training.stages or [self.training.stage(1, self.length)]:
            parts = stage.accumulate * self.runtime.processes
            if stage.batch % parts:
                raise ConfigError(
                    f"training.batch = {stage.batch} is no multiple of"
                    f" training.accumulate x runtime.processes = {parts}"
                )
        if self.data.tokeniser == "bytes" and self.backbone.vocabulary != 256:
            raise ConfigError(f"backbone.vocabulary = {self.backbone.vocabulary}: bytes want 256")

    def _require_objective(self, kind: type[Objective]) -> None:
        """Hold the task to what its objective declares."""
        named = f"objective {self.objective!r}"
        forms = kind.forms or (kind.form,)
        if self.backbone.form not in forms:  # a decoder's targets would be read both ways, for one
            raise ConfigError(f"backbone.form = {self.backbone.form!r}: {named} wants {' or '.join(map(repr, forms))}")
        heads = kind.heads or (kind.head,)
        if self.backbone.head not in heads:
            raise ConfigError(f"backbone.head = {self.backbone.head!r}: {named} wants {' or '.join(map(repr, heads))}")
        if self.data.tokeniser not in kind.tokenisers:
            *others, last = kind.tokenisers
            wanted = f"{', '.join(others)} or {last}" if others else last
            raise ConfigError(f"data.tokeniser = {self.data.tokeniser!r}: {named} wants {wanted}")
        if self.runtime.compile != "none" and (kind.packs or kind.varies or not kind.learns):
            made = "be recorded" if self.runtime.compile == "cudagraphs" else "compile"
            why = f"batches of other shapes would {made} again" if kind.learns else "nothing is learnt"
            raise ConfigError(f"runtime.compile = {self.runtime.compile!r}: not built for {named}, where {why}")
        if self.training.packed and not kind.packs:
            raise ConfigError(f"training.packed = true: rows of {named} all have one length")
        if self.training.stages and not kind.staged:
            raise ConfigError(f"training.stages: {named} has none")
        if (self.training.steps > 0) != kind.learns:
            wanted = "at least 1" if kind.learns else "0"
            raise ConfigError(f"training.steps = {self.training.steps}: {named} wants {wanted}")
        if self.evaluation.stride and not kind.slides:
            raise ConfigError(f"evaluation.stride = {self.evaluation.stride}: {named} has no windows that slide")
        pixels = kind.tokenisers == ("patches",)
        if bool(self.backbone.patch) != pixels:
            wanted = "wants the sides of a patch" if pixels else "reads tokens"
            raise ConfigError(f"backbone.patch = {list(self.backbone.patch)}: {named} {wanted}")
        if (self.training.shift or self.training.flip) and not pixels:
            given = f"training.shift = {self.training.shift}, flip = {str(self.training.flip).lower()}"
            raise ConfigError(f"{given}: {named} has no pixels to move")
        if self.evaluation.metrics and not kind.scores:
            raise ConfigError(f"evaluation.metrics = {self.evaluation.metrics}: {named} leaves no choice")
        kind.require(self)


def task_at(name: str, scale: str, changes: Mapping[str, tuple[Any, str]], where: str = "") -> Task:
    """A task at a scale, with single keys changed. One whose TOML has no scales is the same at each.

    Args:
        name: of a task, or the path of its TOML.
        changes: dotted key to (value, where it was written).
        where: where the task was named, for errors.

    Raises:
        UnknownNameError: no such task. ConfigError: a wrong key, type or value.
    """
    file = task_file(name, where)
    source = str(file.path)
    raw = read_toml(file.path)
    if not file.path_given and raw.get("name") != name:
        raise ConfigError(f"{source}: name = {raw.get('name')!r}: {file.package} brings it as {name!r}")
    scales = raw.pop("scales", {scale: {}})
    if not isinstance(scales, dict) or not all(isinstance(one, dict) for one in scales.values()):
        raise ConfigError(f"{source}: scales must be a table of tables, one for each of {', '.join(SCALES)}")
    if scale not in scales:
        raise ConfigError(f"{source}: no scale {scale!r}; written there: {', '.join(scales) or 'none'}")
    origins: dict[tuple[str, ...], str] = {}
    _merge(raw, scales[scale], (), origins, f"{source} (scales.{scale})")
    if isinstance(start := raw.get("start"), str):
        raw["start"] = relocated_task(start, file.path.parent)
    for key, (value, place) in changes.items():
        if key.split(".")[0] not in CHANGED:
            raise ConfigError(f"{place}: {key} cannot be set: allowed are {', '.join(CHANGED)} and their keys")
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(raw, nested, (), origins, place)
    _follow_objective(raw)
    return validate(Task, raw, origins, source)


def _follow_objective(raw: dict[str, Any]) -> None:
    """What a task leaves to its objective: form and head of the backbone, and tokens where there is no choice."""
    name, backbone, data = raw.get("objective"), raw.get("backbone"), raw.get("data")
    if not (isinstance(name, str) and name in OBJECTIVES.entries()):
        return
    kind = objective(name)
    if isinstance(data, dict) and len(kind.tokenisers) == 1:
        data.setdefault("tokeniser", kind.tokenisers[0])
    if isinstance(backbone, dict):
        backbone.setdefault("form", kind.form)
        backbone.setdefault("head", kind.head)
        if isinstance(data, dict) and (size := kind.vocabulary_of(data)) is not None:
            backbone.setdefault("vocabulary", size)


def _merge(
    base: dict[str, Any],
    over: Mapping[str, Any],
    path: tuple[str, ...],
    origins: dict[tuple[str, ...], str],
    place: str,
) -> None:
    for key, value in over.items():
        here = (*path, key)
        if isinstance(value, Mapping) and isinstance(base.get(key, {}), dict):
            if key not in base:  # each key that is made here has its place, so that an error finds it
                base[key], origins[here] = {}, place
            _merge(base[key], value, here, origins, place)
        else:
            base[key] = value
            origins.pop(here, None)
            origins[here] = place


def plain(value: Any) -> dict[str, Any]:
    """A dataclass, such as a configuration as plain dictionaries and lists, as it stands in a record."""
    result: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return result
