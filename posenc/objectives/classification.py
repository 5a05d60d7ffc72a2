"""Classes or scores of a text or of two: fine-tuning as BERT has it (Devlin et al. 2019, section 4.1), on GLUE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

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
from posenc.config.task import EvaluationConfig, Task, TrainingConfig
from posenc.data.cache import Ragged
from posenc.data.corpus import Corpus, Row, Texts
from posenc.data.tokens import KINDS, Tokeniser, encoded
from posenc.objectives import packing
from posenc.objectives.epochs import Epochs, pad
from posenc.objectives.metrics import ACCURACY, F1, MATTHEWS, PEARSON, SPEARMAN

OF_SCORES = (SPEARMAN, PEARSON)
OF_CLASSES = (ACCURACY,)
OF_TWO_CLASSES = (ACCURACY, F1, MATTHEWS)
"""All of them fractions, not per cent. F1 is of label 1."""

Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]


class Classification(Objective):
    """Rows of one or two texts, and a label: a whole number is a class, learnt by cross-entropy; any other a score,
    learnt by its squared error as it stands.

    A row is [CLS] first [SEP], or [CLS] first [SEP] second [SEP]. What the model answers is read at [CLS]. A row that
    is too long is cut as BERT's code cuts it: the longer text loses its last token, again and again, and the second
    where both are as long.

    Where the corpus has a test split of its own, validation and test are the corpus'. Where a benchmark hides its test
    labels, choices are made on a part of the training rows, and the benchmark's validation rows are the test, scored
    once: "validation_mismatched" is then "test_mismatched".

    Args:
        corpus: fields ("first", "second", "label") or ("first", "label").
        length: of training rows, in tokens.
        held_out: the share of the training rows on which choices are made, where they have to be made there.

    Attributes:
        outputs: how many classes, or 1 for scores.

    Raises:
        ConfigError: metrics that do not fit the labels; a share or a length that leaves nothing.
        DataError: labels that are neither classes counted from 0 nor scores; too few rows.
    """

    name = "classification"
    form = "encoder"
    head = "class"
    columns = (("first", "second", "label"), ("first", "label"))
    tokenisers = KINDS
    packs = True
    scores = (*OF_TWO_CLASSES, *OF_SCORES)

    @classmethod
    def require(cls, task: Task) -> None:
        metrics_for(task.evaluation.metrics, task.backbone.outputs)

    @classmethod
    def make(cls, settings: Settings, data: Corpus, tokens: Tokeniser) -> Classification:
        made = cls(data, tokens, settings.length, settings.data.held_out, settings.training, settings.evaluation)
        if settings.backbone.outputs != made.outputs:
            raise ConfigError(f"backbone.outputs = {settings.backbone.outputs}: {data.name} has {made.outputs}")
        return made

    def __init__(
        self,
        corpus: Corpus,
        tokens: Tokeniser,
        length: int,
        held_out: float,
        training: TrainingConfig,
        evaluation: EvaluationConfig,
    ) -> None:
        self.tokens, self.length, self.evaluation = tokens, length, evaluation
        self.labels, self.outputs = _labels(corpus)
        self.metrics = metrics_for(evaluation.metrics, self.outputs)
        self.parts = corpus.fields[:-1]
        least = 1 + 2 * len(self.parts)
        if length < least:
            raise ConfigError(f"length = {length}: must be at least {least}: [CLS], and each text with its [SEP]")
        self.texts: dict[str, list[Ragged]] = {}
        for split, rows in corpus.rows.items():
            self.texts[split] = [
                encoded(tokens, f"{split}/{name}", Texts(rows, column), corpus.digest)
                for column, name in enumerate(self.parts)
            ]
        self.splits, said = _splits(corpus, held_out)
        train = np.minimum(self._whole("train"), length)
        if len(train) < training.batch:
            raise DataError(f"{corpus.name}: {len(train)} training rows, and training.batch = {training.batch}")
        self.epochs = Epochs(train, training.batch)
        self.sizes = train[:, None, None]
        names = [name for name in self.splits if name.startswith("test")]
        self.tests = [(name, longer) for name in names for longer in evaluation.lengths(length)]
        self.data = {
            **corpus.describe(),
            "splits": {split: len(rows) for split, (_, rows) in self.splits.items()},
            "choices": said,
            "cut": {split: int((self._whole(split) > length).sum()) for split in self.splits},
        }

    def _whole(self, split: str) -> Ids:
        """(rows,) tokens of each row of a split, were none cut."""
        source, rows = self.splits[split]
        lengths = [text.lengths[rows] for text in self.texts[source]]
        return np.sum(lengths, axis=0) + 1 + len(lengths)

    def row(self, source: str, index: int, length: int) -> Ids:
        """Row `index` of the corpus' split `source` as (L,) tokens, at most `length` of them."""
        texts = [text[index] for text in self.texts[source]]
        kept = shortened([len(text) for text in texts], length - 1 - len(texts))
        parts = [np.append(text[:size], self.tokens.sep) for text, size in zip(texts, kept, strict=True)]
        return np.concatenate([[self.tokens.cls], *parts]).astype(np.int64)

    def _batch(self, split: str, places: Ids, length: int) -> Batch:
        """Tokens (B,L), their mask (B,L) and labels (B,) of the rows at these places of a split."""
        source, rows = self.splits[split]
        tokens, mask = pad([self.row(source, int(index), length) for index in rows[places]], self.tokens.pad)
        return tokens, mask, torch.from_numpy(self.labels[source][rows[places]])

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """Tokens (B,L), mask (B,L) bool, and labels (B,): int64 classes, or float64 scores."""
        if rows != self.epochs.batch:
            raise ValueError(f"{rows} rows a batch, and the epochs were laid out for {self.epochs.batch}")
        return self._batch("train", self.epochs.rows(seed, step), self.length)

    def targets(self, batch: Batch) -> int:
        return len(batch[2])

    def seen(self, batch: Batch) -> int:
        return int(batch[1].sum())

    def pack(self, batch: Batch) -> Batch:
        (packed,) = packing.pack((batch[0], batch[1]), capacity=self.length)
        return *batch, *packed

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        answers, labels = _answers(model, batch), batch[2]
        if self.outputs == 1:
            return functional.mse_loss(answers[:, 0], labels.to(answers.dtype))
        return functional.cross_entropy(answers, labels)

    def _some(self, split: str) -> Ids:
        """The places of the rows that are scored, shortest first: all, or some of at most evaluation.tokens together.

        Which ones depends on the split alone: the same for every model, and at every length.
        """
        whole = np.minimum(self._whole(split), self.length)
        places: Ids = np.arange(len(whole))
        if self.evaluation.tokens:  # not the first ones: some files are sorted by where their texts come from
            places = np.random.default_rng(derive(0, "evaluation", split)).permutation(len(whole))
            places = places[: max(1, int((whole[places].cumsum() <= self.evaluation.tokens).sum()))]
        return places[np.argsort(whole[places], kind="stable")]

    def _batches(self, split: str, length: int) -> Iterator[Batch]:
        places, whole = self._some(split), np.minimum(self._whole(split), length)
        first = 0
        while first < len(places):
            last = first + 1
            while last < len(places) and whole[places[last]] * (last + 1 - first) <= self.evaluation.batch_tokens:
                last += 1  # rows come longest last, and all of a batch are padded to the longest
            yield self._batch(split, places[first:last], length)
            first = last

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        device = next(model.parameters()).device
        given, labels = [], []
        for batch in self._batches(split, length):
            given.append(_answers(model, tuple(tensor.to(device) for tensor in batch)).double().cpu().numpy())
            labels.append(batch[2].numpy())
        answers, truth = np.concatenate(given), np.concatenate(labels)
        values, details = measured(self.metrics, answers, truth)
        if cut := int((self._whole(split)[self._some(split)] > length).sum()):
            details["rows cut"] = cut
        said = answers[:, 0] if self.outputs == 1 else answers.argmax(axis=1)
        back = np.argsort(self._some(split))  # they were scored by length: in the order of the data again
        each = {"answer": said[back], "truth": truth[back]}
        if self.outputs > 1:
            each |= {"accuracy": (each["answer"] == each["truth"]).astype(float), "weight": np.ones(len(truth))}
        return Scored(values, len(truth), details, each)

    def baselines(self) -> dict[str, float]:
        """The main metric on test of one answer to all: the commonest of train (for F1: class 1), or any score."""
        if self.outputs == 1:
            return {"mean of train": 0.0}  # as `measured` has it: a constant tells nothing of the order
        source, rows = self.splits["train"]
        common = int(np.bincount(self.labels[source][rows]).argmax())
        answer, name = (1, "always 1") if self.metrics[0].name == "f1" else (common, "majority")
        truth = np.concatenate([batch[2].numpy() for batch in self._batches("test", self.length)])
        answers = np.tile(np.eye(self.outputs)[answer], (len(truth), 1))
        values, _ = measured(self.metrics[:1], answers, truth)
        return {name: values[self.metrics[0].name]}


def metrics_for(names: Sequence[str], outputs: int) -> tuple[Metric, ...]:
    """The metrics of these names, the main one first.

    Args:
        outputs: how many classes, or 1 for scores.

    Raises:
        ConfigError: none, one twice, or one that such labels do not have.
    """
    kinds = OF_SCORES if outputs == 1 else OF_TWO_CLASSES if outputs == 2 else OF_CLASSES
    allowed = {metric.name: metric for metric in kinds}
    what = "scores" if outputs == 1 else f"{outputs} classes"
    wrong = [name for name in names if name not in allowed]
    if not names or wrong or len(set(names)) < len(names):
        raise ConfigError(
            f"evaluation.metrics = {list(names)}: for {what} must be some of {', '.join(allowed)}, each once"
        )
    return tuple(allowed[name] for name in names)


def measured(
    metrics: Sequence[Metric], answers: Numbers, truth: NDArray[Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics of a model's answers (N,outputs) against labels (N,), and what a reader must know of them."""
    from scipy import stats
    from sklearn import metrics as of_classes

    if not np.isfinite(answers).all():  # argmax and ranks would make numbers even of these
        return {metric.name: math.nan for metric in metrics}, {}
    details: dict[str, Any] = {}
    values: dict[str, float] = {}
    scores, classes = answers[:, 0], answers.argmax(axis=1)
    for name in (metric.name for metric in metrics):
        if name == "accuracy":
            values[name] = float(of_classes.accuracy_score(truth, classes))
        elif name == "f1":
            values[name] = float(of_classes.f1_score(truth, classes, pos_label=1, zero_division=0.0))
        elif name == "matthews":
            values[name] = float(of_classes.matthews_corrcoef(truth, classes))  # 0 where all answers are one
        elif np.ptp(scores) == 0 or np.ptp(truth) == 0:
            # A correlation with a constant is 0/0. It counts as 0: who says the same of all rows has not told which
            # score is higher; and "no number" would be taken for a model that diverged, though this one may yet learn.
            constant = scores if np.ptp(scores) == 0 else truth
            whose = "prediction" if constant is scores else "label"
            details["constant"] = f"every {whose} is {constant[0]:g}: the correlation is undefined, and counts as 0"
            values[name] = 0.0
        else:
            correlation = stats.spearmanr if name == "spearman" else stats.pearsonr
            values[name] = float(correlation(scores, truth).statistic)
    return values, details


def shortened(lengths: Sequence[int], room: int) -> list[int]:
    """How much of each text is kept, so that all of them fit: the longer one loses first, the second of two as long."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    first, second = lengths
    over = max(0, first + second - room)
    longer = min(over, abs(first - second))  # what the longer one loses alone; then both by turns
    turns = over - longer
    first -= turns // 2 + (longer if first > second else 0)
    second -= turns - turns // 2 + (longer if lengths[1] > lengths[0] else 0)
    return [first, second]


def _answers(model: Transformer, batch: Batch) -> Tensor:
    """What the model says of tokens (B,L) with mask (B,L), packed or not: (B,outputs), at least in float32."""
    tokens, mask, _, *packed = batch
    answers = model.summarise(packing.hidden(model, tokens, mask, packed), mask)
    return answers if answers.dtype == torch.float64 else answers.float()


def _labels(corpus: Corpus) -> tuple[dict[str, NDArray[Any]], int]:
    """Labels (rows,) by split, and how many classes there are, or 1 for scores."""
    given = {split: [row[-1] for row in rows] for split, rows in corpus.rows.items()}
    kinds = {type(label) for labels in given.values() for label in labels}
    if kinds == {float}:
        return {split: np.array(labels, dtype=np.float64) for split, labels in given.items()}, 1
    classes = sorted(set(given["train"])) if kinds == {int} else []
    if len(classes) < 2 or classes != list(range(len(classes))):
        raise DataError(f"{corpus.name}: labels of {', '.join(sorted(kind.__name__ for kind in kinds))}: must be scores"
                        " (float) or at least two classes (int), counted from 0")  # fmt: skip
    for split, labels in given.items():
        if unknown := set(labels) - set(classes):
            raise DataError(f"{corpus.name}: its {split} split has the class {min(unknown)}, which training has not")
    return {split: np.array(labels, dtype=np.int64) for split, labels in given.items()}, len(classes)


def _splits(corpus: Corpus, held_out: float) -> tuple[dict[str, tuple[str, Ids]], str]:
    """For each split the corpus' split that it is taken from and which rows of it; and in words how choices are made.

    Raises:
        ConfigError: held_out is no share. DataError: it leaves one side empty, or there is no validation split.
    """
    everything = {split: (split, np.arange(len(rows))) for split, rows in corpus.rows.items()}
    if "validation" not in corpus.rows:
        raise DataError(f"{corpus.name}: it has no validation split")
    if "test" in corpus.rows:
        return everything, "choices are made on the corpus' validation split, and its test split is scored once"
    if not 0 < held_out < 1:
        raise ConfigError(f"data.held_out = {held_out}: must be more than 0 and less than 1")
    shares = np.array([_place(row) for row in corpus.rows["train"]])
    held = shares < held_out
    sides: dict[str, Ids] = {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}
    for name, rows in sides.items():
        if not len(rows):
            raise DataError(f"{corpus.name}: with data.held_out = {held_out} no row is left for {name}")
    splits: dict[str, tuple[str, Ids]] = {name: ("train", rows) for name, rows in sides.items()}
    for split, (_, rows) in everything.items():
        if split.startswith("validation"):
            splits[split.replace("validation", "test")] = (split, rows)
    said = (
        f"choices are made on {held_out:.3g} of the training rows, by a hash of their texts, which are not trained on;"
        " the corpus' validation split is scored once, as test"
    )
    return splits, said


def _place(row: Row) -> float:
    """From 0 to 1, by the texts of a row alone: not by case, spaces, their order or the label.

    So rows that differ in nothing more never stand on both sides, and no seed or other row has a say.
    """
    texts = sorted(" ".join(str(text).lower().split()) for text in row[:-1])
    return int(sha256("\n".join(texts).encode()).hexdigest()[:13], 16) / 16**13
