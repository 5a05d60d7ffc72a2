"""Causal language modelling of bytes: predict the next byte; scored in bits per character."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.backbone.transformer import Transformer
from posenc.config import EvaluationConfig
from posenc.data.text import Bytes, ByteText
from posenc.errors import DataError
from posenc.objectives import Batch, Metric, Objective, Scored
from posenc.seeds import derive


class CausalLM(Objective):
    """Windows of a byte text.

    Training windows start anywhere; which ones a step sees depends on the seed and the step alone. Evaluation windows
    stand side by side without overlap, so a byte is predicted from what stands before it in its own window: the
    same bytes are scored at every length. (A sliding window would hide an encoding's failure beyond its length.)

    Args:
        text: train, validation and test by bytes.
        length: of training windows, in bytes.
        factors: evaluation lengths as multiples of it.
    """

    metrics = (Metric("bits_per_character", "bits per character", "lower"),)

    def __init__(
        self, text: ByteText, splits: tuple[float, float, float], length: int, evaluation: EvaluationConfig
    ) -> None:
        self.splits = text.split(splits)
        self.length, self.evaluation = length, evaluation
        self.data = text.describe()
        self.tests = [("test", longer) for longer in self.lengths]
        longest = length * max(evaluation.length_factors)
        for name, content in self.splits.items():
            if len(content) <= longest:
                raise DataError(
                    f"{text.name}: its {name} split has {len(content):,} bytes,"
                    f" and length {longest:,} needs more than that"
                )

    @property
    def lengths(self) -> list[int]:
        """Evaluation lengths, in tokens."""
        return [self.length * factor for factor in self.evaluation.length_factors]

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """(rows, length + 1) bytes of a step: inputs and, one further, targets."""
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
        sums: list[NDArray[np.float64]] = []  # nats of each window
        for batch in self.windows(split, length):
            batch = batch.to(device)
            logits = model(batch[:, :-1])
            losses = functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten(), reduction="none")
            sums.append(losses.double().view(len(batch), length).sum(1).cpu().numpy())
        bits = np.concatenate(sums) / math.log(2)
        each = {"bits_per_character": bits, "weight": np.full(len(bits), length)}
        return Scored({"bits_per_character": float(bits.sum()) / (length * len(bits))}, length * len(bits), each=each)

    def baselines(self) -> dict[str, float]:
        """Guessing each byte by its share of the training split."""
        counts = np.bincount(self.splits["train"], minlength=256) + 1.0
        bits = -np.log2(counts / counts.sum())
        scored = [batch[:, 1:].numpy().ravel() for batch in self.windows("test", max(self.lengths))]
        return {"unigram": float(bits[np.concatenate(scored)].mean())}


def _tensor(content: Bytes) -> Tensor:
    return torch.from_numpy(content.astype(np.int64))
