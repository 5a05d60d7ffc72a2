"""What is learnt and how it is scored: one class an objective, all used by the training loop in the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from posenc.backbone.transformer import Transformer
from posenc.errors import NotPossibleError

Batch = tuple[Tensor, ...]
"""Tensors whose first dimension is the row, so that a batch can be cut into parts by rows."""


@dataclass(frozen=True)
class Metric:
    """A score: `better` is "lower" or "higher"."""

    name: str
    title: str
    better: str

    def beats(self, value: float, other: float) -> bool:
        return value < other if self.better == "lower" else value > other


class Scored(NamedTuple):
    """The scores of a split by metric (validation may lack some), and how many items they are over.

    `details` are facts that a reader of the score needs, such as sacreBLEU's signature. `each` holds arrays over the
    split's items, in the order of the data, by which the sampling error of the items is told: for a metric that is a
    mean, "weight" (N,), how many targets an item has, and under the metric's name the sum over them; else what the
    metric is made from. `why` says of a metric that `values` lack why there is none.
    """

    values: dict[str, float]
    items: int
    details: Mapping[str, Any] = {}
    each: Mapping[str, NDArray[Any]] = {}
    why: Mapping[str, str] = {}


class Objective(ABC):
    """A task's examples as batches, its loss, its scores.

    Attributes:
        metrics: what is scored; the first is the main one.
        choice: the metric by which validation chooses the model: the main one, unless that is too dear to validate by.
        tests: (split, length) of what is scored once, at the end.
        data: the data's part in the record.
    """

    metrics: tuple[Metric, ...]
    tests: list[tuple[str, int]]
    data: dict[str, object]

    @property
    def choice(self) -> Metric:
        return self.metrics[0]

    @abstractmethod
    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """The training batch of a step (counted from 1): it depends on the seed and the step alone."""

    @abstractmethod
    def targets(self, batch: Batch) -> int:
        """How many targets the loss of these rows is a mean over."""

    @abstractmethod
    def seen(self, batch: Batch) -> int:
        """How many tokens the model reads in these rows, padding not counted."""

    @abstractmethod
    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """The mean loss over the targets of these rows, in nats where it is a likelihood.

        Of rows that `pack` gave it is the same but for rounding, and but for where dropout falls.
        """

    def pack(self, batch: Batch) -> Batch:
        """These rows, and behind them the same examples packed for the model to read; on the CPU.

        What `pack` gives is for `loss` alone.

        Raises:
            NotPossibleError: an objective whose rows all have one length.
        """
        raise NotPossibleError("not possible: packed rows, where all rows have one length")

    @abstractmethod
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        """The scores of a split, with rows of at most `length` tokens."""

    def baselines(self) -> dict[str, float]:
        """What trivial models score on test in the main metric, by their names."""
        return {}


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch in parts of equal numbers of rows."""
    return list(zip(*(tensor.chunk(parts) for tensor in batch), strict=True))
