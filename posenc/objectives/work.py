"""What a run's training gives the model to read: the shapes of its batches, known without making one of them.

By these the plan says what a run will cost, and the record what it did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from posenc.backbone import cost
from posenc.config.objectives import objective
from posenc.config.settings import Settings
from posenc.objectives import packing
from posenc.objectives.epochs import POOL, Epochs

if TYPE_CHECKING:
    from posenc.api.objective import Objective

Ids = NDArray[np.int64]
PACKED_STEPS = 200
"""Of packed rows so many steps are laid out, evenly taken: each is a search of its own."""
ROWS_A_PLAN = 20_000_000
"""Rows of batches that a plan looks at before it takes the first for all: about five seconds' worth."""


@dataclass(frozen=True)
class Work:
    """The passes of a training, those of like shape together.

    Attributes:
        rows: (P,) of a pass. widths: (P,stacks) tokens of a row, padding included, by the stacks that read them.
        read: (P,) hidden states that the output layer reads. times: (P,) how many such passes.
        tokens: that the model reads in all passes, padding not counted.
        estimate: why it is an estimate; empty where it is what a run does.
    """

    rows: Ids
    widths: Ids
    read: NDArray[np.float64]
    times: NDArray[np.float64]
    tokens: float
    estimate: str = ""

    @property
    def places(self) -> float:
        """Tokens with padding."""
        return float((self.rows * self.widths.sum(axis=1) * self.times).sum())

    @property
    def padding(self) -> float:
        """The share of places that hold no token."""
        return 1 - self.tokens / self.places if self.places else 0.0

    def flops(self, settings: Settings) -> float:
        """FLOPs of the forward passes, padding included: see posenc.backbone.cost."""
        asked = (settings.backbone, settings.encoding_name, settings.max_length)
        if not self.times.any():
            return 0.0
        rows, widths, read = (torch.from_numpy(array) for array in (self.rows, self.widths, self.read))
        flops = cost.forward(*asked, rows, widths, read, packed=settings.training.packed)
        return float(flops.numpy() @ self.times)


def fixed(settings: Settings, estimate: str = "") -> Work:
    """The work where every row has the whole length: all there is to know where an objective has no `sizes`."""
    stages = [(stage.length, stage.batch, stage.steps) for stage in settings.training.stages]
    stages = stages or [(settings.length, settings.training.batch, settings.training.steps)]
    stacks = 2 if settings.backbone.form == "encoder-decoder" else 1
    kind = objective(settings.objective)
    pairs = kind.sides if stacks == 1 else 1
    lengths, batches, steps = (np.array(part, dtype=np.int64) for part in zip(*stages, strict=True))
    rows = batches * pairs
    each = np.array([kind.reads_of(int(length)) for length in lengths])
    if settings.backbone.outputs:
        each = np.ones_like(lengths)
    widths = np.repeat(lengths[:, None], stacks, axis=1)
    return Work(
        rows, widths, (rows * each).astype(float), steps.astype(float), float((rows * steps) @ widths.sum(1)), estimate
    )


def of_run(objective: Objective, settings: Settings, limit: int | None = None) -> Work:
    """The work of a run.

    Args:
        limit: rows after which what was found stands for the rest; None for none.
    """
    if objective.varies:
        return _varied(objective, settings, limit)
    if objective.sizes is None:
        return fixed(settings)
    epochs, training, sizes = objective.epochs, settings.training, objective.sizes
    steps = training.steps if limit is None else min(training.steps, max(1, limit // training.batch))
    parts = []
    for first in range(0, steps, epochs.steps):
        order = np.stack(epochs.order(settings.seed, first // epochs.steps)[: steps - first])
        parts.append(_passes(order, sizes))
    rows, widths, tokens = (np.concatenate(part) for part in zip(*parts, strict=True))
    if training.packed:
        found = _packed(objective, settings, steps)
    else:
        read = rows if settings.backbone.outputs else tokens[:, -1]
        found = Work(rows, widths, read.astype(float), np.ones(steps), 0.0)
    scale = training.steps / steps
    said = _first(steps, training.steps)
    return replace(found, times=found.times * scale, tokens=float(tokens.sum()) * scale, estimate=said)


def _varied(objective: Objective, settings: Settings, limit: int | None) -> Work:
    """The work of a run whose steps have rows of other lengths; those of one length are told together."""
    training = settings.training
    steps = training.steps if limit is None else min(training.steps, max(1, limit // training.batch))
    widths, read = objective.passes(settings.seed, steps)
    kinds, times = np.unique(np.stack([widths, read], axis=1), axis=0, return_counts=True)
    scale = training.steps / steps
    return Work(
        np.full(len(kinds), training.batch),
        kinds[:, :1].astype(np.int64),
        (kinds[:, 1] * training.batch).astype(np.float64),
        (times * scale).astype(np.float64),
        float(widths.sum()) * training.batch * scale,
        _first(steps, training.steps),
    )


def _first(steps: int, of: int) -> str:
    """Why a count of a run's first steps is an estimate, if it is one."""
    return f"of the first {steps:,} of {of:,} steps" if steps < of else ""


def of_sample(sizes: Ids, settings: Settings, estimate: str) -> Work:
    """The work of a run whose rows have sizes like those of a sample, (rows, examples, stacks)."""
    training = settings.training
    chosen = sizes[np.random.default_rng(0).integers(len(sizes), size=POOL * training.batch)]
    order = np.stack(Epochs(chosen.max(axis=(1, 2)), training.batch).order(0, 0))
    rows, widths, tokens = _passes(order, chosen)
    read = rows if settings.backbone.outputs else tokens[:, -1]
    times = np.full(len(rows), training.steps / len(rows))
    return Work(rows, widths, read.astype(float), times, float((tokens.sum(1) * times).sum()), estimate)


def _passes(order: Ids, sizes: Ids) -> tuple[Ids, Ids, Ids]:
    """Rows (P,), widths (P,stacks) and tokens (P,stacks) of batches (P,B) of rows with sizes (N,examples,stacks)."""
    some = sizes[order]
    return np.full(len(order), order.shape[1] * sizes.shape[1]), some.max(axis=(1, 2)), some.sum(axis=(1, 2))


def _packed(objective: Objective, settings: Settings, steps: int) -> Work:
    """The rows into which some steps' examples are packed; `tokens` is left to the caller."""
    training, sizes = settings.training, objective.sizes
    assert sizes is not None
    looked = np.unique(np.linspace(1, steps, min(steps, PACKED_STEPS)).astype(int))
    rows, widths, read = [], [], []
    for step in looked.tolist():
        examples = sizes[objective.epochs.rows(settings.seed, step)]
        for part in np.array_split(examples, training.accumulate):
            flat = part.reshape(-1, sizes.shape[-1])
            filled = packing.rows_of(flat, settings.length)
            rows.append(len(filled))
            widths.append(np.max([flat[row].sum(axis=0) for row in filled], axis=0))
            read.append(len(flat) if settings.backbone.outputs else flat[:, -1].sum())
    times = np.full(len(rows), steps / len(looked))
    return Work(np.array(rows), np.array(widths), np.array(read, dtype=float), times, 0.0)
