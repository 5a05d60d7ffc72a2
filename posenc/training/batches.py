"""The rows of a step, on their way to the model: which process has which part, packed or padded, on the device.

All that can be done on the CPU is done there, ahead of the steps, by one thread: rows are chosen, padded or packed, and
their targets counted and indexed. On a GPU they wait in pinned memory, from which copies go without the host waiting
for them. The batches are the same, in the same order, with the thread or without.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from posenc.api.objective import Batch, Objective, cut
from posenc.backbone.transformer import Transformer
from posenc.config.task import RuntimeConfig, TrainingConfig

DEPTH = 4
"""How many steps' batches wait at most."""


class Part(NamedTuple):
    """Rows that are worked off at once.

    Attributes:
        rows: as `loss` reads them, on the CPU; pinned where the device is cuda.
        share: what its mean loss counts of the step's: each target counts alike, in whichever part it stands.
        first, last: of this process's parts of the step.
    """

    rows: Batch
    share: float
    first: bool
    last: bool


class Made(NamedTuple):
    """A step's batch: the tokens that the model sees in it, in all processes, and this process's parts."""

    seen: int
    parts: list[Part]


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
        self._ahead: Ahead | None = None

    def of(self, seed: int, step: int) -> Made:
        """The batch of a step (counted from 1): from the thread that makes them ahead, else made now."""
        return self._ahead.take(step) if self._ahead else self.make(seed, step)

    def make(self, seed: int, step: int) -> Made:
        """The batch of a step."""
        stage = self.training.stage(step, self.length)
        batch = self.objective.batch(seed, step, stage.batch)
        whole = self.objective.targets(batch)
        mine = cut(batch, stage.accumulate * self.size)[self.rank :: self.size]
        parts = [
            Part(
                self._ready(rows), self.objective.targets(rows) / max(1, whole) * self.size, index == 0,
                index == len(mine) - 1,
            )
            for index, rows in enumerate(mine)
        ]  # fmt: skip
        return Made(self.objective.seen(batch), parts)

    def _ready(self, rows: Batch) -> Batch:
        made = self.objective.indexed(self.objective.pack(rows) if self.training.packed else rows)
        return tuple(tensor.pin_memory() for tensor in made) if self.runtime.device == "cuda" else made

    @contextmanager
    def ahead(self, seed: int, steps: Sequence[int]) -> Iterator[None]:
        """Let one thread make the batches of these steps, in this order, while those before are trained on."""
        self._ahead = Ahead(lambda step: self.make(seed, step), steps, self.runtime.device)
        try:
            yield
        finally:
            self._ahead.close()
            self._ahead = None

    def first_of_stages(self, first: int) -> Iterator[int]:
        """The steps from `first` on at which batches of another shape begin."""
        ends = [end + 1 for end in self.training.ends() if first <= end < self.training.steps]
        yield from dict.fromkeys((first, *ends))


class Ahead:
    """A thread that makes batches before they are asked for, at most DEPTH of them.

    What goes wrong in it is raised where the step's batch is taken, and no step before.

    Args:
        make: the batch of a step. steps: in the order in which they will be taken. device: that copies go to.
    """

    def __init__(self, make: Callable[[int], Made], steps: Sequence[int], device: str) -> None:
        self._queue: queue.Queue[tuple[int, Made | BaseException]] = queue.Queue(maxsize=DEPTH)
        self._ended = threading.Event()
        # Which GPU is current, and so whose driver pins memory, is each thread's own.
        card = torch.cuda.current_device() if device == "cuda" else None
        self._thread = threading.Thread(target=self._fill, args=(make, steps, card), name="batches", daemon=True)
        self._thread.start()

    def _fill(self, make: Callable[[int], Made], steps: Sequence[int], card: int | None) -> None:
        if card is not None:
            torch.cuda.set_device(card)
        for step in steps:
            if self._ended.is_set():
                return
            made: Made | BaseException
            try:
                made = make(step)
            except BaseException as error:  # it is the loop's
                made = error
            self._queue.put((step, made))
            if isinstance(made, BaseException):
                return

    def take(self, step: int) -> Made:
        """The batch of the next step.

        Raises:
            ValueError: it is another step's turn.
        """
        turn, made = self._queue.get()
        if isinstance(made, BaseException):
            raise made
        if turn != step:
            raise ValueError(f"batch {step} was asked for, and it is the turn of {turn}")
        return made

    def close(self) -> None:
        """End the thread, whatever it has still to make."""
        self._ended.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)  # it may wait for room
            except queue.Empty:
                continue
        self._thread.join()


class Loss(nn.Module):
    """The objective as a module, since DDP averages the gradients of what passes through a module's forward."""

    def __init__(self, model: Transformer, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, *part: Tensor) -> Tensor:
        return self.objective.loss(self.model, part)
