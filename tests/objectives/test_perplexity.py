"""Language models over tokens: perplexity by token, word and byte, worked out again from the text itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError
from posenc.config.task import EvaluationConfig, task_at
from posenc.data.corpus import Corpus, assemble
from posenc.data.text import ByteText
from posenc.data.tokens import Kind, Tokeniser, tokeniser
from posenc.objectives.causal_lm import CausalLM, metrics_for
from posenc.objectives.units import byte_of_character, units_of
from posenc.report.statistics.resampling import resampled

DOCUMENTS = [f"The cat  sees\tdog {index}.\nZwölf Männer, naïve {index % 7} \u2028 漢字!" for index in range(120)]
LENGTH = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSENC_CACHE", str(tmp_path_factory.mktemp("cache")))
        rows = [(text,) for text in DOCUMENTS]
        yield assemble("toy", ("text",), {"train": rows, "validation": rows[:30], "test": rows[30:70]})


@pytest.fixture(scope="module")
def tokens(corpus: Corpus) -> Tokeniser:
    return tokeniser(Kind("bpe", 330), DOCUMENTS, "perplexity", None)


def model_of(size: int) -> Transformer:
    config = BackboneConfig(vocabulary=size, layers=1, width=16, heads=2, feedforward=16)
    return Transformer(config, "rope", LENGTH).double().initialise(1).eval()


def nats_of(model: Transformer, stream: np.ndarray, length: int) -> float:
    """The whole loss of a stream, window by window."""
    total = 0.0
    for first in range(0, (len(stream) - 1) // (2 * LENGTH) * (2 * LENGTH), length):
        window = torch.from_numpy(stream[first : first + length + 1].astype(np.int64))[None]
        with torch.no_grad():
            scored = model(window[:, :-1]).log_softmax(-1)
        total -= float(scored.gather(-1, window[:, 1:, None]).sum())
    return total


@pytest.mark.parametrize("length", [LENGTH, 2 * LENGTH])
def test_perplexities_are_those_of_the_text(corpus: Corpus, tokens: Tokeniser, length: int) -> None:
    made = CausalLM(corpus, (0.9, 0.05, 0.05), LENGTH, EvaluationConfig(length_factors=[1, 2], batch_tokens=50), tokens)
    model = model_of(tokens.size)
    found = made.score(model, "test", length)
    stream = made.splits["test"]
    usable = (len(stream) - 1) // (2 * LENGTH) * (2 * LENGTH)
    nats = nats_of(model, stream, length)
    said = [int(token) for token in stream[1 : usable + 1]]
    # The text again from its tokens: documents between marks; of the first its first token is only read.
    cuts = [-1, *(place for place, token in enumerate(said) if token == tokens.sep), len(said)]
    parts = [tokens.decode(said[a + 1 : b]) for a, b in pairwise(cuts)]
    assert parts[0].startswith(" "), "the first token, which is only read, is a word of its own"
    words = sum(len(part.encode().split()) for part in parts)
    size = sum(len(part.encode()) for part in parts)
    assert found.items == usable
    assert found.values["perplexity"] == pytest.approx(math.exp(nats / usable), rel=1e-6)
    assert found.values["word_perplexity"] == pytest.approx(math.exp(nats / words), rel=1e-6)
    assert found.values["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)
    assert found.details == {"words": words, "bytes": size}
    for metric in made.metrics:  # and the report makes them from the items again
        values = resampled(metric, [found.each])
        assert values is not None
        assert values.mean() == pytest.approx(found.values[metric.name], rel=0.2)


def test_bytes_have_perplexity_too_and_the_same_bits_as_ever() -> None:
    raw = np.frombuffer("\n".join(DOCUMENTS).encode() * 3, dtype=np.uint8)
    text, model = ByteText("toy", raw, "0" * 64), model_of(256)
    plain = CausalLM(text, (0.8, 0.1, 0.1), LENGTH, EvaluationConfig()).score(model, "test", LENGTH)
    names = ["perplexity", "word_perplexity", "bits_per_character"]
    full = CausalLM(text, (0.8, 0.1, 0.1), LENGTH, EvaluationConfig(metrics=names)).score(model, "test", LENGTH)
    assert full.values["bits_per_character"] == plain.values["bits_per_character"]
    assert full.values["perplexity"] == pytest.approx(2 ** plain.values["bits_per_character"])
    assert set(plain.each) == {"bits_per_character", "weight"}
    assert full.details["bytes"] == full.items


def test_the_unigram_baseline_is_in_the_main_metric(corpus: Corpus, tokens: Tokeniser) -> None:
    made = CausalLM(corpus, (0.9, 0.05, 0.05), LENGTH, EvaluationConfig(), tokens)
    counts = np.bincount(made.splits["train"], minlength=tokens.size) + 1.0
    stream = made.splits["test"]
    usable = (len(stream) - 1) // LENGTH * LENGTH
    nats = -np.log(counts / counts.sum())[stream[1 : usable + 1]].mean()
    assert made.baselines() == {"unigram": pytest.approx(math.exp(nats))}


def test_a_byte_stands_behind_each_character_of_the_vocabulary(tokens: Tokeniser) -> None:
    spelt = byte_of_character()
    assert sorted(spelt.values()) == list(range(256))
    units = units_of(tokens)
    for text in DOCUMENTS[:20]:
        (ids,) = tokens.encode([text])
        assert units.bytes[ids].sum() == len(text.encode())
        row = np.array([[tokens.sep, *ids]])
        assert units.counts(row)["words"].tolist() == [len(text.encode().split())]


def test_a_text_of_spaces_has_no_word_and_says_so(tmp_path: Path) -> None:
    text = ByteText("blank", np.full(4000, 32, dtype=np.uint8), "0" * 64)
    made = CausalLM(text, (0.8, 0.1, 0.1), LENGTH, EvaluationConfig(metrics=["perplexity", "word_perplexity"]))
    found = made.score(model_of(256), "test", LENGTH)
    assert found.why == {"word_perplexity": "no words in what is scored"}
    assert set(found.values) == {"perplexity"}


def test_metrics_that_such_tokens_do_not_have_are_refused() -> None:
    assert [metric.name for metric in metrics_for([], True)] == ["bits_per_character"]
    for names, of_bytes in ((["bits_per_byte"], True), (["bits_per_character"], False), (["perplexity"] * 2, True)):
        with pytest.raises(ConfigError, match=r"evaluation.metrics = .* allowed are"):
            metrics_for(names, of_bytes)
    with pytest.raises(ConfigError, match=r"here: evaluation.metrics = \['bits_per_byte'\]: for bytes"):
        task_at("enwik8", "smoke", {"evaluation.metrics": (["bits_per_byte"], "here")})
    with pytest.raises(ConfigError, match="objective 'masked_lm' leaves no choice"):
        task_at("mlm", "smoke", {"evaluation.metrics": (["perplexity"], "here")})
