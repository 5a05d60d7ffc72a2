"""The rows of a step, on their way to the model: which process has which part, packed or padded, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from posenc.api.objective import Batch, Objective, cut
from posenc.backbone.transformer import Transformer
from posenc.config.task import RuntimeConfig, TrainingConfig


class Part(NamedTuple):
    """Rows that are worked off at once.

    Attributes:
        share: what its mean loss counts of the step's: each target counts alike, in whichever part it stands.
        last: of this process's parts of the step.
    """

    rows: Batch
    share: float
    last: bool


class Batches:
    """The batches of a cell: they depend on the seed and the step alone.

    Args:
        rank, size: this process's place in the group that trains the cell together.
    """

    def __init__(
        self, objective: Objective, training: TrainingConfig, runtime: RuntimeConfig, length: int, rank: int, size: int
    ) -> None:
        self.objective, self.training, self.runtime = objective, training, runtime
        self.length, self.rank, self.size = length, rank, size

    def of(self, seed: int, step: int) -> tuple[int, list[Part]]:
        """The tokens that the model sees in a step (counted from 1), in all processes, and this process's parts."""
        stage = self.training.stage(step, self.length)
        batch = self.objective.batch(seed, step, stage.batch)
        whole = self.objective.targets(batch)
        mine = cut(batch, stage.accumulate * self.size)[self.rank :: self.size]
        parts = [
            Part(rows, self.objective.targets(rows) / max(1, whole) * self.size, index == len(mine) - 1)
            for index, rows in enumerate(mine)
        ]
        return self.objective.seen(batch), parts

    def on_device(self, rows: Batch) -> Batch:
        """Rows as `loss` reads them."""
        made = self.objective.pack(rows) if self.training.packed else rows
        return tuple(tensor.to(self.runtime.device) for tensor in made)

    def first_of_stages(self, first: int) -> Iterator[int]:
        """The steps from `first` on at which batches of another shape begin."""
        ends = [end + 1 for end in self.training.ends() if first <= end < self.training.steps]
        yield from dict.fromkeys((first, *ends))


class Loss(nn.Module):
    """The objective as a module, since DDP averages the gradients of what passes through a module's forward."""

    def __init__(self, model: Transformer, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, *part: Tensor) -> Tensor:
        return self.objective.loss(self.model, part)


def kept_gradients(model: torch.nn.Module) -> None:
    """Move gradients out of the memory in which the next part's CUDA graphs write theirs."""
    for parameter in model.parameters():
        parameter.grad = None if parameter.grad is None else parameter.grad.clone()
