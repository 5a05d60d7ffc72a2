"""Subword tokenisers, by the library `tokenizers`: trained on a task's own text, or as their authors released them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posenc.common import telemetry
from posenc.common.errors import ConfigError, DataError, MissingDataError
from posenc.data.cache import Ragged, Writer, built, cached

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""In this order, from 0 on, in every vocabulary trained here. [CLS] also begins and [SEP] ends a translation."""
KINDS = ("bpe", "wordpiece", "characters", "words")
PART = 500_000  # characters that are tokenised at once
CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")
"""What BERT's normaliser takes for a Chinese character, and puts spaces around."""


@dataclass(frozen=True)
class Kind:
    """Which tokeniser.

    Attributes:
        kind: bpe (byte-level, joint over all the texts it is trained on); wordpiece (BERT's, lower-cased); or, for
            Chinese, characters (BERT's too: every Chinese character a token of its own) or words (WoBERT's and
            RoFormer's: the words of jieba that the vocabulary has, and the characters of those that it has not).
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

    def __init__(self, tokenizer: Tokenizer, words: bool = False) -> None:
        self.tokenizer = tokenizer
        self.words = {word for word in tokenizer.get_vocab() if _is_word(word)} if words else None
        self.key = sha256(f"{words} {tokenizer.to_str()}".encode()).hexdigest()
        self.size: int = tokenizer.get_vocab_size()
        self.pad, self.unknown, self.cls, self.sep, self.mask = (self._id(token) for token in SPECIAL)

    def _id(self, token: str) -> int:
        found: int | None = self.tokenizer.token_to_id(token)
        if found is None:
            raise DataError(f"the tokeniser has no {token}")
        return found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens."""
        if self.words is not None:
            texts = [spaced(text, self.words) for text in texts]
        return [found.ids for found in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return str(self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True))


def tokeniser(kind: Kind, texts: Iterable[str], digest: str, folder: Path | None) -> Tokeniser:
    """The tokeniser of a kind: released, or trained once on `texts` (whose digest is given) and kept.

    They are read several times, and never held all at once.

    Raises:
        ConfigError: an unknown kind. DataError: a released one cannot be had.
    """
    from tokenizers import Tokenizer

    if kind.kind not in KINDS:
        raise ConfigError(f"data.tokeniser = {kind.kind!r}: must be {' or '.join(KINDS)}")
    if kind.released:
        return _released(kind, folder)
    made = cached(
        "tokeniser",
        [asdict(kind), digest, 2],  # 1: WordPiece's ids were another in every process
        lambda: {"json": np.frombuffer(_train(kind, texts).encode(), dtype=np.uint8)},
    )
    return _load(Tokenizer, bytes(made["json"]).decode(), kind.kind == "words")


def trial(kind: Kind, texts: Sequence[str], folder: Path | None) -> Tokeniser:
    """A tokeniser of a kind, trained on a few texts and not kept: it tells about how many tokens they have."""
    from tokenizers import Tokenizer

    return _released(kind, folder) if kind.released else _load(Tokenizer, _train(kind, texts), kind.kind == "words")


@lru_cache(maxsize=4)
def _load(factory: type[Tokenizer], written: str, words: bool) -> Tokeniser:
    return Tokeniser(factory.from_str(written), words)


def _is_word(token: str) -> bool:
    return len(token) > 1 and all(map(CHINESE.match, token))


def spaced(text: str, known: Collection[str]) -> str:
    """A Chinese text with spaces between its words; characters stand alone in a word that is not `known`.

    Words are those of jieba's dictionary, without its guesses at others, as Hugging Face's RoFormer has them; by
    rjieba, the same in Rust, which is kept up (jieba itself has had no release since 2020).
    """
    import rjieba

    return " ".join([word if word in known else _apart(word) for word in rjieba.cut(text, False)])


@lru_cache(maxsize=1 << 16)
def _apart(word: str) -> str:
    """A word with spaces around each Chinese character: most words of a text come many times."""
    return CHINESE.sub(r" \g<0> ", word)


def _train(kind: Kind, texts: Iterable[str]) -> str:
    if kind.kind == "bpe":
        return _bpe(kind.vocabulary, texts)
    if kind.kind != "words":
        return _wordpiece(kind.vocabulary, texts)
    # As WoBERT's was made: characters and pieces first, then the commonest words.
    pieces = json.loads(_wordpiece(kind.vocabulary // 2, texts))["model"]["vocab"]
    return _of_words(pieces, _commonest(texts, kind.vocabulary - len(pieces)))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in parts of about as many characters."""
    part: list[str] = []
    size = 0
    for text in texts:
        part.append(text)
        size += len(text)
        if size > PART:
            yield part
            part, size = [], 0
    if part:
        yield part


def _bpe(vocabulary: int, texts: Iterable[str]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    return str(tokenizer.to_str())


def _wordpiece(vocabulary: int, texts: Iterable[str]) -> str:
    """BERT's WordPiece. The same texts give the same ids in every process.

    The library's trainer gives characters inside words (##a) ids in the order of a hash table, another in every
    process, and with them another order of merges as common as each other. So they are told to it, in their order.
    """
    alphabet = _alphabet(texts, max(1, vocabulary * 4 // 5))
    first = _trained(vocabulary, texts, alphabet, [])
    inside = sorted(piece for piece in first if piece.startswith("##") and len(piece) == 3)
    pieces = _trained(vocabulary, texts, alphabet, inside)
    tokenizer = _bert(pieces)
    tokenizer.add_special_tokens(list(SPECIAL))
    return str(tokenizer.to_str())


def _alphabet(texts: Iterable[str], limit: int) -> list[str]:
    """The commonest characters: Chinese has more of them than a small vocabulary has room."""
    normalizer, found = _bert({}).normalizer, Counter[str]()
    for text in texts:
        found.update(normalizer.normalize_str(text))
    ranked = sorted((-number, character) for character, number in found.items() if not character.isspace())
    return sorted(character for _, character in ranked[:limit])


def _trained(vocabulary: int, texts: Iterable[str], alphabet: Sequence[str], inside: Sequence[str]) -> dict[str, int]:
    """The pieces that the library's trainer finds, `inside` first behind the special tokens."""
    from tokenizers import trainers

    tokenizer = _bert({})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        initial_alphabet=list(alphabet),
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIAL, *inside],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_batches(texts), trainer)
    return dict(tokenizer.get_vocab())


def _bert(vocabulary: dict[str, int], chinese: bool = True) -> Tokenizer:
    """BERT's way from text to pieces; `chinese` puts spaces around Chinese characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=chinese)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _of_words(pieces: Mapping[str, int], words: Sequence[str]) -> str:
    """A tokeniser of these pieces, with words after them, for text that `spaced` has been through."""
    vocabulary = {**pieces, **{word: len(pieces) + place for place, word in enumerate(words)}}
    tokenizer = _bert(vocabulary, chinese=False)
    tokenizer.add_special_tokens([token for token in SPECIAL if token in vocabulary])
    return str(tokenizer.to_str())


def _commonest(texts: Iterable[str], count: int) -> list[str]:
    """The words of several Chinese characters that stand in texts most often, at least twice; ties by themselves."""
    import rjieba

    found: Counter[str] = Counter()
    for text in texts:
        found.update(word for word in rjieba.cut(text, False) if _is_word(word))
    ranked = sorted((-number, word) for word, number in found.items() if number > 1)
    return [word for _, word in ranked[:count]]


@lru_cache(maxsize=4)
def _released(kind: Kind, folder: Path | None) -> Tokeniser:
    """The released tokeniser: of DIR/<name>, else the hub's, by one attempt.

    Words come from vocab.txt, since no file holds what jieba does; all others from tokenizer.json.
    """
    name, file = kind.released.rsplit("/", 1)[-1], "vocab.txt" if kind.kind == "words" else "tokenizer.json"
    path = folder / name / file if folder else None
    if path and path.is_file():
        return _read(path, kind)
    telemetry.off()
    try:
        from huggingface_hub import HfApi, hf_hub_download

        HfApi().model_info(kind.released, revision=kind.revision or None, timeout=10)
        found = hf_hub_download(kind.released, file, revision=kind.revision or None)
    except Exception as error:  # the library raises its own, its transport's and the system's errors
        first = str(error).splitlines()[0] if str(error) else "no message"
        looked = f"not found at {path}" if path else "no --data DIR was given"
        raise MissingDataError(
            f"the tokeniser of {kind.released}: {looked}, and the hub's cannot be had"
            f" ({type(error).__name__}: {first}): put its {file} at DIR/{name}/{file}"
        ) from None
    return _read(Path(found), kind)


def _read(path: Path, kind: Kind) -> Tokeniser:
    """A released tokeniser's file.

    Raises:
        DataError: it is damaged.
    """
    from tokenizers import Tokenizer

    try:
        if kind.kind != "words":
            return Tokeniser(Tokenizer.from_file(str(path)))
        lines = path.read_text(encoding="utf-8").split("\n")
    except Exception as error:  # the library raises Exception itself
        raise DataError(f"{path} is damaged: {error}") from None
    pieces = {piece.removesuffix("\r"): place for place, piece in enumerate(lines[:-1] if not lines[-1] else lines)}
    return Tokeniser(Tokenizer.from_str(_of_words(pieces, [])), words=True)


def encoded(tokens: Tokeniser, name: str, texts: Iterable[str], digest: str) -> Ragged:
    """The ids of texts, tokenised once and kept.

    Args:
        digest: of the data that the texts are a part of; `name` says which part.
    """

    def build(writer: Writer) -> dict[str, object]:
        values, offsets = writer.stream("values", _dtype(tokens)), writer.stream("offsets", np.int64)
        offsets.append([0])
        total = 0
        for part in _batches(texts):
            rows = Ragged.of(tokens.encode(part))
            values.append(rows.values)
            offsets.append(rows.offsets[1:] + total)
            total += int(rows.offsets[-1])
        return {}

    made = built("tokens", [tokens.key, name, digest], build)
    return Ragged(made["values"], made["offsets"])


def running(tokens: Tokeniser, name: str, texts: Iterable[str], digest: str) -> NDArray[np.generic]:
    """As `encoded`, of all texts as one stream (N,) with [SEP] after each."""

    def build(writer: Writer) -> dict[str, object]:
        values = writer.stream("values", _dtype(tokens))
        for part in _batches(texts):
            for row in tokens.encode(part):
                values.append([*row, tokens.sep])
        return {}

    return built("running", [tokens.key, name, digest], build)["values"]


def _dtype(tokens: Tokeniser) -> type[np.uint16 | np.int32]:
    return np.uint16 if tokens.size <= 1 << 16 else np.int32


def counts(stream: NDArray[np.generic], size: int) -> NDArray[np.int64]:
    """(size,) how often each id stands in a stream; `np.bincount` of all of it at once would copy it."""
    found = np.zeros(size, dtype=np.int64)
    for first in range(0, len(stream), PART):
        found += np.bincount(stream[first : first + PART], minlength=size)
    return found
