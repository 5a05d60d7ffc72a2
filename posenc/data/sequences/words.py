"""Word problems over finite groups: what is the product so far?"""

from __future__ import annotations

import re
from itertools import permutations

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import Generator, Labelled, Symbols


class WordProblem(Generator):
    """A row of a group's elements; at each place, which element is the product of all up to it?

    Merrill, Petty and Sabharwal 2024 (The illusion of state in state-space models, arXiv:2404.08819). Over A5 and S5,
    which are not solvable, the problem is complete for NC1: a transformer of fixed depth can't solve it for
    every length, if TC0 is less than NC1. Over a cyclic group one needs but to add.

    Elements are drawn evenly. Of permutations they are numbered in the lexicographic order of (p(1), ..., p(n)), the
    identity first (of A5: the even ones in that order); the product so far is multiplied from the right by the next
    element, and (p q)(i) = p(q(i)), as in the group library of the authors' code. Element i of the cyclic group Zn is
    i, the product a sum modulo n. The authors' rows are all different; here they are drawn independently.

    Args:
        group: S, A or Z with a number: S5 (120 elements), A5 (60), Z60. Permutations of at most 5 things.
    """

    name = "word_problem"

    def __init__(self, group: str = "A5") -> None:
        kind, of = _parsed(group)
        if kind == "Z":
            self.symbols: tuple[str, ...] = tuple(str(element) for element in range(of))
            self._table = np.add.outer(np.arange(of), np.arange(of)) % of
        else:
            elements = _permutations(of, even=kind == "A")
            self.symbols = tuple("".join(str(image + 1) for image in element) for element in elements)
            self._table = _products(elements)
        self.classes = len(self.symbols)

    def draw(self, random: np.random.Generator, size: int, count: int) -> Labelled:
        symbols = random.integers(0, self.classes, (count, size))
        targets = symbols.copy()
        for place in range(1, size):
            targets[:, place] = self._table[targets[:, place - 1], symbols[:, place]]
        return Labelled(symbols, targets)


def _parsed(group: str) -> tuple[str, int]:
    """A group's letter and number."""
    match = re.fullmatch(r"([SAZ])([1-9][0-9]{0,3})", group)
    if match is None or (match[1] != "Z" and not 3 <= int(match[2]) <= 5) or int(match[2]) == 1:
        raise ConfigError(f"group = {group!r}: allowed are S3, S4, S5, A3, A4, A5, and Z2 to Z9999 (word_problem)")
    return match[1], int(match[2])


def _permutations(of: int, *, even: bool) -> list[tuple[int, ...]]:
    """The images of 0, 1, ... under each permutation, in lexicographic order."""

    def inversions(images: tuple[int, ...]) -> int:
        return sum(images[i] > images[j] for j in range(of) for i in range(j))

    return [images for images in permutations(range(of)) if not even or inversions(images) % 2 == 0]


def _products(elements: list[tuple[int, ...]]) -> Symbols:
    """The number of p q, for p by row and q by column: q is applied first."""
    number = {images: index for index, images in enumerate(elements)}
    return np.array([[number[tuple(p[image] for image in q)] for q in elements] for p in elements], np.int64)
