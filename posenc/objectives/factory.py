"""A cell's objective, made from its configuration and its data."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from posenc.checked import validate
from posenc.config import DataConfig, EvaluationConfig, TrainingConfig
from posenc.data import sources
from posenc.data.corpus import Corpus
from posenc.data.text import ByteText
from posenc.data.tokens import Kind, Tokeniser, tokeniser
from posenc.errors import ConfigError, DataError
from posenc.objectives import Objective
from posenc.objectives.causal_lm import CausalLM
from posenc.objectives.classification import Classification
from posenc.objectives.masked_lm import MaskedLM
from posenc.objectives.matching import Matching
from posenc.objectives.theory import Theory
from posenc.objectives.translation import Translation

NO_SOURCE = "none"
COLUMNS: dict[str, list[tuple[str, ...]]] = {
    "masked_lm": [("text",)],
    "translation": [("source", "target")],
    "classification": [("first", "second", "label"), ("first", "label")],
    "matching": [("a", "b", "c", "label")],
}
"""The columns that each objective can learn from; causal_lm learns from a text of bytes, theory from nothing."""


def data(config: DataConfig, objective: str, folder: Path | None) -> tuple[ByteText | Corpus | None, str]:
    """A task's data, of the form that its objective wants, and a digest of all that is read for it.

    Raises:
        DataError: missing or damaged. ConfigError: they are of another form.
    """
    if (config.source == NO_SOURCE) != (objective == "theory"):
        raise ConfigError(f"data.source = {config.source!r}: objective {objective!r} cannot learn from it")
    if config.source == NO_SOURCE:
        return None, NO_SOURCE
    found = sources.load(config.source, folder)
    if isinstance(found, ByteText) != (objective == "causal_lm"):
        raise ConfigError(f"data.source = {config.source!r}: objective {objective!r} cannot learn from it")
    if isinstance(found, ByteText):
        return found, found.digest
    if found.fields not in COLUMNS[objective]:
        columns = " or ".join("/".join(names) for names in COLUMNS[objective])
        raise ConfigError(
            f"data.source = {config.source!r} has {'/'.join(found.fields)}; objective {objective!r} wants {columns}"
        )
    if config.released or not config.vocabulary_of:
        return found, found.digest
    vocabulary = sources.load(config.vocabulary_of, folder)
    if isinstance(vocabulary, ByteText):
        raise ConfigError(f"data.vocabulary_of = {config.vocabulary_of!r}: it has no rows of text")
    return found, sha256(f"{found.digest} {vocabulary.digest}".encode()).hexdigest()


def make(config: dict[str, Any], folder: Path | None) -> Objective:
    """The objective of a cell.

    Raises:
        DataError: the data are not those that the plan was made for.
    """
    source = validate(DataConfig, {k: v for k, v in config["data"].items() if k != "digest"}, {}, "cell")
    found, digest = data(source, config["objective"], folder)
    if found is None:
        return Theory(config["length"], config["seed"])
    if digest != config["data"]["digest"]:
        raise DataError(f"{found.name} has changed since the plan was made: run the suite again")
    training = validate(TrainingConfig, config["training"], {}, "cell")
    evaluation = validate(EvaluationConfig, config["evaluation"], {}, "cell")
    length = config["length"]
    if isinstance(found, ByteText):
        return CausalLM(found, source.splits, length, evaluation)
    tokens = tokens_of(source, config["backbone"]["vocabulary"], folder)
    if config["objective"] == "translation":
        return Translation(found, tokens, length, training, evaluation)
    if config["objective"] == "classification":
        objective = Classification(found, tokens, length, source.held_out, training, evaluation)
        outputs = config["backbone"]["outputs"]
        if outputs != objective.outputs:
            raise ConfigError(f"backbone.outputs = {outputs}: {found.name} has {objective.outputs}")
        return objective
    if config["objective"] == "matching":
        return Matching(found, tokens, length, training, evaluation)
    return MaskedLM(found, tokens, length, training, evaluation)


@lru_cache(maxsize=2)
def tokens_of(source: DataConfig, vocabulary: int, folder: Path | None) -> Tokeniser:
    """The tokeniser that a task names, trained on the training rows of its own or another source."""
    corpus = sources.load(source.vocabulary_of or source.source, folder)
    assert isinstance(corpus, Corpus)
    columns = [index for index, name in enumerate(corpus.fields) if name != "label"]
    texts = [str(row[index]) for row in corpus.rows["train"] for index in columns]
    kind = Kind(source.tokeniser, vocabulary, source.released, source.revision)
    found = tokeniser(kind, texts, corpus.digest, folder)
    if found.size > vocabulary:
        raise ConfigError(f"backbone.vocabulary = {vocabulary}: the tokeniser has {found.size} tokens")
    return found
