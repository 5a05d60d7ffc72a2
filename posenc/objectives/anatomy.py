"""What the heads of a causal language model do with position: measured on its test text, nothing is learnt."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from posenc.api.objective import Scored
from posenc.backbone.transformer import Transformer
from posenc.objectives.causal_lm import CausalLM
from posenc.objectives.measuring import ANATOMY, Measuring, anatomy
from posenc.objectives.windows import separate


class OfCausalLM(Measuring, CausalLM):
    """The windows of the test, side by side, as causal language modelling has them; see `measuring.anatomy`."""

    name = "anatomy"
    scores = ()

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.metrics = ANATOMY
        self.tests = [("anatomy", length) for _, length in self.tests]

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        (side_by_side,) = separate(self.targets_of("test"), length)
        batches = side_by_side.batches(self.splits["test"], self.evaluation.batch_tokens)
        windows = torch.from_numpy(np.concatenate(list(batches)))
        return anatomy(model, windows[:, :-1], windows[:, 1:])
