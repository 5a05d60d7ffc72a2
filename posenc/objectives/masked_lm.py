"""Masked language modelling (Devlin et al. 2019, section 3.1): guess the tokens that were hidden, from both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.metric import Metric
from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import DataError
from posenc.common.seeds import derive
from posenc.config.settings import Settings
from posenc.config.task import EvaluationConfig, TrainingConfig
from posenc.data.corpus import Corpus, Texts
from posenc.data.tokens import KINDS, Tokeniser, counts, running
from posenc.objectives.metrics import MASKED_ACCURACY, MASKED_LOSS
from posenc.objectives.packing import where

SHARE = 0.15
"""Of all tokens, those to guess. Of these 80 % are shown as [MASK], 10 % as another token, 10 % as they are."""

Ids = NDArray[np.int64]


class MaskedLM(Objective):
    """Windows of running text, documents one after another with [SEP] between them, as RoBERTa has them.

    Of the tokens to guess, 80 % are shown as [MASK], 10 % as another token, 10 % as they are. Training windows start
    anywhere. What is hidden in them depends on the seed and the step; in evaluation windows, which stand side by side,
    on the window alone, so that every model guesses the same tokens, however many windows are scored at once. [CLS] and
    [SEP] are never hidden, and no special token is shown in place of another one. (A window with fewer other tokens
    than are to be hidden has as many targets as it can.) Where the training goes through stages, a step's windows are
    as long as its stage has them, and the test is scored at each length.
    """

    name = "masked_lm"
    form = "encoder"
    head = "masked"
    columns = (("text",),)
    tokenisers = KINDS
    staged = True
    metrics: tuple[Metric, ...] = (MASKED_LOSS, MASKED_ACCURACY)

    @classmethod
    def reads_of(cls, length: int) -> int:
        return max(1, round(SHARE * length))

    @classmethod
    def make(cls, settings: Settings, data: Corpus, tokens: Tokeniser) -> MaskedLM:
        return cls(data, tokens, settings.length, settings.training, settings.evaluation)

    def __init__(
        self, corpus: Corpus, tokens: Tokeniser, length: int, training: TrainingConfig, evaluation: EvaluationConfig
    ) -> None:
        self.tokens, self.training = tokens, training
        self.length, self.evaluation = length, evaluation
        lengths = set(evaluation.lengths(length))
        lengths |= {stage.length for stage in training.stages}
        self.longest = max(lengths)
        self.data = {**corpus.describe(), "tokens": {}}
        self.streams: dict[str, NDArray[np.generic]] = {}  # mapped
        for split in ("train", "validation", "test"):
            self.streams[split] = running(tokens, split, Texts(corpus.rows[split], 0), corpus.digest)
            if len(self.streams[split]) <= self.longest:
                raise DataError(
                    f"{corpus.name}: its {split} split has {len(self.streams[split]):,} tokens,"
                    f" and length {self.longest:,} needs more than that"
                )
        self.data["tokens"] = {split: len(stream) for split, stream in self.streams.items()}
        self.tests = [("test", longer) for longer in sorted(lengths)]
        special = (tokens.pad, tokens.unknown, tokens.cls, tokens.sep, tokens.mask)
        self.ordinary = np.setdiff1d(np.arange(tokens.size), special)

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """Shown tokens (B,L), hidden places (B,L) bool, and the true tokens (B,L)."""
        stream, length = self.streams["train"], self.training.stage(step, self.length).length
        starts = np.random.default_rng(derive(seed, "batches", step)).integers(len(stream) - length + 1, size=rows)
        return self._hide(stream[starts[:, None] + np.arange(length)], derive(seed, "mask", step))

    def _hide(self, windows: NDArray[np.generic], seed: int) -> Batch:
        true = windows.astype(np.int64)
        dice = np.random.default_rng(seed)
        # A fixed number of places in each row, so that batches have as many targets, whatever part of them is taken.
        count = self.reads_of(true.shape[1])
        marks = np.isin(true, (self.tokens.cls, self.tokens.sep))
        order = np.argsort(dice.random(true.shape) + marks, axis=1)  # marks last
        hidden = np.zeros(true.shape, dtype=bool)
        np.put_along_axis(hidden, order[:, :count], True, axis=1)
        hidden &= ~marks
        fate = dice.random(true.shape)
        random = self.ordinary[dice.integers(len(self.ordinary), size=true.shape)]
        shown = np.where(hidden & (fate < 0.8), self.tokens.mask, true)
        shown = np.where(hidden & (fate >= 0.8) & (fate < 0.9), random, shown)
        return torch.from_numpy(shown), torch.from_numpy(hidden), torch.from_numpy(true)

    def targets(self, batch: Batch) -> int:
        return int(batch[1].sum())

    def seen(self, batch: Batch) -> int:
        return batch[0].numel()

    def indexed(self, batch: Batch) -> Batch:
        """(shown, hidden, true), and which places of the flattened rows are hidden (N,)."""
        return *batch, where(batch[1])

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        logits, true = _guesses(model, batch)
        if not len(true):  # windows of marks alone
            return logits.float().sum()
        return functional.cross_entropy(logits.float(), true)

    def windows(self, split: str, length: int) -> Iterator[Batch]:
        stream = self.streams[split]
        usable = len(stream)
        if self.evaluation.tokens:
            usable = min(usable, max(self.longest, self.evaluation.tokens))
        usable = usable // length * length
        windows = stream[:usable].reshape(-1, length)
        rows = max(1, self.evaluation.batch_tokens // length)
        for first in range(0, len(windows), rows):
            places = range(first, min(first + rows, len(windows)))
            parts = [self._hide(windows[[place]], derive(0, "evaluation", split, place)) for place in places]
            shown, hidden, true = (torch.cat(part) for part in zip(*parts, strict=True))
            yield shown, hidden, true

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        device = next(model.parameters()).device
        found: dict[str, list[NDArray[Any]]] = {"weight": [], "masked_loss": [], "masked_accuracy": []}
        for batch in map(self.indexed, self.windows(split, length)):
            logits, true = _guesses(model, tuple(tensor.to(device) for tensor in batch))
            losses = functional.cross_entropy(logits.float(), true, reduction="none")
            rows = batch[1].nonzero()[:, 0].numpy()  # of each target, the window that it stands in
            for name, values in (
                ("weight", np.ones(len(rows))),
                ("masked_loss", losses.double().cpu().numpy()),
                ("masked_accuracy", (logits.argmax(-1) == true).double().cpu().numpy()),
            ):
                found[name].append(np.bincount(rows, weights=values, minlength=len(batch[0])))
        each = {name: np.concatenate(parts) for name, parts in found.items()}
        items = int(each["weight"].sum())
        means = {metric.name: float(each[metric.name].sum()) / items for metric in self.metrics}
        said = {"accuracy of always saying the commonest token": self._commonest(split, length)}
        return Scored(means, items, {} if split == "validation" else said, each)

    def _commonest(self, split: str, length: int) -> float:
        """The accuracy on a split of guessing the token that training has most often."""
        token = int(self._counts().argmax())
        hidden = [batch[2][batch[1]] for batch in self.windows(split, length)]
        return float((torch.cat(hidden) == token).double().mean())

    def _counts(self) -> Ids:
        """(V,) how often training has each token that may be hidden."""
        found = counts(self.streams["train"], self.tokens.size)
        found[[self.tokens.cls, self.tokens.sep]] = 0
        return found

    def baselines(self) -> dict[str, float]:
        """The loss of guessing each token by its share of the training text."""
        found = self._counts() + 1.0
        nats = -np.log(found / found.sum())
        hidden = [batch[2][batch[1]].numpy() for batch in self.windows("test", self.length)]
        return {"unigram": float(nats[np.concatenate(hidden)].mean())}


def _guesses(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (N,vocabulary) and true tokens (N,) of the hidden places alone: the output layer is most of the work."""
    shown, hidden, true, *places = batch
    (taken,) = places or [where(hidden)]
    return model.logits(model.hidden(shown).flatten(0, 1)[taken]), true.flatten()[taken]
