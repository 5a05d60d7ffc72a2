"""To be written."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from posenc.backbone.transformer import Transformer
from posenc.objectives import Batch, Metric, Objective, Scored


class Translation(Objective):
    metrics = (Metric("x", "x", "lower"),)

    def __init__(self, *given: Any) -> None:
        raise NotImplementedError

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        raise NotImplementedError

    def targets(self, batch: Batch) -> int:
        raise NotImplementedError

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        raise NotImplementedError

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        raise NotImplementedError
