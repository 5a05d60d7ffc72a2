"""A model that posenc trained, in lm-evaluation-harness: the extra `posenc[lm-eval]`.

    model = PosencLM("results/quick", "enwik8/softmax/rope/L64/s0")
    found = evaluate(model, ["my_task"], include=Path("my_tasks"))["results"]

Causal language models alone. Rows are no longer than the trained length, or than `length` says. Scores follow the
harness: a continuation's log-probability given what stands before it, and whole texts in windows side by side, of which
the last is filled up with context. Where two choices score the same, the harness takes the first: a model that tells
nothing apart scores what the first choice does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval.api.registry import register_model
from torch import Tensor

from posenc.common.errors import ConfigError, NotPossibleError
from posenc.harness.model import HarnessLM
from posenc.harness.run import evaluate
from posenc.trained import Trained, load

__all__ = ["PosencLM", "evaluate"]


@register_model("posenc")
class PosencLM(HarnessLM):
    """A causal language model of posenc, as the harness asks it.

    Args:
        results: a model, the folder of a suite's results, or a folder that `posenc export` wrote.
        cell: the cell's name or id, of a suite's results.
        length: tokens of the longest row that it reads; by default the trained length.
        given: what the harness hands every model (batch_size, device): batches are those of the cell's own
            evaluation, on the CPU.

    Raises:
        NotPossibleError: it is no causal language model, or its encoding ends before `length`.
        StoreError: there is no such model.
    """

    def __init__(
        self, results: Trained | str | Path, cell: str | None = None, *, length: int | None = None, **given: Any
    ) -> None:
        if unknown := set(given) - {"batch_size", "max_batch_size", "device"}:
            raise ConfigError(f"PosencLM: unknown {', '.join(sorted(unknown))}: known: results, cell, length")
        self.trained = results if isinstance(results, Trained) else load(results, cell)
        settings = self.trained.settings
        if settings.objective != "causal_lm":
            raise NotPossibleError(
                f"not possible: lm-evaluation-harness asks how likely text is after text, and {self.trained.cell.name}"
                f" is a model of objective {settings.objective!r}, not 'causal_lm'"
            )
        window, name = settings.length if length is None else int(length), self.trained.cell.name
        super().__init__(
            self.trained.model, self.trained.tokeniser, window, settings.evaluation.batch_tokens, name
        )  # fmt: skip

    def logits(self, tokens: Tensor) -> Tensor:
        with self.trained.computing():
            return super().logits(tokens)
