"""A cell's objective, made from its configuration and its data."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from posenc.api.objective import Objective
from posenc.common.errors import ConfigError, DataError
from posenc.config.data import NO_SOURCE, DataConfig
from posenc.config.objectives import objective as objective_named
from posenc.config.settings import Settings
from posenc.data import own_files, sources
from posenc.data.corpus import Corpus, Texts
from posenc.data.pictures import Pictures
from posenc.data.sequences.source import Sequences
from posenc.data.sources import Data
from posenc.data.text import ByteText
from posenc.data.tokens import Kind, Tokeniser, tokeniser

FORMS: dict[str, type[Data]] = {"symbols": Sequences, "bytes": ByteText, "patches": Pictures}
"""What data are whose tokens are no words of a text; all others are a Corpus."""


def data(
    config: DataConfig, objective: str, folder: Path | None, beside: Path | None = None
) -> tuple[Data | None, str]:
    """A task's data, of the form that its objective reads, and a digest of all that is read for it.

    Args:
        folder: where official files lie (--data). beside: where the task's TOML lies.

    Raises:
        DataError: missing or damaged. ConfigError: they are of another form.
    """
    kind = objective_named(objective)
    if (config.source == NO_SOURCE) == kind.reads:
        raise ConfigError(f"data.source = {config.source!r}: objective {objective!r} cannot learn from it")
    if config.source == NO_SOURCE:
        return None, NO_SOURCE
    if config.own:
        found: Data = own_files.load(config, kind.columns, folder, beside)
    else:
        found = sources.load(config.source, folder, config.options)
    needs = FORMS.get(config.tokeniser, Corpus)
    if not isinstance(found, needs):
        raise ConfigError(f"data.source = {config.source!r}: objective {objective!r} cannot learn from it")
    if not isinstance(found, Corpus):
        return found, found.digest
    if found.fields not in kind.columns:
        columns = " or ".join("/".join(names) for names in kind.columns)
        raise ConfigError(
            f"data.source = {config.source!r} has {'/'.join(found.fields)}; objective {objective!r} wants {columns}"
        )
    if config.released or not config.vocabulary_of:
        return found, found.digest
    vocabulary = sources.load(config.vocabulary_of, folder)
    if not isinstance(vocabulary, Corpus):
        raise ConfigError(f"data.vocabulary_of = {config.vocabulary_of!r}: it has no rows of text")
    return found, sha256(f"{found.digest} {vocabulary.digest}".encode()).hexdigest()


def make(settings: Settings, folder: Path | None, beside: Path | None = None) -> Objective:
    """The objective of a cell; folders as `data` has them.

    Raises:
        DataError: the data are not those that the plan was made for.
    """
    found, digest = data(settings.data, settings.objective, folder, beside)
    if found is not None and digest != settings.data.digest:
        raise DataError(f"{found.name} has changed since the plan was made: run the suite again")
    tokens = None
    if isinstance(found, Corpus):
        tokens = tokens_of(settings.data, settings.backbone.vocabulary, folder, found)
    return of(settings, found, tokens)


def of(settings: Settings, found: Data | None, tokens: Tokeniser | None) -> Objective:
    """The objective of a cell, of data and a tokeniser that are given."""
    return objective_named(settings.objective).make(settings, found, tokens)


def tokens_of(source: DataConfig, vocabulary: int, folder: Path | None, own: Corpus) -> Tokeniser:
    """The tokeniser that a task names, trained on the training rows of its own corpus or of another source."""
    corpus = sources.load(source.vocabulary_of, folder) if source.vocabulary_of else own
    if not isinstance(corpus, Corpus):
        raise ConfigError(f"data.vocabulary_of = {source.vocabulary_of!r}: it has no rows of text")
    columns = [index for index, name in enumerate(corpus.fields) if name != "label"]
    texts = Texts(corpus.rows["train"], *columns)
    kind = Kind(source.tokeniser, vocabulary, source.released, source.revision)
    found = tokeniser(kind, texts, corpus.digest, folder)
    if found.size > vocabulary:
        raise ConfigError(f"backbone.vocabulary = {vocabulary}: the tokeniser has {found.size} tokens")
    return found
