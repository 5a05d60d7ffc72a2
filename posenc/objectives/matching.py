"""Which of two texts is nearer to a third: pairs scored by an encoder, as RoFormer has CAIL2019-SCM (section 4.5)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.metric import Metric
from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.config.settings import Settings
from posenc.config.task import EvaluationConfig, TrainingConfig
from posenc.data.corpus import Corpus, Texts
from posenc.data.tokens import KINDS, Tokeniser, encoded
from posenc.objectives import packing
from posenc.objectives.classification import shortened
from posenc.objectives.epochs import Epochs, pad
from posenc.objectives.metrics import ACCURACY

LABELS = ("B", "C")

Ids = NDArray[np.int64]


class Matching(Objective):
    """Triples A, B, C and which of B and C is nearer to A.

    Two pairs, [CLS] A [SEP] B [SEP] and [CLS] A [SEP] C [SEP], each get a score from the mean over their tokens. It
    learns by the binary cross-entropy of "this is the nearer one" over both. Accuracy is how often the nearer one
    scores higher; a tie counts half. Two pairs that are the same tokens after the cut are a tie whatever the two scores
    (which may differ by rounding); how many there are stands beside the score. A pair that is too long is cut
    as BERT's code cuts it: the longer text loses its last token, again and again.

    Rows whose longer pair has more than `evaluation.longer_than` tokens, before any cut, are also scored apart: what a
    shorter training length would have cut away.

    Args:
        corpus: fields "a", "b", "c" and "label", which is "B" or "C", or 0 or 1.
        length: of a pair, in tokens.

    Raises:
        ConfigError: a length that leaves nothing. DataError: too few rows.
    """

    name = "matching"
    form = "encoder"
    head = "mean"
    columns = (("a", "b", "c", "label"),)
    tokenisers = KINDS
    packs = True
    sides = 2

    @classmethod
    def make(cls, settings: Settings, data: Corpus, tokens: Tokeniser) -> Matching:
        return cls(data, tokens, settings.length, settings.training, settings.evaluation)

    def __init__(
        self, corpus: Corpus, tokens: Tokeniser, length: int, training: TrainingConfig, evaluation: EvaluationConfig
    ) -> None:
        if length < 5:
            raise ConfigError(f"length = {length}: must be at least 5: [CLS], and each text with its [SEP]")
        if evaluation.tokens:
            raise ConfigError(f"evaluation.tokens = {evaluation.tokens}: matching scores whole splits, and wants 0")
        for split in ("validation", "test"):
            if split not in corpus.rows:
                raise DataError(f"{corpus.name}: it has no {split} split")
        self.tokens, self.length, self.evaluation = tokens, length, evaluation
        self.texts = {
            split: [
                encoded(tokens, f"{split}/{name}", Texts(rows, column), corpus.digest)
                for column, name in enumerate("abc")
            ]
            for split, rows in corpus.rows.items()
        }
        self.labels: dict[str, Ids] = {
            split: np.array([_nearer(corpus, split, row[3]) for row in rows]) for split, rows in corpus.rows.items()
        }
        train = np.minimum(self._whole("train"), length)
        if len(train) < training.batch:
            raise DataError(f"{corpus.name}: {len(train)} training rows, and training.batch = {training.batch}")
        self.epochs = Epochs(train, training.batch)
        first, *others = (text.lengths for text in self.texts["train"])
        self.sizes = np.minimum(np.stack([first + other + 3 for other in others], axis=1), length)[..., None]
        self.tests = [("test", longer) for longer in evaluation.lengths(length)]
        self.metrics: tuple[Metric, ...] = (ACCURACY,)
        if self._long("test").any():
            title = f"accuracy on rows over {evaluation.longer_than:,} tokens"
            self.metrics = (ACCURACY, Metric("accuracy_long", title, "higher"))
        self.data = {
            **corpus.describe(),
            "longer": {split: int(self._long(split).sum()) for split in self.texts},
            "cut": {split: int((self._whole(split) > length).sum()) for split in self.texts},
        }

    def _whole(self, split: str) -> Ids:
        """(rows,) tokens of each row's longer pair, were none cut."""
        first, *others = (text.lengths for text in self.texts[split])
        return first + np.maximum(*others) + 3

    def _long(self, split: str) -> NDArray[np.bool_]:
        """(rows,) which rows are scored apart."""
        limit = self.evaluation.longer_than
        return self._whole(split) > limit if limit else np.zeros(len(self.labels[split]), dtype=bool)

    def pair(self, split: str, index: int, other: int, length: int) -> Ids:
        """Text A and B (`other` 1) or C (2) of a row as (L,) tokens, at most `length` of them."""
        texts = [self.texts[split][0][index], self.texts[split][other][index]]
        kept = shortened([len(text) for text in texts], length - 3)
        parts = [np.append(text[:size], self.tokens.sep) for text, size in zip(texts, kept, strict=True)]
        return np.concatenate([[self.tokens.cls], *parts]).astype(np.int64)

    def _batch(self, split: str, rows: Ids, length: int) -> Batch:
        """Tokens (R,2,L), their mask (R,2,L), and which of the two pairs is nearer (R,)."""
        pairs = [self.pair(split, int(row), other, length) for row in rows for other in (1, 2)]
        tokens, mask = (tensor.unflatten(0, (len(rows), 2)) for tensor in pad(pairs, self.tokens.pad))
        return tokens, mask, torch.from_numpy(self.labels[split][rows])

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """Tokens (R,2,L), mask (R,2,L) bool, and labels (R,): 0 where B is nearer, 1 where C is."""
        if rows != self.epochs.batch:
            raise ValueError(f"{rows} rows a batch, and the epochs were laid out for {self.epochs.batch}")
        return self._batch("train", self.epochs.rows(seed, step), self.length)

    def targets(self, batch: Batch) -> int:
        return len(batch[2])

    def seen(self, batch: Batch) -> int:
        return int(batch[1].sum())

    def pack(self, batch: Batch) -> Batch:
        (packed,) = packing.pack((batch[0].flatten(0, 1), batch[1].flatten(0, 1)), capacity=self.length)
        return *batch, *packed

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        nearness = _nearness(model, batch)
        return functional.binary_cross_entropy_with_logits(nearness, functional.one_hot(batch[2], 2).to(nearness.dtype))

    def _batches(self, split: str, length: int) -> Iterator[tuple[Ids, Batch]]:
        whole = np.minimum(self._whole(split), length)
        order = np.argsort(-whole, kind="stable")
        first = 0
        while first < len(order):
            rows = max(1, self.evaluation.batch_tokens // (2 * int(whole[order[first]])))
            yield order[first : first + rows], self._batch(split, order[first : first + rows], length)
            first += rows

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        device = next(model.parameters()).device
        right, tied = np.zeros(len(self.labels[split])), 0
        for rows, batch in self._batches(split, length):
            nearness = _nearness(model, tuple(tensor.to(device) for tensor in batch)).double().cpu()
            if not nearness.isfinite().all():
                right[rows] = np.nan
                continue
            chosen, other = nearness.gather(1, batch[2][:, None]), nearness.gather(1, 1 - batch[2][:, None])
            right[rows] = ((1 + (chosen - other).sign()) / 2)[:, 0].numpy()
            same = (batch[0][:, 0] == batch[0][:, 1]).all(-1) & (batch[1][:, 0] == batch[1][:, 1]).all(-1)
            right[rows[same.numpy()]] = 0.5
            tied += int(same.sum())
        long = self._long(split)
        values = {"accuracy": float(right.mean())}
        if len(self.metrics) > 1 and long.any():
            values["accuracy_long"] = float(right[long].mean())
        details = {
            "rows over the limit": int(long.sum()),
            "rows cut": int((self._whole(split) > length).sum()),
            "rows of two pairs that are the same, each half right": tied,
        }
        each = {"accuracy": right, "weight": np.ones(len(right)), "long": long}
        return Scored(values, len(right), details, each)

    def baselines(self) -> dict[str, float]:
        """The accuracy of always saying what is commoner in training."""
        common = int(np.bincount(self.labels["train"], minlength=2).argmax())
        return {"majority": float((self.labels["test"] == common).mean())}


def _nearer(corpus: Corpus, split: str, label: object) -> int:
    """0 where B is nearer, 1 where C is."""
    if label in LABELS:
        return LABELS.index(str(label))
    if type(label) is int and label in (0, 1):  # as data.labels of a table numbers them
        return label
    raise DataError(f"{corpus.name}: its {split} split has the label {label!r}: {' or '.join(LABELS)} must be there")


def _nearness(model: Transformer, batch: Batch) -> Tensor:
    """The scores of both pairs of each row (R,2), packed or not, at least in float32."""
    tokens, mask, _, *packed = batch
    tokens, mask = tokens.flatten(0, 1), mask.flatten(0, 1)
    scores = model.summarise(packing.hidden(model, tokens, mask, packed), mask)
    scores = scores[:, 0].unflatten(0, (-1, 2))
    return scores if scores.dtype == torch.float64 else scores.float()
