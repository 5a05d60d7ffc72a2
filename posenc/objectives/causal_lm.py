"""Causal language modelling of bytes or of subword tokens: predict the next; scored in bits or as perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.metric import Metric
from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.common.seeds import derive
from posenc.config.settings import Settings
from posenc.config.task import EvaluationConfig, Task
from posenc.data.corpus import Corpus, Texts
from posenc.data.text import ByteText
from posenc.data.tokens import Tokeniser, counts, running
from posenc.objectives.metrics import BITS_PER_BYTE, BITS_PER_CHARACTER, PERPLEXITY, WORD_PERPLEXITY
from posenc.objectives.units import Units, units_of

OF_BYTES = (BITS_PER_CHARACTER, PERPLEXITY, WORD_PERPLEXITY)
OF_TOKENS = (PERPLEXITY, WORD_PERPLEXITY, BITS_PER_BYTE)

Numbers = NDArray[np.float64]


class CausalLM(Objective):
    """Windows of a running text: its bytes, or its tokens with [SEP] after each document.

    Training windows start anywhere; which ones a step sees depends on the seed and the step alone. Evaluation windows
    stand side by side without overlap, so a token is predicted from what stands before it in its own window: the
    same tokens are scored at every length. (A sliding window would hide an encoding's failure beyond its length.)

    Perplexity is that of a token (of a byte, where tokens are bytes), and depends on what a token is: between
    tokenisers only that of a word and the bits of a byte can be compared. Both take all that is predicted, ends of
    documents too, over the words or bytes of the text.

    Args:
        text: bytes with the shares of train, validation and test; or rows of text, for which `tokens` are given.
        length: of training windows, in tokens.
        evaluation: its lengths are multiples of it; its metrics are among OF_BYTES or OF_TOKENS.
    """

    name = "causal_lm"
    form = "decoder"
    columns = (("text",),)
    tokenisers = ("bytes", "bpe")
    scores: ClassVar[tuple[Metric, ...]] = (BITS_PER_CHARACTER, *OF_TOKENS)

    @classmethod
    def require(cls, task: Task) -> None:
        metrics_for(task.evaluation.metrics, task.data.tokeniser == "bytes")

    @classmethod
    def require_data(cls, data: ByteText | Corpus, task: Task, length: int) -> None:
        if isinstance(data, ByteText):  # of rows it is known once they are tokens
            cls(data, task.data.splits, length, task.evaluation)

    @classmethod
    def make(cls, settings: Settings, data: ByteText | Corpus, tokens: Tokeniser | None) -> CausalLM:
        return cls(data, settings.data.splits, settings.length, settings.evaluation, tokens)

    def __init__(
        self,
        text: ByteText | Corpus,
        splits: tuple[float, float, float],
        length: int,
        evaluation: EvaluationConfig,
        tokens: Tokeniser | None = None,
    ) -> None:
        self.length, self.evaluation = length, evaluation
        self.metrics = metrics_for(evaluation.metrics, tokens is None)
        self.size, self.what = (256, "bytes") if tokens is None else (tokens.size, "tokens")
        self.units: Units = units_of(tokens)
        self.splits: dict[str, NDArray[np.generic]] = {}  # mapped
        if isinstance(text, ByteText):
            self.splits |= text.split(splits)
            self.data = text.describe()
        else:
            assert tokens is not None
            for split in ("train", "validation", "test"):
                self.splits[split] = running(tokens, split, Texts(text.rows[split], 0), text.digest)
            self.data = {**text.describe(), "tokens": {split: len(part) for split, part in self.splits.items()}}
        self.tests = [("test", longer) for longer in self.lengths]
        longest = length * max(evaluation.length_factors)
        for name, content in self.splits.items():
            if len(content) <= longest:
                raise DataError(
                    f"{text.name}: its {name} split has {len(content):,} {self.what},"
                    f" and length {longest:,} needs more than that"
                )

    @property
    def lengths(self) -> list[int]:
        """Evaluation lengths, in tokens."""
        return [self.length * factor for factor in self.evaluation.length_factors]

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """(rows, length + 1) tokens of a step: inputs and, one further, targets."""
        train = self.splits["train"]
        starts = np.random.default_rng(derive(seed, "batches", step)).integers(len(train) - self.length, size=rows)
        return (_tensor(train[starts[:, None] + np.arange(self.length + 1)]),)

    def targets(self, batch: Batch) -> int:
        return batch[0].shape[0] * self.length

    def seen(self, batch: Batch) -> int:
        return self.targets(batch)

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        (windows,) = batch
        logits = model(windows[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())

    def windows(self, split: str, length: int) -> Iterator[Tensor]:
        """Batches (B, length + 1) of a split's windows side by side, the same bytes whatever the length."""
        longest = max(self.lengths)
        content = self.splits[split]
        usable = (len(content) - 1) // longest * longest
        if self.evaluation.tokens:
            usable = min(usable, max(longest, self.evaluation.tokens // longest * longest))
        starts = np.arange(0, usable, length)
        rows = max(1, self.evaluation.batch_tokens // length)
        for first in range(0, len(starts), rows):
            yield _tensor(content[starts[first : first + rows, None] + np.arange(length + 1)])

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        device = next(model.parameters()).device
        nats: list[Numbers] = []  # of each window
        found: list[dict[str, Numbers]] = []
        for windows in self.windows(split, length):
            batch = windows.to(device)
            logits = model(batch[:, :-1])
            losses = functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none")
            nats.append(losses.double().view(len(batch), length).sum(1).cpu().numpy())
            found.append(self.units.counts(windows.numpy()))
        each = self._items(np.concatenate(nats), length, found)
        values, why = self._values(each)
        details: dict[str, object] = {}
        if self.metrics != (BITS_PER_CHARACTER,):
            details = {name: int(each[name].sum()) for name in ("words", "bytes")}
        return Scored(values, length * len(each["weight"]), details, each, why)

    def _items(self, nats: Numbers, length: int, found: list[dict[str, Numbers]]) -> dict[str, NDArray[np.generic]]:
        """What the metrics are made from, of each window."""
        bits, weight = nats / math.log(2), np.full(len(nats), length)
        if self.metrics == (BITS_PER_CHARACTER,):
            return {"bits_per_character": bits, "weight": weight}
        more = {name: np.concatenate([part[name] for part in found]) for name in ("words", "bytes")}
        return {"nats": nats, "bits_per_character": bits, "bits": bits, "weight": weight, **more}

    def _values(self, each: Mapping[str, NDArray[np.generic]]) -> tuple[dict[str, float], dict[str, str]]:
        """The metrics, and why there is none."""
        values: dict[str, float] = {}
        why: dict[str, str] = {}
        for metric in self.metrics:
            sums, over = (float(each[name].sum()) for name in metric.items)
            if not over:
                why[metric.name] = f"no {metric.items[1]} in what is scored"
                continue
            mean = sums / over
            values[metric.name] = mean if metric.over == "mean" else _exp(mean)
        return values, why

    def baselines(self) -> dict[str, float]:
        """Guessing each token by its share of the training split."""
        found = counts(self.splits["train"], self.size) + 1.0
        nats = -np.log(found / found.sum())
        longest = max(self.lengths)
        windows = [batch.numpy() for batch in self.windows("test", longest)]
        if self.metrics[0] == BITS_PER_CHARACTER:
            bits = -np.log2(found / found.sum())
            return {"unigram": float(bits[np.concatenate([batch[:, 1:].ravel() for batch in windows])].mean())}
        sums = np.concatenate([nats[batch[:, 1:]].sum(1) for batch in windows])
        values, _ = self._values(self._items(sums, longest, [self.units.counts(batch) for batch in windows]))
        return {"unigram": values[self.metrics[0].name]} if self.metrics[0].name in values else {}


def metrics_for(names: list[str], of_bytes: bool) -> tuple[Metric, ...]:
    """The metrics of these names, the main one first; where there are none, bits of a byte, or all those of tokens.

    Raises:
        ConfigError: one that such tokens do not have, or one twice.
    """
    known = {metric.name: metric for metric in (OF_BYTES if of_bytes else OF_TOKENS)}
    if len(set(names)) < len(names) or set(names) - known.keys():
        what = "bytes" if of_bytes else "tokens"
        raise ConfigError(f"evaluation.metrics = {names}: for {what} allowed are {', '.join(known)}, each once")
    return tuple(known[name] for name in names) or ((BITS_PER_CHARACTER,) if of_bytes else OF_TOKENS)


def _exp(value: float) -> float:
    """e to the power of a value; infinite where no number has room for it."""
    return math.exp(value) if value < 700 else math.inf


def _tensor(content: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(content.astype(np.int64))
