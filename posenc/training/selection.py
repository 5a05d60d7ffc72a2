"""Which weights are tested: the best by validation, or the mean of the last. All of them lie on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from posenc.api.metric import Metric

Weights = dict[str, Tensor]


def weights_of(model: nn.Module) -> Weights:
    """A copy of a model's weights on the CPU, whatever its device: the steps that follow change nothing in it."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def mean_of(recent: list[Weights]) -> Weights:
    """The mean of weights, name by name; what is no floating point number is the last one's."""
    return {
        name: torch.stack([weights[name] for weights in recent]).mean(0) if last.is_floating_point() else last
        for name, last in recent[-1].items()
    }


@dataclass
class Best:
    """The weights chosen so far: their score on validation, their step, and the rows of that validation."""

    value: float
    step: int
    state: Weights
    rows: list[dict[str, Any]] = field(default_factory=list)


class ModelSelection:
    """What validation chooses.

    Args:
        choice: the metric that decides. average: how many of the last validations the mean is over; 0 for the best.
    """

    def __init__(self, choice: Metric, average: int) -> None:
        self.choice, self.average = choice, average
        self.best: Best | None = None
        self.recent: list[Weights] = []

    def value_of(self, rows: list[dict[str, Any]]) -> float:
        """The score that decides, of a validation's rows."""
        value: float = next(row["value"] for row in rows if row["metric"] == self.choice.name)
        return value

    def validated(self, model: nn.Module, step: int, rows: list[dict[str, Any]]) -> None:
        """Take note of a validation: weights are copied only where they may be tested."""
        value = self.value_of(rows)
        if self.average:
            self.recent = [*self.recent, weights_of(model)][-self.average :]
        elif self.best is None or self.choice.beats(value, self.best.value):
            self.best = Best(value, step, weights_of(model), rows)

    def state(self) -> dict[str, Any]:
        """All of it as plain values, for a checkpoint."""
        best = self.best and {key: getattr(self.best, key) for key in ("value", "step", "state", "rows")}
        return {"best": best, "recent": self.recent}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.best, self.recent = state["best"] and Best(**state["best"]), state["recent"]
