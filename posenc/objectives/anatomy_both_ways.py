"""What the heads of a masked language model do with position: measured on its test text, nothing is learnt."""

from __future__ import annotations

from typing import Any

import torch

from posenc.api.objective import Scored
from posenc.backbone.transformer import Transformer
from posenc.objectives.masked_lm import MaskedLM
from posenc.objectives.measuring import ANATOMY, Measuring, anatomy


class OfMaskedLM(Measuring, MaskedLM):
    """The windows of the test with the tokens hidden that the test hides; the loss is of these alone."""

    name = "anatomy_both_ways"
    metrics = ANATOMY

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.tests = [("anatomy", length) for _, length in self.tests]

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        shown, hidden, true = (torch.cat(parts) for parts in zip(*self.windows("test", length), strict=True))
        return anatomy(model, shown, torch.where(hidden, true, -1))
