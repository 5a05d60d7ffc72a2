"""Tasks as written in TOML, checked key by key.

A task has base tables (`data`, `backbone`, `training`, `evaluation`) and, under `scales.<name>`, what each scale
changes in them. `--set key=value` and a suite's `set` and `vary` change single keys after that. An error names the
value, what is allowed, and the file and key where it was written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

from posenc.backbone.config import BackboneConfig
from posenc.card import Card
from posenc.checked import STRICT, read_toml, validate
from posenc.errors import ConfigError, UnknownNameError
from posenc.paths import content

SCALES = ("smoke", "small", "paper")
SCRATCH = "scratch"
OBJECTIVES = {
    "causal_lm": ("decoder", "tokens"),
    "masked_lm": ("encoder", "masked"),
    "translation": ("encoder-decoder", "tokens"),
    "classification": ("encoder", "class"),
    "matching": ("encoder", "mean"),
    "theory": ("encoder", "tokens"),
}
"""For each objective the form of its backbone and the head on it."""
PACKED = ("classification", "matching", "translation")
"""Those with rows of unequal length, which can be packed in training."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where examples come from.

    Attributes:
        source: a name that posenc.data.sources knows; "none" where nothing is learnt.
        splits: of a text that has none of its own: parts of the whole.
        tokeniser: bytes, or one of posenc.data.tokens, trained on the task's own text to `backbone.vocabulary` tokens.
        vocabulary_of: the source on whose text it is trained, where that is not the task's own.
        held_out: of the training rows, the share on which choices are made where the test's labels are hidden (GLUE).
        released: the hub's repository of a released tokeniser, used in place of one trained here. revision: of it.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    source: str
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    tokeniser: Literal["bytes", "bpe", "wordpiece", "characters", "words"] = "bytes"
    vocabulary_of: str = ""
    held_out: float = 0.1
    released: str = ""
    revision: str = ""

    def __post_init__(self) -> None:
        if min(self.splits) <= 0 or abs(sum(self.splits) - 1) > 1e-9:
            raise ConfigError(f"data.splits = {list(self.splits)}: three positive parts that sum to 1 are wanted")


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
                raise ConfigError(f"training.stages: {name} = {getattr(self, name)}: at least 1 is wanted")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained; the same for every encoding.

    AdamW. Weight decay falls on matrices of the backbone alone: biases, norms, embeddings and whatever an
    encoding owns have none, so that it regularises the same parameters whatever the encoding.

    Attributes:
        steps: optimiser steps; 0 where nothing is learnt. batch: sequences a step.
        accumulate: parts that a batch is worked off in.
        packed: rows of unequal length stand one after another in rows of at most the task's length, in place of
            padding, where the objective is one of PACKED and attention is softmax. The same loss and gradients but for
            rounding; with dropout they differ, since its masks fall on other places. Scoring pads in any case.
        stages: lengths and batches that the steps go through one after another, in place of one length and `batch`.
        schedule: after `warmup` steps that rise linearly from 0, the rate stays, falls along a cosine to a tenth
            or linearly to zero at the last step, or falls as 1/sqrt(step).
        clip: largest norm of the gradient; 0 leaves it alone.
        label_smoothing: of the targets (Szegedy et al. 2016), where the objective is translation.
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
    average: int = 0
    validate_every: int
    log_every: int = 10

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} = {getattr(self, name)}: at least 1 is wanted")
        if self.stages and (together := sum(stage.steps for stage in self.stages)) != self.steps:
            raise ConfigError(f"training.steps = {self.steps}: the stages have {together}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(
                f"training.label_smoothing = {self.label_smoothing}: at least 0 and less than 1 is wanted"
            )
        for name in ("warmup", "weight_decay", "clip", "average"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.{name} = {getattr(self, name)}: at least 0 is wanted")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"training.betas = {list(self.betas)}: at least 0 and less than 1 is wanted")
        if self.epsilon <= 0:
            raise ConfigError(f"training.epsilon = {self.epsilon}: more than 0 is wanted")
        if self.learning_rate <= 0:
            raise ConfigError(f"training.learning_rate = {self.learning_rate}: more than 0 is wanted")

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
        length_factors: the test split is scored at these multiples of the training length.
        tokens: how many tokens of each split are scored, the same ones at every length; 0 means all.
        batch_tokens: tokens that are scored at once.
        longer_than: rows of more tokens than this are also scored apart, where the objective is matching; 0 for none.
        metrics: of a classification, the main one first.
        beam: sentences kept at each step of a translation.
        length_penalty: a in score / length^a, by which finished sentences compete.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    length_factors: list[int]
    tokens: int = 0
    batch_tokens: int = 16384
    longer_than: int = 0
    metrics: list[Literal["accuracy", "f1", "spearman", "pearson"]] = field(default_factory=list)
    beam: int = 4
    length_penalty: float = 0.6

    def __post_init__(self) -> None:
        if not self.length_factors or min(self.length_factors) < 1 or 1 not in self.length_factors:
            raise ConfigError(
                f"evaluation.length_factors = {self.length_factors}: whole numbers, 1 among them, are wanted"
            )
        if min(self.tokens, self.longer_than) < 0 or self.batch_tokens < 1 or self.beam < 1:
            raise ConfigError(
                "evaluation.tokens and longer_than at least 0, batch_tokens and beam at least 1 are wanted"
            )


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and in what precision a cell runs: part of its identity, since it changes its numbers.

    Attributes:
        threads: of each process on the CPU.
        processes: how many train one cell together, each on a GPU of its own where the device is cuda.
        compile: training's passes through the stacks by torch.compile: "inductor", or "cudagraphs", which also records
            each pass as a CUDA graph (for models so small that starting kernels takes longer than running them). The
            numbers are those of "none" but for rounding, dropout's masks the same. Scores are of the plain form.
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
            raise ConfigError(f"runtime.compile = 'cudagraphs': runtime.device = 'cuda' is wanted, not {self.device!r}")
        for name in ("threads", "processes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"runtime.{name} = {getattr(self, name)}: at least 1 is wanted")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task at one scale, every key decided.

    Attributes:
        start: "scratch", or the task whose trained model, of the same encoding and seed, training starts from.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    name: str
    title: str
    version: int
    objective: str
    length: int
    start: str = SCRATCH
    card: Card
    data: DataConfig
    backbone: BackboneConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length = {self.length}: at least 1 is wanted")
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective = {self.objective!r}: {' or '.join(map(repr, OBJECTIVES))} is wanted")
        form, head = OBJECTIVES[self.objective]
        if self.backbone.form != form:  # a decoder's targets would be read both ways, for one
            raise ConfigError(f"backbone.form = {self.backbone.form!r}: objective {self.objective!r} wants {form!r}")
        if self.backbone.head != head:
            raise ConfigError(f"backbone.head = {self.backbone.head!r}: objective {self.objective!r} wants {head!r}")
        of_bytes = self.objective in ("causal_lm", "theory")
        if (self.data.tokeniser == "bytes") != of_bytes:
            raise ConfigError(
                f"data.tokeniser = {self.data.tokeniser!r}: objective {self.objective!r} wants "
                + ("bytes" if of_bytes else "bpe, wordpiece, characters or words")
            )
        if self.runtime.compile != "none" and (self.objective in PACKED or self.objective == "theory"):
            why = "nothing is learnt" if self.objective == "theory" else "batches of other shapes would compile again"
            raise ConfigError(
                f"runtime.compile = {self.runtime.compile!r}: not built for objective {self.objective!r}, where {why}"
            )
        if self.training.packed and self.objective not in PACKED:
            raise ConfigError(
                f"training.packed = true: rows of objective {self.objective!r} all have one length;"
                f" it is for {' or '.join(map(repr, PACKED))}"
            )
        if self.training.stages and self.objective != "masked_lm":
            raise ConfigError(f"training.stages: objective {self.objective!r} has none, only 'masked_lm'")
        if (self.training.steps > 0) == (self.objective == "theory"):
            wanted = "0" if self.objective == "theory" else "at least 1"
            raise ConfigError(f"training.steps = {self.training.steps}: objective {self.objective!r} wants {wanted}")
        for stage in self.training.stages or [self.training.stage(1, self.length)]:
            parts = stage.accumulate * self.runtime.processes
            if stage.batch % parts:
                raise ConfigError(
                    f"training.batch = {stage.batch} is no multiple of"
                    f" training.accumulate x runtime.processes = {parts}"
                )
        if self.data.tokeniser == "bytes" and self.backbone.vocabulary != 256:
            raise ConfigError(f"backbone.vocabulary = {self.backbone.vocabulary}: bytes want 256")


def available(kind: str) -> dict[str, Path]:
    """The tasks or suites that come with posenc, by name. `glue/mrpc` stands in a folder of its own."""
    folder = content(kind)
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def task_at(name: str, scale: str, changes: Mapping[str, tuple[Any, str]], where: str = "") -> Task:
    """A task at a scale, with single keys changed.

    Args:
        changes: dotted key to (value, where it was written).
        where: where the task was named, for errors.

    Raises:
        UnknownNameError: no such task. ConfigError: a wrong key, type or value.
    """
    known = available("tasks")
    if name not in known:
        raise UnknownNameError("task", name, known, where)
    source = str(known[name])
    raw = read_toml(known[name])
    scales = raw.pop("scales", {})
    if not isinstance(scales, dict) or scale not in scales:
        raise ConfigError(f"{source}: no scale {scale!r}; written there: {', '.join(scales) or 'none'}")
    origins: dict[tuple[str, ...], str] = {}
    _merge(raw, scales[scale], (), origins, f"{source} (scales.{scale})")
    for key, (value, place) in changes.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(raw, nested, (), origins, place)
    return validate(Task, raw, origins, source)


def _merge(
    base: dict[str, Any],
    over: Mapping[str, Any],
    path: tuple[str, ...],
    origins: dict[tuple[str, ...], str],
    place: str,
) -> None:
    for key, value in over.items():
        here = (*path, key)
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value, here, origins, place)
        else:
            base[key] = value
            origins[here] = place


def plain(value: Any) -> dict[str, Any]:
    """A dataclass, such as a configuration as plain dictionaries and lists, as it stands in a record."""
    result: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return result
