"""Translation by an encoder-decoder: label-smoothed training, beam search, sacreBLEU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.metric import Metric
from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.decode import translate
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.config.settings import Settings
from posenc.config.task import EvaluationConfig, TrainingConfig
from posenc.data.corpus import Corpus, Texts
from posenc.data.tokens import KINDS, Tokeniser, encoded
from posenc.objectives import packing
from posenc.objectives.epochs import Epochs, pad
from posenc.objectives.metrics import BLEU, TARGET_LOSS
from posenc.objectives.packing import Packed, where

SIDES = ("source", "target")
LONGER = (2, 10)
"""A translation may have so many times its source's tokens, and so many more; and never more than the length."""

Ids = NDArray[np.int64]


class Translation(Objective):
    """Pairs of sentences. The encoder reads the source and [SEP]; the decoder reads [CLS] and the target, and says the
    target and [SEP].

    Pairs with a side longer than `length` are left out of training and counted. Of validation and test nothing is left
    out: what is too long for an encoding's table is cut, and counted. Batches hold rows of like lengths.

    Args:
        corpus: its columns are source and target. length: the most tokens of a side, its mark included.

    Raises:
        ConfigError: an evaluation that leaves sentences out. DataError: no pair is short enough.
    """

    name = "translation"
    form = "encoder-decoder"
    columns = (SIDES,)
    tokenisers = KINDS
    packs = True
    sides = 2
    metrics = (BLEU, TARGET_LOSS)

    @classmethod
    def make(cls, settings: Settings, data: Corpus, tokens: Tokeniser) -> Translation:
        return cls(data, tokens, settings.length, settings.training, settings.evaluation)

    def __init__(
        self,
        corpus: Corpus,
        tokens: Tokeniser,
        length: int,
        training: TrainingConfig,
        evaluation: EvaluationConfig,
    ) -> None:
        if evaluation.tokens or evaluation.length_factors != [1]:
            raise ConfigError("evaluation: translation scores whole sentences: tokens = 0, length_factors = [1]")
        self.tokens, self.length, self.evaluation = tokens, length, evaluation
        self.smoothing = training.label_smoothing
        self.texts = corpus.rows
        self.tokens_of = {
            split: tuple(
                encoded(tokens, f"{split}/{side}", Texts(rows, index), corpus.digest)
                for index, side in enumerate(SIDES)
            )
            for split, rows in self.texts.items()
        }
        source, target = (side.lengths + 1 for side in self.tokens_of["train"])
        self.rows: Ids = np.flatnonzero((source <= length) & (target <= length))
        if len(self.rows) < training.batch:
            raise DataError(
                f"{corpus.name}: {len(self.rows):,} training pairs have at most {length} tokens a side,"
                f" and training.batch = {training.batch} needs that many"
            )
        self.epochs = Epochs(np.maximum(source, target)[self.rows], training.batch)
        self.sizes = np.stack((source, target), axis=1)[self.rows, None]
        too_long = len(source) - len(self.rows)
        self.data = {**corpus.describe(), "left_out_of_training": too_long}
        if too_long:
            said = f"{too_long:,} of {len(source):,} training pairs are longer than {length} tokens and left out"
            self.data["note"] = f"{self.data['note']} {said}.".strip()
        self.tests = [("test", length)]

    @property
    def choice(self) -> Metric:
        """Validation chooses by loss: a beam search each time would take longer than the training."""
        return self.metrics[1]

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """Source (B,S) and its mask, decoder input (B,L), its mask, and the tokens to say (B,L)."""
        return self._batch("train", self.rows[self.epochs.rows(seed, step)])

    def _batch(self, split: str, rows: Sequence[int] | Ids) -> Batch:
        source, source_mask = pad([self._source(split, int(row)) for row in rows], self.tokens.pad)
        said = [np.append(self.tokens_of[split][1][int(row)][: self.length - 1], self.tokens.sep) for row in rows]
        targets, mask = pad(said, self.tokens.pad)
        read = torch.cat((torch.full((len(said), 1), self.tokens.cls), targets[:, :-1]), dim=1)
        return source, source_mask, read, mask, targets

    def _source(self, split: str, row: int) -> Ids:
        return np.append(self.tokens_of[split][0][row][: self.length - 1], self.tokens.sep).astype(np.int64)

    def targets(self, batch: Batch) -> int:
        return int(batch[3].sum())

    def seen(self, batch: Batch) -> int:
        return int(batch[1].sum() + batch[3].sum())

    def pack(self, batch: Batch) -> Batch:
        source, target = packing.pack((batch[0], batch[1]), (batch[2], batch[3]), capacity=self.length)
        return *batch, *source, *target

    def indexed(self, batch: Batch) -> Batch:
        """The same, and which places of the flattened targets are real (N,)."""
        return *batch, where(batch[3])

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        """The label-smoothed loss (Szegedy et al. 2016, section 7) over real target tokens."""
        logits, true = _guesses(model, batch)
        return functional.cross_entropy(logits, true, label_smoothing=self.smoothing)

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        """The loss without smoothing; on test also BLEU of the whole split."""
        each: dict[str, NDArray[Any]] = {name: np.zeros(len(self.texts[split])) for name in ("weight", "target_loss")}
        for rows in self._batches(split, 1):
            batch = self.indexed(self._batch(split, rows))
            logits, true = _guesses(model, tuple(tensor.to(_device(model)) for tensor in batch))
            losses = functional.cross_entropy(logits, true, reduction="none").double().cpu().numpy()
            places = rows[batch[3].nonzero()[:, 0].numpy()]  # of each target, the sentence that it stands in
            np.add.at(each["weight"], places, 1.0)
            np.add.at(each["target_loss"], places, losses)
        items = int(each["weight"].sum())
        loss = {"target_loss": float(each["target_loss"].sum()) / items}
        if split == "validation":
            return Scored(loss, items)
        translations = self.translations(model, split)
        each |= {"translation": np.array(translations), "reference": np.array(list(Texts(self.texts[split], 1)))}
        bleu, details = self.bleu(translations, split)
        cut = [int((side.lengths + 1 > self.length).sum()) for side in self.tokens_of[split]]
        details |= {f"{side}s cut to {self.length} tokens": count for side, count in zip(SIDES, cut, strict=True)}
        details["cached"] = self._cached(model)
        return Scored({"bleu": bleu, **loss}, len(self.texts[split]), details, each)

    def _batches(self, split: str, beam: int) -> Iterator[Ids]:
        """Rows of a split, like lengths together, with at most `evaluation.batch_tokens` tokens a side at once."""
        sizes = np.minimum(np.maximum(*(side.lengths for side in self.tokens_of[split])) + 1, self.length)
        order = np.argsort(-sizes, kind="stable")
        first = 0
        while first < len(order):
            rows = max(1, self.evaluation.batch_tokens // (int(sizes[order[first]]) * beam))
            yield order[first : first + rows]
            first += rows

    @torch.no_grad()
    def translations(self, model: Transformer, split: str) -> list[str]:
        """What the model makes of every source of a split."""
        result = [""] * len(self.texts[split])
        special = (self.tokens.pad, self.tokens.unknown, self.tokens.cls, self.tokens.mask)
        for rows in self._batches(split, self.evaluation.beam):
            sources = [self._source(split, int(row)) for row in rows]
            tokens, mask = (tensor.to(_device(model)) for tensor in pad(sources, self.tokens.pad))
            found = translate(
                model,
                tokens,
                mask,
                beam=self.evaluation.beam,
                length_penalty=self.evaluation.length_penalty,
                shortest=self.evaluation.min_tokens,
                limits=[min(self.length, LONGER[0] * len(source) + LONGER[1]) for source in sources],
                begin=self.tokens.cls,
                end=self.tokens.sep,
                banned=special,
                cached=self._cached(model),
            )
            for row, ids in zip(rows, found, strict=True):
                result[row] = self.tokens.decode(ids)
        return result

    def _cached(self, model: Transformer) -> bool:
        """Whether translation keeps keys and values; slower without, and the same."""
        return model.config.attention == "softmax" and all(part.cached_decoding for part in model.encodings())

    def bleu(self, translations: Sequence[str], split: str) -> tuple[float, dict[str, Any]]:
        """Corpus BLEU of translations of a whole split, and sacreBLEU's signature (Post 2018)."""
        from sacrebleu.metrics import BLEU

        metric = BLEU()
        found = metric.corpus_score(list(translations), [list(Texts(self.texts[split], 1))])
        return float(found.score), {"signature": str(metric.get_signature())}

    def baselines(self) -> dict[str, float]:
        return {"copying the source": self.bleu(list(Texts(self.texts["test"], 0)), "test")[0]}


def _device(model: Transformer) -> torch.device:
    return next(model.parameters()).device


def _guesses(model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (N,vocabulary), at least in float32, and true tokens (N,) of the real target places, packed or not."""
    source, source_mask, read, mask, true, *packed = batch
    taken = packed.pop() if len(packed) % 6 else where(mask)
    if packed:
        sources, targets = Packed(*packed[:3]), Packed(*packed[3:])
        memory = model.hidden(sources.tokens, segments=sources.segments)
        hidden = targets.gather(
            model.decode(targets.tokens, memory, segments=targets.segments, memory_segments=sources.segments)
        )
    else:
        memory = model.hidden(source, mask=source_mask)
        hidden = model.decode(read, memory, mask=mask, memory_mask=source_mask)
    logits = model.logits(hidden.flatten(0, 1)[taken])
    return logits if logits.dtype == torch.float64 else logits.float(), true.flatten()[taken]
