"""One optimiser step: forward and backward of each part, the clipped gradient, the optimiser. It reads nothing back.

The same function runs as it stands, or recorded as a CUDA graph (posenc.training.graphs) that has fixed buffers for the
part's rows and for the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from posenc.api.objective import Batch
from posenc.backbone.transformer import Transformer
from posenc.backbone.uncompiled import uncompiled
from posenc.config.task import RuntimeConfig, TrainingConfig
from posenc.training.batches import Part
from posenc.training.graphs import Graphs, Record
from posenc.training.group import Group
from posenc.training.optimiser import make_optimiser
from posenc.training.runtime import precision


class Step:
    """The step of a cell.

    Args:
        model: on its device. loss: of rows on the device, as the group wraps it.
        record: makes a graph of a function; None where steps run as they stand.
    """

    def __init__(
        self, model: Transformer, loss: nn.Module, training: TrainingConfig, runtime: RuntimeConfig, group: Group,
        record: Record | None = None,
    ) -> None:  # fmt: skip
        self.model, self.loss, self.training, self.runtime, self.group = model, loss, training, runtime, group
        self.device = next(model.parameters()).device
        self._rate = torch.tensor(training.learning_rate, device=self.device) if record else None
        with self._optimising():
            self.optimiser = make_optimiser(model, training, self._rate)
        self._total = torch.zeros((), dtype=torch.float64, device=self.device)
        self._graphs = Graphs(self.part, self.undone, model, self.device, record) if record else None

    def __call__(self, parts: Sequence[Part], rate: float, seed: Callable[[int], int]) -> Tensor:
        """Make a step at a learning rate. Returns the mean loss of these parts' targets () in float64, on the device.

        Args:
            seed: of what is random in the part of an index, dropout that is.
        """
        self._set_rate(rate)
        for index, part in enumerate(parts):
            if self._graphs:
                run = self._graphs.of(part)  # recorded, if it must be, before the seed is set
                torch.manual_seed(seed(index))
                run(part.rows)
            else:
                torch.manual_seed(seed(index))
                rows = self._on_device(part.rows)
                self.part(rows, part.share, part.first, part.last)
        return self._total

    def part(self, rows: Batch, share: float, first: bool, last: bool, averaged: bool = True) -> None:
        """Work off rows on the device; the last part of a step ends it.

        Args:
            averaged: over the group, with the last part.
        """
        if first:
            with self._optimising():
                self.optimiser.zero_grad(set_to_none=self._graphs is None)  # a graph's gradients stay where they are
            self._total.zero_()
        with nullcontext() if last and averaged else self.group.without_averaging(self.loss):
            with precision(self.runtime):
                loss: Tensor = self.loss(*rows)
            loss = loss * share
            loss.backward()
        self._total += loss.detach()
        if last:
            if self.training.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip)
            with self._optimising():
                self.optimiser.step()

    def _optimising(self) -> AbstractContextManager[None]:
        """On a CPU the optimiser's marks load no compiler; they cost 0.3 ms a step, for which a GPU would wait."""
        return uncompiled() if self.device.type == "cpu" else nullcontext()

    def warm_up(self, parts: Sequence[Part]) -> None:
        """Make all that a step's first time makes: kernels, compiled code, graphs. Nothing else comes of it."""
        if self._graphs:
            for part in parts:
                self._graphs.of(part)
            return
        with self.undone():
            for part in parts:
                rows = self._on_device(part.rows)
                self.part(rows, part.share, part.first, part.last, averaged=False)
        with self._optimising():
            self.optimiser.zero_grad(set_to_none=True)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Whatever steps change inside is put back as it was, in the memory where it lies."""
        changing = [*self.model.parameters(), *self.model.buffers(), self._total]
        before = [(tensor, tensor.detach().clone()) for tensor in [*changing, *self._gradients(), *self._moments()]]
        drawn = [(one, one.get_state()) for _, stack in self.model.stacks if (one := stack.generator) is not None]
        yield
        for generator, state in drawn:
            generator.set_state(state)
        known = {id(tensor) for tensor, _ in before}
        with torch.no_grad():
            for tensor in (*self._gradients(), *self._moments()):
                if id(tensor) not in known:  # made inside: gradients and AdamW's means start at 0
                    tensor.zero_()
            for tensor, value in before:
                tensor.copy_(value)

    def _on_device(self, rows: Batch) -> Batch:
        """Rows where the model is; the host does not wait for the copy."""
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in rows)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]

    def _moments(self) -> list[Tensor]:
        states = self.optimiser.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def _set_rate(self, rate: float) -> None:
        if self._rate is not None:
            self._rate.fill_(rate)
        for group in self.optimiser.param_groups:  # a checkpoint brings a rate of its own
            group["lr"] = rate if self._rate is None else self._rate
