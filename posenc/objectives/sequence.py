"""Synthetic sequences: tokens in, tokens or a class out; loss and scores at the places that are asked, alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError, NotPossibleError
from posenc.common.seeds import derive
from posenc.config.data import DataConfig
from posenc.config.settings import Settings
from posenc.config.task import EvaluationConfig, Task
from posenc.data import sources
from posenc.data.sequences.generator import UNASKED, Answered, Labelled
from posenc.data.sequences.source import Sequences
from posenc.objectives.metrics import EXACT_MATCH, PLACES_ACCURACY
from posenc.objectives.packing import where


class Sequence(Objective):
    """Rows of a generator (`posenc.data.sequences`), laid out for the form of the backbone.

    Rows that are read whole before they are answered (`Answered`, of n symbols and m answers, a class being m = 1)
    stand in n + m places. An encoder reads the symbols and m times a symbol more, "?", and is asked at these. A decoder
    reads the symbols, that symbol once as the sign that the answer begins, and the answer but its last symbol; it is
    asked from the sign on. Rows that are answered as they are read (`Labelled`) stand as they are. Nothing is padded.

    The loss is the cross-entropy over the generator's classes, and accuracy is by place: both at the places that are
    asked, alone. A row matches exactly if all its places are right. In a decoder the answer is then what greedy
    decoding gives: up to its first wrong symbol both read the same. So nothing is decoded step by step.

    A length is that of a task's longest rows in symbols read, answers not counted (`Generator.sizes`). Each step of
    training draws one size up to it, evenly, and all its rows have that size: by the seed and the step. At the trained
    length the test set holds all these sizes alike; at a multiple of it, rows of that one size (the largest that there
    is up to it; where a size decides the answer, the largest few: `Generator.beyond`). Test sets are the same rows in
    every process, whatever the cell's seed, and share no sequence with training or validation.

    Args:
        data: the generator's rows. length: of the longest rows in training.
        causal: whether the backbone is a decoder.
    """

    name = "sequence"
    form = "encoder"
    forms = ("encoder", "decoder")
    tokenisers = ("symbols",)
    varies = True
    metrics = (PLACES_ACCURACY, EXACT_MATCH)

    @classmethod
    def vocabulary_of(cls, data: Mapping[str, Any]) -> int | None:
        """All symbols and classes, and the "?"; None where the table is not one that can be read yet."""
        source, options = data.get("source"), data.get("options", {})
        if not isinstance(source, str) or not isinstance(options, Mapping) or source not in sources.SOURCES.entries():
            return None
        found = sources.load(source, None, options)
        return _vocabulary(found) if isinstance(found, Sequences) else None

    @classmethod
    def longest_row(cls, data: DataConfig, length: int) -> int:
        found = _sequences(data)
        return max((found.places(size)[0] for size in found.generator.sizes(length)[-1:]), default=length)

    @classmethod
    def require(cls, task: Task) -> None:
        found = _sequences(task.data)
        size = _vocabulary(found)
        if task.backbone.vocabulary != size:
            raise ConfigError(f"backbone.vocabulary = {task.backbone.vocabulary}: {found.name} has {size} symbols")
        if found.generator.causal and task.backbone.form != "decoder":
            raise ConfigError(
                f"backbone.form = {task.backbone.form!r}: rows of {found.name} show their answers further on, and"
                " want 'decoder'"
            )
        if task.evaluation.tokens:
            raise ConfigError(f"evaluation.tokens = {task.evaluation.tokens}: objective 'sequence' has evaluation.rows")

    @classmethod
    def require_data(cls, data: Sequences, task: Task, length: int) -> None:
        for split in ("train", "validation", "test"):
            if not data.sizes(split, length):
                raise DataError(f"{data.name}: no rows for {split} of at most {length} symbols")

    @classmethod
    def make(cls, settings: Settings, data: Sequences, tokens: None) -> Sequence:
        return cls(data, settings.length, settings.evaluation, settings.backbone.form == "decoder")

    def __init__(self, data: Sequences, length: int, evaluation: EvaluationConfig, causal: bool) -> None:
        self.sequences, self.length, self.evaluation, self.causal = data, length, evaluation, causal
        self.extra = _vocabulary(data) - 1
        self.classes = data.generator.classes
        self.train_sizes = data.sizes("train", length)
        lengths = evaluation.lengths(length)
        splits = ["test", *(f"test_{name}" for name in data.generator.tests)]
        self.tests = [(split, one) for split in splits for one in lengths]
        self.data = {**data.describe(), "sizes": len(self.train_sizes)}
        self._places = lru_cache(maxsize=None)(data.places)

    def size(self, seed: int, step: int) -> int:
        """The size of a step's rows."""
        return self.train_sizes[derive(seed, "size", step) % len(self.train_sizes)]

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """Tokens (B,L) and targets (B,L), UNASKED where nothing is asked."""
        random = np.random.default_rng(derive(seed, "batches", step))
        return self._laid_out(self.sequences.train(random, self.size(seed, step), rows))

    def passes(self, seed: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        found = [self._places(self.size(seed, step)) for step in range(1, steps + 1)]
        return np.array([tokens for tokens, _ in found]), np.array([asked for _, asked in found])

    def _laid_out(self, drawn: Answered | Labelled) -> Batch:
        if isinstance(drawn, Labelled):
            return torch.from_numpy(drawn.symbols), torch.from_numpy(drawn.targets)
        symbols, answers = drawn
        behind = np.full_like(answers, self.extra)
        if self.causal:
            behind[:, 1:] = answers[:, :-1]
        targets = np.concatenate([np.full_like(symbols, UNASKED), answers], axis=1)
        return torch.from_numpy(np.concatenate([symbols, behind], axis=1)), torch.from_numpy(targets)

    def targets(self, batch: Batch) -> int:
        return int((batch[1] != UNASKED).sum())

    def seen(self, batch: Batch) -> int:
        return batch[0].numel()

    def indexed(self, batch: Batch) -> Batch:
        """Tokens, targets, and which places of the flattened rows are asked (N,)."""
        return *batch, where(batch[1] != UNASKED)

    def logits(self, model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (N,classes) at the N places that are asked, row by row, and their targets (N,)."""
        tokens, targets, *places = batch
        (taken,) = places or [where(targets != UNASKED)]
        logits = model.logits(model.hidden(tokens).flatten(0, 1)[taken])
        return logits[:, : self.classes].float(), targets.flatten()[taken]

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        return functional.cross_entropy(*self.logits(model, batch))

    def fixed(self, split: str, length: int) -> Iterator[Batch]:
        """A split's rows, those of each size by themselves.

        Raises:
            NotPossibleError: a length beyond the trained one that has no size of its own.
        """
        kind, _, name = split.partition("_")
        generator = self.sequences.other(name) if name else None
        if length == self.length:
            sizes = self.sequences.sizes(kind, length)
        else:
            longer = [size for size in self.sequences.generator.sizes(length) if size > self.length]
            most = self.sequences.generator.beyond
            sizes = [size for size in longer[-most:] if self.sequences.has(kind, size)]
        if not sizes:
            raise NotPossibleError(f"not possible: {self.sequences.name} has no rows of {length} symbols")
        for size, count in _shared(sizes, self.evaluation.rows):
            yield self._laid_out(self.sequences.fixed(kind, size, count, generator))

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        device = next(model.parameters()).device
        right, asked = [], []
        for of_size in self.fixed(split, length):
            rows = max(1, self.evaluation.batch_tokens // of_size[0].shape[1])
            for part in zip(*(tensor.split(rows) for tensor in of_size), strict=True):
                logits, targets = self.logits(model, tuple(tensor.to(device) for tensor in part))
                places = part[1] != UNASKED
                wrong = torch.zeros(places.shape)
                # What is no number is no answer.
                hit = (logits.argmax(-1) == targets) & logits.isfinite().all(-1)
                wrong[places] = (~hit).float().cpu()
                asked.append(places.sum(1).numpy())
                right.append(asked[-1] - wrong.sum(1).numpy())
        hits, weight = np.concatenate(right).astype(float), np.concatenate(asked)
        whole, ones = (hits == weight).astype(float), np.ones(len(hits))
        each = {"accuracy": hits, "weight": weight, "exact_match": whole, "rows": ones}
        values = {metric.name: float(each[metric.name].sum() / each[metric.items[1]].sum()) for metric in self.metrics}
        return Scored(values, len(hits), each=each)

    def baselines(self) -> dict[str, float]:
        """What guessing scores."""
        chance = self.sequences.generator.chance
        return {"chance": 1 / self.classes if chance is None else chance}


def _sequences(data: DataConfig) -> Sequences:
    """The generator that a task names.

    Raises:
        ConfigError: it names another source of data.
    """
    found = sources.load(data.source, None, data.options) if not data.own and data.source != "none" else None
    if not isinstance(found, Sequences):
        raise ConfigError(f"data.source = {data.source!r}: objective 'sequence' wants a generator: sequences/...")
    return found


def _vocabulary(data: Sequences) -> int:
    return max(data.generator.vocabulary, data.generator.classes) + 1


def _shared(sizes: list[int], rows: int) -> list[tuple[int, int]]:
    """Sizes with their shares of so many rows, as even as can be; of more sizes than rows, some evenly taken."""
    if len(sizes) > rows:
        sizes = [sizes[index] for index in np.linspace(0, len(sizes) - 1, rows).round().astype(int).tolist()]
    each, more = divmod(rows, len(sizes))
    return [(size, each + (index >= len(sizes) - more)) for index, size in enumerate(sizes)]
