"""How many bytes and words stand in tokens: by which language models over other tokens are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posenc.data.tokens import SPECIAL, Tokeniser

SPACE = b" \t\n\r\x0b\x0c"
"""What separates words."""


@dataclass(frozen=True)
class Units:
    """For each token of a vocabulary (V,) what it adds to a text.

    Attributes:
        bytes: how many it has. inside: words that begin in it after a space of its own.
        begins: whether it begins with a word's character. ends: whether a word that follows it begins anew, since it
            ends with a space, or a document.
    """

    bytes: NDArray[np.int64]
    inside: NDArray[np.int64]
    begins: NDArray[np.bool_]
    ends: NDArray[np.bool_]

    def counts(self, windows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Bytes and words (B,) of all but the first token of windows (B, L + 1): a word counts where it begins."""
        before, tokens = windows[:, :-1], windows[:, 1:]
        words = self.inside[tokens] + (self.begins[tokens] & self.ends[before])
        return {"bytes": self.bytes[tokens].sum(1).astype(float), "words": words.sum(1).astype(float)}


def units_of(tokens: Tokeniser | None, ends_are_words: bool = False) -> Units:
    """Those of a byte-level tokeniser, or of bytes themselves.

    Args:
        ends_are_words: whether [SEP], which ends a row, is a word.
    """
    if tokens is None:
        return _units([bytes([value]) for value in range(256)])
    spelt = byte_of_character()
    texts = [b""] * tokens.size
    for token, place in tokens.tokenizer.get_vocab().items():
        if token not in SPECIAL:
            texts[place] = bytes(spelt[character] for character in token)
    units = _units(texts)
    if ends_are_words:
        units.inside[tokens.sep] = 1
    return units


def _units(texts: list[bytes]) -> Units:
    """Special tokens are empty: they have no bytes, and a word that follows begins anew."""
    return Units(
        np.array([len(text) for text in texts], dtype=np.int64),
        np.array([sum(a in SPACE and b not in SPACE for a, b in pairwise(text)) for text in texts], dtype=np.int64),
        np.array([bool(text) and text[0] not in SPACE for text in texts]),
        np.array([not text or text[-1] in SPACE for text in texts]),
    )


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (Radford et al. 2019, their encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [value for value in range(256) if value not in shown]
    return {chr(value): value for value in shown} | {chr(256 + place): value for place, value in enumerate(others)}
