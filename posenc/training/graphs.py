"""Parts of a step as CUDA graphs: hundreds of kernels started as one (CUDA C++ Programming Guide, "CUDA Graphs").

A step with one part is one graph: forward, backward, clipping and optimiser. One worked off in parts has a graph for
the first, for those between and for the last. Each shape of rows has its own. A graph runs the same kernels on the same
memory each time, so a part's rows are copied into fixed buffers, and the learning rate is a tensor. Dropout draws from
torch's own generator and encodings from theirs; graphs read both as they stand at each replay, so masks are those of
the plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch

from posenc.api.objective import Batch
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.training.batches import Part

GRAPHS = 32
"""Graphs of a cell at most: each keeps the memory of a pass."""
WARM = 3
"""Runs before one is recorded, as torch's notes on CUDA graphs have it: what is made at first use is not recorded."""

Record = Callable[[Callable[[], None], Sequence[torch.Generator]], Callable[[], None]]
"""Makes of a function one that runs it again, with the generators that it draws from beside torch's own."""


class Graphs:
    """The graphs of a cell, recorded as their shapes come.

    Args:
        part: Step.part. undone: Step.undone. record: what makes a graph.
    """

    def __init__(
        self, part: Callable[..., None], undone: Callable[[], AbstractContextManager[None]], model: Transformer,
        device: torch.device, record: Record,
    ) -> None:  # fmt: skip
        self._part, self._undone, self._model, self._device, self._record = part, undone, model, device, record
        self._known: dict[Any, tuple[Batch, Callable[[], None]]] = {}

    def of(self, part: Part) -> Callable[[Batch], None]:
        """What works off a part's rows, on the CPU, and others of their shapes.

        Raises:
            NotPossibleError: there are too many shapes, or the step cannot be recorded.
        """
        shapes = tuple((tuple(tensor.shape), tensor.dtype) for tensor in part.rows)
        key = (shapes, part.share, part.first, part.last)
        if key not in self._known:
            if len(self._known) == GRAPHS:
                raise NotPossibleError(
                    f"runtime.compile = 'cudagraphs': batches have more than {GRAPHS} shapes, and each is a graph"
                )
            self._known[key] = self._recorded(part)
        return partial(_run, *self._known[key])

    def _recorded(self, part: Part) -> tuple[Batch, Callable[[], None]]:
        fixed = tuple(tensor.to(self._device, copy=True) for tensor in part.rows)
        function = partial(self._part, fixed, part.share, part.first, part.last)
        generators = [stack.generator for _, stack in self._model.stacks if stack.generator is not None]
        with self._undone(), _aside(self._device):
            for _ in range(WARM):
                function()
        with self._undone():  # whether or not recording runs what it records
            return fixed, self._record(function, generators)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a GPU, a stream beside the current one: what is made at first use must not belong to the default stream."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _run(fixed: Batch, replay: Callable[[], None], rows: Batch) -> None:
    for buffer, tensor in zip(fixed, rows, strict=True):
        buffer.copy_(tensor, non_blocking=True)
    replay()


class Recorder:
    """Records functions as CUDA graphs. They share memory: they never run at once, and leave nothing in it."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """A function as a CUDA graph.

        Raises:
            NotPossibleError: something in it cannot be recorded, as a read-back, or a size that follows from values.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            # The thread that makes batches pins memory meanwhile, which is its own affair.
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                function()
        except RuntimeError as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NotPossibleError(f"runtime.compile = 'cudagraphs': the step cannot be recorded ({said})") from error
        return graph.replay
