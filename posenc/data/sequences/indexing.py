"""Indirect indexing: which letter stands so many places from that one?"""

from __future__ import annotations

from string import ascii_letters, digits

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import Answered, Generator, distinct

_LETTERS = ascii_letters + digits
_ASKED = 3
"""Symbols behind the string: a letter of it, the direction, the distance."""


class IndirectIndexing(Generator):
    """A string of different letters, a letter of it, a direction and a distance: which letter stands there?

    Gopalakrishnan et al. 2025 (PoPE: decoupling the "what" and "where" with polar coordinate positional embeddings,
    arXiv:2509.10534): what is looked for is found by content, what is answered lies at a distance from it: three left
    of Z in ABSCOPZG is C. Their ranges stand in an appendix that we had not at hand; these are ours: letters of a to
    z, A to Z and 0 to 9, without repetition; the letter that is named drawn evenly from the string, the one that is
    the answer evenly from those at most `furthest` places from it. The direction is one symbol, the distance another.

    Args:
        letters: how many there are, the first so many of these.
        furthest: the largest distance, from 1 on, less than `letters`.
    """

    name = "indirect_indexing"

    def __init__(self, letters: int = len(_LETTERS), furthest: int = 15) -> None:
        if not 2 <= letters <= len(_LETTERS):
            raise ConfigError(f"letters = {letters}: allowed are 2 to {len(_LETTERS)} (indirect_indexing)")
        if not 1 <= furthest < letters:
            raise ConfigError(f"furthest = {furthest}: allowed are 1 to {letters - 1} (indirect_indexing)")
        self.classes, self._furthest = letters, furthest
        distances = (f"by {by}" for by in range(1, furthest + 1))
        self.symbols: tuple[str, ...] = (*_LETTERS[:letters], "left", "right", *distances)

    def sizes(self, longest: int) -> list[int]:
        return list(range(2 + _ASKED, min(longest, self.classes + _ASKED) + 1))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        length, left = size - _ASKED, self.classes
        string = distinct(random, self.classes, length, count)
        named = random.integers(0, length, (count, 1))
        first = np.maximum(named - self._furthest, 0)
        last = np.minimum(named + self._furthest, length - 1)
        answer = random.integers(first, last)
        answer += answer >= named
        shift = answer - named
        query = [np.take_along_axis(string, named, 1), left + (shift > 0), left + 1 + np.abs(shift)]
        return Answered(np.concatenate([string, *query], 1), np.take_along_axis(string, answer, 1))
