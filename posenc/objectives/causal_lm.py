"""Causal language modelling of bytes or of subword tokens: predict the next; scored in bits or as perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.metric import Metric
from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError, NotPossibleError
from posenc.common.seeds import derive
from posenc.config.settings import Settings
from posenc.config.task import EvaluationConfig, Task
from posenc.data.corpus import Corpus, Texts
from posenc.data.text import ByteText
from posenc.data.tokens import Tokeniser, counts, running
from posenc.objectives.metrics import BITS_PER_BYTE, BITS_PER_CHARACTER, PERPLEXITY, WORD_PERPLEXITY, exp
from posenc.objectives.units import Units, units_of
from posenc.objectives.windows import CUT, SLIDING, bins, of_mode, separate, sliding

OF_BYTES = (BITS_PER_CHARACTER, PERPLEXITY, WORD_PERPLEXITY)
OF_TOKENS = (PERPLEXITY, WORD_PERPLEXITY, BITS_PER_BYTE)

Numbers = NDArray[np.float64]


class CausalLM(Objective):
    """Windows of a running text: its bytes, or its tokens with [SEP] after each document.

    Training windows start anywhere; which ones a step sees depends on the seed and the step alone. Evaluation windows
    stand side by side without overlap, so a token is predicted from what stands before it in its own window: the
    same tokens are scored at every length. With `evaluation.stride` they are scored in two more ways: by windows of the
    same length that slide by the stride (`..._sliding`: nearly the whole length stands before each token), and by
    windows that slide as much and are no longer than those trained on (`..._cut`: what a longer one must beat).

    Perplexity is that of a token (of a byte, where tokens are bytes), and depends on what a token is: between
    tokenisers only that of a word and the bits of a byte can be compared. Both take all that is predicted, ends of
    documents too, over the words or bytes of the text. Of WikiText and the Penn Treebank the end of a line is a word
    as well (`<eos>`), as in all published figures.

    Args:
        text: bytes with the shares of train, validation and test; or rows of text, for which `tokens` are given.
        length: of training windows, in tokens.
        evaluation: its lengths are multiples of it; its metrics are among OF_BYTES or OF_TOKENS.
    """

    name = "causal_lm"
    form = "decoder"
    columns = (("text",),)
    tokenisers = ("bytes", "bpe")
    slides = True
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
        self.length, self.evaluation, self.tokens = length, evaluation, tokens
        self.lengths = evaluation.lengths(length)
        self.together = math.lcm(*self.lengths)
        if evaluation.stride > min(self.lengths):
            raise ConfigError(
                f"evaluation.stride = {evaluation.stride}: must be at most the shortest length that is scored,"
                f" {min(self.lengths):,}"
            )
        self.plain = metrics_for(evaluation.metrics, tokens is None)
        self.metrics = (*self.plain, *_slid(self.plain, evaluation.stride, length))
        self.size, self.what = (256, "bytes") if tokens is None else (tokens.size, "tokens")
        self.units: Units = units_of(tokens, isinstance(text, Corpus) and text.ends_are_words)
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
        longest = max(self.lengths)
        for name, content in self.splits.items():
            has = f"{text.name}: its {name} split has {len(content):,} {self.what}"
            if len(content) <= longest:
                raise DataError(f"{has}, and length {longest:,} needs more than that")
            if name != "train" and len(content) <= self.together:
                lengths = ", ".join(f"{one:,}" for one in self.lengths)
                raise DataError(
                    f"{has}, and windows of lengths {lengths} hold the same ones in multiples of {self.together:,}:"
                    " more than that are needed"
                )

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

    def targets_of(self, split: str) -> int:
        """How many tokens of a split are scored, the same ones at every length: all but its first, as far as it goes.

        They are a multiple of every length, so that separate windows of each end together.
        """
        found = (len(self.splits[split]) - 1) // self.together * self.together
        if self.evaluation.tokens:
            found = min(found, max(self.together, self.evaluation.tokens // self.together * self.together))
        return found

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        targets = self.targets_of(split)
        if not self.evaluation.stride or split == "validation":
            return self._score(model, split, targets, length)
        try:
            found = self._score(model, split, targets, length)
            found = _joined(found, self._score(model, split, targets, length, SLIDING))
        except NotPossibleError as error:
            if length <= self.length:
                raise
            # Beyond what a model can read, its windows can still be cut.
            names = (metric.name for metric in self.metrics if not metric.name.endswith(CUT))
            found = Scored({}, targets, why=dict.fromkeys(names, str(error)))
        return _joined(found, self._score(model, split, targets, min(length, self.length), CUT))

    def _score(self, model: Transformer, split: str, targets: int, length: int, suffix: str = "") -> Scored:
        """Of windows of one length: separate ones, or those that slide by the stride."""
        if suffix:
            windows = sliding(targets, length, self.evaluation.stride)
        else:
            windows = separate(targets, length)
        nats: list[Numbers] = []  # of each window
        units: list[dict[str, Numbers]] = []
        places = np.zeros(length)
        for part in windows:
            for batch in part.batches(self.splits[split], self.evaluation.batch_tokens):
                losses = _losses(model, batch)[:, length - part.scored :]
                nats.append(losses.sum(1).cpu().numpy())
                units.append(self.units.counts(batch[:, length - part.scored :]))
                if not suffix:
                    places += losses.sum(0).cpu().numpy()
        weight = np.concatenate([np.full(len(part.starts), part.scored) for part in windows])
        each = {f"{name}{suffix}": array for name, array in self._items(np.concatenate(nats), weight, units).items()}
        values, why = self._values(each, [metric for metric in self.metrics if set(metric.items) <= each.keys()])
        details: dict[str, object] = {}
        if self.plain != (BITS_PER_CHARACTER,) and not suffix:
            details = {name: int(each[name].sum()) for name in ("words", "bytes")}
        positions = {} if suffix else self._positions(places, targets // length)
        return Scored(values, targets, details, each, why, positions)

    def _positions(self, places: Numbers, windows: int) -> dict[str, NDArray[np.generic]]:
        """The loss by place in separate windows, from its sums (L,) over them."""
        ends = bins(len(places), self.length)
        firsts = np.concatenate([[0], ends[:-1]])
        return {"ends": ends, "nats": np.add.reduceat(places, firsts), "targets": windows * (ends - firsts)}

    def _items(
        self, nats: Numbers, weight: NDArray[np.int64], found: list[dict[str, Numbers]]
    ) -> dict[str, NDArray[np.generic]]:
        """What the metrics are made from, of each window."""
        bits = nats / math.log(2)
        if self.plain == (BITS_PER_CHARACTER,):
            return {"bits_per_character": bits, "weight": weight}
        more = {name: np.concatenate([part[name] for part in found]) for name in ("words", "bytes")}
        return {"nats": nats, "bits_per_character": bits, "bits": bits, "weight": weight, **more}

    def _values(
        self, each: Mapping[str, NDArray[np.generic]], metrics: Iterable[Metric]
    ) -> tuple[dict[str, float], dict[str, str]]:
        """The metrics, and why there is none."""
        values: dict[str, float] = {}
        why: dict[str, str] = {}
        for metric in metrics:
            sums, over = (float(each[name].sum()) for name in metric.items)
            if not over:
                why[metric.name] = f"no {metric.items[1]} in what is scored"
                continue
            mean = sums / over
            values[metric.name] = mean if metric.over == "mean" else exp(mean)
        return values, why

    def baselines(self) -> dict[str, float]:
        """Guessing each token by its share of the training split."""
        found = counts(self.splits["train"], self.size) + 1.0
        nats = -np.log(found / found.sum())
        (apart,) = separate(self.targets_of("test"), max(self.lengths))
        windows = list(apart.batches(self.splits["test"], self.evaluation.batch_tokens))
        if self.metrics[0] == BITS_PER_CHARACTER:
            bits = -np.log2(found / found.sum())
            return {"unigram": float(bits[np.concatenate([batch[:, 1:].ravel() for batch in windows])].mean())}
        sums = np.concatenate([nats[batch[:, 1:]].sum(1) for batch in windows])
        weight = np.full(len(sums), apart.length)
        each = self._items(sums, weight, [self.units.counts(batch) for batch in windows])
        values, _ = self._values(each, self.plain)
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


def _slid(metrics: Iterable[Metric], stride: int, length: int) -> list[Metric]:
    """The same metrics of windows that slide, if any do."""
    if not stride:
        return []
    how = {SLIDING: f"sliding by {stride:,}", CUT: f"cut to {length:,}, sliding by {stride:,}"}
    return [of_mode(metric, suffix, said) for suffix, said in how.items() for metric in metrics]


@torch.no_grad()
def _losses(model: Transformer, windows: NDArray[np.int64]) -> Tensor:
    """(B, L) float64 nats of each target of windows (B, L + 1)."""
    batch = torch.from_numpy(windows).to(next(model.parameters()).device)
    logits = model(batch[:, :-1]).flatten(0, 1)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none")
    return losses.double().view(len(batch), -1)


def _joined(one: Scored, other: Scored) -> Scored:
    """The scores of the same targets in two ways."""
    each = {**one.each, **other.each}
    return one._replace(values=one.values | other.values, each=each, why={**one.why, **other.why})


def _tensor(content: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(content.astype(np.int64))
