"""Subword tokenisers, by the library `tokenizers`: trained on a task's own text, or as their authors released them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import telemetry
from posenc.data.cache import Ragged, cached
from posenc.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In this order, from 0 on, in every vocabulary trained here. [CLS] also begins and [SEP] ends a translation."""
KINDS = ("bpe", "wordpiece")


@dataclass(frozen=True)
class Kind:
    """Which tokeniser.

    Attributes:
        kind: bpe (byte-level, joint over all the texts it is trained on) or wordpiece (BERT's, lower-cased).
        vocabulary: how many tokens it may have.
        released: where a released one lies: the hub's repository, under its name in --data DIR, or on the hub.
        revision: of that repository.
    """

    kind: str
    vocabulary: int
    released: str = ""
    revision: str = ""


class Tokeniser:
    """A trained tokeniser and the ids of its special tokens.

    Attributes:
        key: tells it from every other tokeniser. size: of its vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.key = sha256(str(tokenizer.to_str()).encode()).hexdigest()
        self.size: int = tokenizer.get_vocab_size()
        self.pad, self.unknown, self.cls, self.sep, self.mask = (self._id(token) for token in SPECIAL)

    def _id(self, token: str) -> int:
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise DataError(f"the tokeniser has no {token}")
        return found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        return [found.ids for found in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True))


def tokeniser(kind: Kind, texts: Sequence[str], digest: str, folder: Path | None) -> Tokeniser:
    """The tokeniser of a kind: released, or trained once on `texts` (whose digest is given) and kept.

    Raises:
        ConfigError: an unknown kind. DataError: a released one cannot be had.
    """
    from tokenizers import Tokenizer

    if kind.kind not in KINDS:
        raise ConfigError(f"data.tokeniser = {kind.kind!r}: {' or '.join(KINDS)} is wanted")
    if kind.released:
        return _released(kind, folder)
    made = cached(
        "tokeniser",
        [asdict(kind), digest],
        lambda: {"json": np.frombuffer(_train(kind, texts).encode(), dtype=np.uint8)},
    )
    return _load(Tokenizer, bytes(made["json"]).decode())


@lru_cache(maxsize=4)
def _load(factory: type[Tokenizer], json: str) -> Tokeniser:
    return Tokeniser(factory.from_str(json))


def _train(kind: Kind, texts: Sequence[str]) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if kind.kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=kind.vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(
            vocab_size=kind.vocabulary, special_tokens=list(SPECIAL), show_progress=False
        )

    def batches() -> Iterator[list[str]]:
        for first in range(0, len(texts), 1000):
            yield list(texts[first : first + 1000])

    tokenizer.train_from_iterator(batches(), trainer)
    return str(tokenizer.to_str())


@lru_cache(maxsize=4)
def _released(kind: Kind, folder: Path | None) -> Tokeniser:
    """The released tokeniser: DIR/<name>/tokenizer.json, else the hub's, by one attempt."""
    from tokenizers import Tokenizer

    name = kind.released.rsplit("/", 1)[-1]
    path = folder / name / "tokenizer.json" if folder else None
    if path and path.is_file():
        return Tokeniser(Tokenizer.from_file(str(path)))
    telemetry.off()
    try:
        from huggingface_hub import HfApi, hf_hub_download

        HfApi().model_info(kind.released, revision=kind.revision or None, timeout=10)
        found = hf_hub_download(kind.released, "tokenizer.json", revision=kind.revision or None)
        return Tokeniser(Tokenizer.from_file(found))
    except Exception as error:  # the library raises its own, its transport's and the system's errors
        first = str(error).splitlines()[0] if str(error) else "no message"
        looked = f"not found at {path}" if path else "no --data DIR was given"
        raise DataError(
            f"the tokeniser of {kind.released}: {looked}, and the hub's cannot be had"
            f" ({type(error).__name__}: {first}): put its tokenizer.json at DIR/{name}/tokenizer.json"
        ) from None


def encoded(tokens: Tokeniser, name: str, texts: Sequence[str], digest: str) -> Ragged:
    """The ids of texts, tokenised once and kept.

    Args:
        digest: of the data that the texts are a part of; `name` says which part.
    """
    made_from = [tokens.key, name, digest]

    def make() -> dict[str, np.ndarray]:
        rows: list[list[int]] = []
        for first in range(0, len(texts), 10_000):
            rows += tokens.encode(texts[first : first + 10_000])
        ragged = Ragged.of(rows)
        return {"values": ragged.values, "offsets": ragged.offsets}

    made = cached("tokens", made_from, make)
    return Ragged(made["values"], made["offsets"])
