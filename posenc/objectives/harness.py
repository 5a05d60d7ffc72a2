"""What lm-evaluation-harness finds of a trained causal language model; nothing is learnt."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np

from posenc.api.metric import Metric
from posenc.api.objective import Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError
from posenc.config.settings import Settings
from posenc.config.task import SCRATCH, Task
from posenc.data.corpus import Corpus
from posenc.data.tokens import Tokeniser
from posenc.objectives.measuring import Measuring
from posenc.objectives.metrics import ACCURACY, ACCURACY_NORM, BITS_PER_BYTE, WORD_PERPLEXITY, exp

CHOICES = {"acc": ACCURACY, "acc_norm": ACCURACY_NORM}
"""The harness's metrics of a choice among answers, and ours."""
TEXTS = (WORD_PERPLEXITY, BITS_PER_BYTE)


class Harness(Measuring):
    """The harness's own tasks (`posenc.harness`) on documents that lie here, of the model of `start`.

    Each document is an item. Choices: whether the likeliest answer is the right one, by its log-probability
    ("accuracy"), and by that over its characters ("accuracy_norm"); of two that are as likely the first is taken.
    Texts: their log-probability, in windows of the length that is scored. Prompts that are longer than the window lose
    their beginning.

    Args:
        corpus: rows of the split "test". length: of the longest window, in tokens.
    """

    name = "harness"
    form = "decoder"
    columns = (("task", "document"),)
    tokenisers = ("bpe",)

    @classmethod
    def require(cls, task: Task) -> None:
        if task.start == SCRATCH:
            raise ConfigError(
                f"start = {SCRATCH!r}: objective {cls.name!r} measures a trained model, and must name one"
            )
        if not (task.data.vocabulary_of or task.data.released):
            raise ConfigError(
                "data.vocabulary_of: must say on whose text the tokeniser of the measured model is trained"
            )

    @classmethod
    def require_data(cls, data: Corpus, task: Task, length: int) -> None:
        if find_spec("lm_eval") is None:
            raise ConfigError(
                f"objective {cls.name!r}: lm-evaluation-harness is not installed: pip install 'posenc[lm-eval]'"
            )

    @classmethod
    def make(cls, settings: Settings, data: Corpus, tokens: Tokeniser) -> Harness:
        return cls(data, tokens, settings)

    def __init__(self, corpus: Corpus, tokens: Tokeniser, settings: Settings) -> None:
        self.rows = [(str(task), str(document)) for task, document in corpus.rows["test"]]
        self.tokens, self.length, self.evaluation = tokens, settings.length, settings.evaluation
        self.data = corpus.describe()
        self.tests = [("test", length) for length in self.evaluation.lengths(settings.length)]
        self.metrics = self._metrics()

    def _metrics(self) -> tuple[Metric, ...]:
        """Those that the first row's definition has: all rows of a source have the same."""
        (sample,) = self._samples(self._uniform(), self.rows[:1])
        return tuple(metric for name, metric in CHOICES.items() if name in sample) or TEXTS

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        from posenc.harness.model import HarnessLM

        asked = HarnessLM(model, self.tokens, length, self.evaluation.batch_tokens)
        return self._scored(self._samples(asked, self.rows))

    def _samples(self, model: Any, rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
        from posenc.harness.run import samples

        return samples(model, rows)

    def _uniform(self) -> Any:
        from posenc.harness.model import Uniform

        return Uniform(self.tokens, self.length, self.evaluation.batch_tokens)

    def _scored(self, found: list[dict[str, Any]]) -> Scored:
        each: dict[str, Any] = {}
        if self.metrics == TEXTS:
            nats, words = np.array([sample["word_perplexity"] for sample in found]).T
            size = np.array([sample["byte_perplexity"][1] for sample in found])
            each = {"nats": -nats, "bits": -nats / math.log(2), "words": words, "bytes": size}
            values = {
                WORD_PERPLEXITY.name: exp(float(-nats.sum() / words.sum())),
                BITS_PER_BYTE.name: float(each["bits"].sum() / size.sum()),
            }
            return Scored(values, len(found), {"words": int(words.sum()), "bytes": int(size.sum())}, each)
        for name, metric in CHOICES.items():
            if metric in self.metrics:
                each[metric.name] = np.array([float(sample[name]) for sample in found])
        each["weight"] = np.ones(len(found))
        return Scored({metric.name: float(each[metric.name].mean()) for metric in self.metrics}, len(found), {}, each)

    def baselines(self) -> dict[str, float]:
        """Of choices what a guess among them is right in, of texts the perplexity where all tokens are as likely."""
        found = self._samples(self._uniform(), self.rows)
        if self.metrics == TEXTS:
            return {"uniform": self._scored(found).values[WORD_PERPLEXITY.name]}
        return {"chance": float(np.mean([1 / len(sample["resps"]) for sample in found]))}
