"""What the author of an objective writes: one class that declares all that tasks, plan, training and report ask of it.

It is found by its name: posenc's own in `posenc/objectives/`, one a file, another package's by an entry point of the
group `posenc.objectives` (`mine = "my_package.mine:Mine"`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from posenc.api.metric import Metric
from posenc.common.errors import NotPossibleError

Batch = tuple[Tensor, ...]
"""Tensors whose first dimension is the row, so that a batch can be cut into parts by rows."""

Model = Any
"""The backbone, a `posenc.backbone.transformer.Transformer`."""


class Scored(NamedTuple):
    """The scores of a split by metric (validation may lack some), and how many items they are over.

    `details` are facts that a reader of the score needs, such as sacreBLEU's signature. `each` holds arrays over the
    split's items (N,), in the order of the data, by the names that metrics have in `Metric.items`. `why` says of a
    metric that `values` lack why there is none. `positions` are sums over the targets by their place in the row, in
    bins (P,): `ends`, the last place of each bin, counted from 1; `nats`, the loss; `targets`, how many.
    """

    values: dict[str, float]
    items: int
    details: Mapping[str, Any] = {}
    each: Mapping[str, Any] = {}
    why: Mapping[str, str] = {}
    positions: Mapping[str, Any] = {}


class Objective(ABC):
    """A task's examples as batches, its loss, its scores.

    The class declares what it is; an object is the objective of one cell, made by `make` from its data.

    Attributes:
        name: as tasks write it.
        form: of the backbone: "decoder", "encoder" or "encoder-decoder". forms: all that it can have, where a task may
            choose by `backbone.form`; then `form` is what stands where a task does not.
        head: what stands on the backbone (BackboneConfig.head). heads: all that it can have, as `forms`.
        columns: the rows that it can learn from, by the names of their columns: `(("source", "target"),)`. None where
            it reads bytes alone, or nothing.
        tokenisers: which kinds (`data.tokeniser`) it can read. With "bytes" its data are a text, not rows.
        reads: whether it learns from a source of data at all; `data.source = "none"` where it does not.
        learns: whether anything is trained.
        packs: whether its rows have unequal lengths: they can then be packed (`pack`), and a pass cannot be compiled.
        varies: whether rows are of one length in a step and of others in other steps: `passes` then tells the shapes,
            and a pass cannot be compiled.
        staged: whether a training may go through several lengths (`training.stages`).
        slides: whether it can score windows that slide (`evaluation.stride`).
        sides: how many rows of up to the task's length an example is: 2 of a pair that is read in two passes.
        scores: the metrics among which a task chooses (`evaluation.metrics`); none where all are always scored.
        metrics: what is scored; the first is the main one.
        choice: the metric by which validation chooses the model: the main one, unless that is too dear to validate by.
        tests: (split, length) of what is scored once, at the end.
        data: the data's part in the record: name, digest, note, whether generated.
        sizes: a NumPy array (rows, examples, stacks) of the tokens of each training row's examples, by the stacks that
            read them; None where all rows have the training's length. epochs: which of these rows a step has
            (`posenc.objectives.epochs.Epochs`).
    """

    name: ClassVar[str]
    form: ClassVar[str]
    forms: ClassVar[tuple[str, ...]] = ()
    head: ClassVar[str] = "tokens"
    heads: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[tuple[str, ...], ...]] = ()
    tokenisers: ClassVar[tuple[str, ...]]
    reads: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    packs: ClassVar[bool] = False
    varies: ClassVar[bool] = False
    staged: ClassVar[bool] = False
    slides: ClassVar[bool] = False
    sides: ClassVar[int] = 1
    scores: ClassVar[tuple[Metric, ...]] = ()

    metrics: tuple[Metric, ...]
    tests: list[tuple[str, int]]
    data: dict[str, object]
    sizes: Any = None
    epochs: Any

    @classmethod
    def reads_of(cls, length: int) -> int:
        """How many hidden states of a row of a length its output layer reads, where that follows from the length."""
        return length

    @classmethod
    def vocabulary_of(cls, data: Mapping[str, Any]) -> int | None:
        """How many kinds of tokens there are, where a task's table `data` decides it alone; None where it does not."""
        return None

    @classmethod
    def longest_row(cls, data: Any, length: int) -> int:
        """Tokens of the longest row that the model reads in training at a task's length: for which it is built.

        Args:
            data: `posenc.config.data.DataConfig`.
        """
        return length

    @classmethod
    def require(cls, task: Any) -> None:
        """Hold a task (`posenc.config.task.Task`) to what this objective alone knows; the rest is held already.

        Raises:
            ConfigError: what is wrong, its key written out.
        """
        return

    @classmethod
    def require_data(cls, data: Any, task: Any, length: int) -> None:
        """Hold data, as the source gives them, to what a task needs at a length: asked when a run is planned.

        Raises:
            DataError: there are too few.
        """
        return

    @classmethod
    @abstractmethod
    def make(cls, settings: Any, data: Any, tokens: Any) -> Objective:
        """The objective of a cell.

        Args:
            settings: `posenc.config.settings.Settings`.
            data: `posenc.data.corpus.Corpus`, or `posenc.data.text.ByteText` where the tokeniser is "bytes"; None where
                nothing is read.
            tokens: `posenc.data.tokens.Tokeniser`; None where there are no rows.
        """

    @property
    def choice(self) -> Metric:
        return self.metrics[0]

    @abstractmethod
    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """The training batch of a step (counted from 1): it depends on the seed and the step alone.

        A thread of its own calls this ahead of the steps, and `pack` and `indexed` behind it: what is random must come
        from a generator of its own, since the global ones are the training's.
        """

    def passes(self, seed: int, steps: int) -> tuple[Any, Any]:
        """Arrays (steps,) of the tokens of a row, and of how many of its hidden states the output layer reads.

        In each of the first steps of training; of an objective that `varies`.
        """
        raise NotImplementedError

    @abstractmethod
    def targets(self, batch: Batch) -> int:
        """How many targets the loss of these rows is a mean over."""

    @abstractmethod
    def seen(self, batch: Batch) -> int:
        """How many tokens the model reads in these rows, padding not counted."""

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> Tensor:
        """The mean loss over the targets of these rows, in nats where it is a likelihood.

        Of rows that `pack` gave it is the same but for rounding, and but for where dropout falls. On a GPU nothing may
        be read back in it, such as how many elements of a mask are True: what depends on values, `indexed` makes.
        """

    def pack(self, batch: Batch) -> Batch:
        """These rows, and behind them the same examples packed for the model to read; on the CPU.

        What `pack` gives is for `loss` alone.

        Raises:
            NotPossibleError: an objective whose rows all have one length.
        """
        raise NotPossibleError("not possible: packed rows, where all rows have one length")

    def indexed(self, batch: Batch) -> Batch:
        """These rows, packed or not, and behind them what `loss` would else have to ask the device for; on the CPU.

        Such as where a mask is True: on a GPU the host would wait for all work before it learnt how many that are. What
        this gives is for `loss` alone, and `loss` of rows without it is the same.
        """
        return batch

    @abstractmethod
    def score(self, model: Model, split: str, length: int) -> Scored:
        """The scores of a split, with rows of at most `length` tokens."""

    def baselines(self) -> dict[str, float]:
        """What trivial models score on test in the main metric, by their names."""
        return {}


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch in parts of equal numbers of rows."""
    return list(zip(*(tensor.chunk(parts) for tensor in batch), strict=True))
