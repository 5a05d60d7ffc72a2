"""The context-sensitive tasks of Chomsky's hierarchy: strings said twice, sorting, and numbers in binary.

Deletang et al. 2022 (arXiv:2207.02098) give the definitions, Ruoss et al. 2023 (arXiv:2305.16843) the symbols kept
here, and the rule by which rows of one length are drawn.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from posenc.data.sequences.generator import Answered, Generator, Symbols


class DuplicateString(Generator):
    """Bits, drawn evenly, twice over."""

    name = "duplicate_string"
    symbols = ("0", "1")
    classes = 2

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        bits = random.integers(0, 2, (count, size))
        return Answered(bits, np.concatenate([bits, bits], 1))


class MissingDuplicateString(Generator):
    """Which bit is missing? A string of bits stands twice, and a hole (2) in place of one of them.

    Bits and the hole's place are drawn evenly; a row of odd length ends with padding (3). The answer is one class.
    Lengths from 2 on: the authors' row of one symbol is always 1, with the answer 1. All bits but the missing one stand
    in pairs: a model that could tell whether the number of ones is odd would need no order.
    """

    name = "missing_duplicate_string"
    symbols = ("0", "1", "hole", "padding")
    classes = 2

    def sizes(self, longest: int) -> list[int]:
        return list(range(2, longest + 1))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        half = size // 2
        bits = random.integers(0, 2, (count, half))
        symbols = np.concatenate([bits, bits, np.full((count, size % 2), 3)], 1)
        hole = random.integers(0, 2 * half, (count, 1))
        answers = np.take_along_axis(symbols, hole, 1)
        np.put_along_axis(symbols, hole, 2, 1)
        return Answered(symbols, answers)


class OddsFirst(Generator):
    """Bits, drawn evenly: first those at places 1, 3, 5 ..., counted from 0, then those at 0, 2, 4 ..."""

    name = "odds_first"
    symbols = ("0", "1")
    classes = 2

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        bits = random.integers(0, 2, (count, size))
        return Answered(bits, np.concatenate([bits[:, 1::2], bits[:, ::2]], 1))


class BucketSort(Generator):
    """Digits from 0 to 4, drawn evenly, in rising order."""

    name = "bucket_sort"
    symbols = ("0", "1", "2", "3", "4")
    classes = 5

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        digits = random.integers(0, 5, (count, size))
        return Answered(digits, np.sort(digits, 1))


class ComputeSqrt(Generator):
    """The root of a number, rounded down. Both are in binary, the highest bit first.

    The number is drawn evenly from 1 to 2^length - 1, so that it may begin with zeros. The answer has half as many
    bits, rounded up, and may begin with zeros too.
    """

    name = "compute_sqrt"
    symbols = ("0", "1")
    classes = 2
    chance = 0.55
    """The share of the more frequent bit of an answer at lengths 1 to 40, which is 1: roots of evenly drawn numbers are
    more often large."""

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        bits = _positive(random, np.full((count, 1), size), size)
        roots = _bits([math.isqrt(number) for number in _numbers(bits)], (size + 1) // 2)
        return Answered(bits[:, ::-1].copy(), roots[:, ::-1].copy())


class _Binary(Generator):
    """Two numbers in binary, the lowest bit first, with a sign (2) between them.

    The first number's width is drawn evenly from 1 to the length less 2, the second's is what is left, and each number
    evenly from 1 to the largest of its width, so that it may end with zeros. Lengths from 3 on: the authors' shorter
    rows hold no sign.
    """

    symbols = ("0", "1", "sign")
    classes = 3
    longer: ClassVar[int]
    """By how much the answer is longer than the row."""

    @staticmethod
    @abstractmethod
    def result(first: int, second: int) -> int:
        """What is made of the two numbers; not 0."""

    def sizes(self, longest: int) -> list[int]:
        return list(range(3, longest + 1))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        width = random.integers(1, size - 1, (count, 1))
        first, second = _positive(random, width, size), _positive(random, size - 1 - width, size)
        places = np.arange(size)
        moved = np.take_along_axis(second, (places - width - 1) % size, 1)
        symbols = np.where(places < width, first, np.where(places == width, 2, moved))
        results = [self.result(a, b) for a, b in zip(_numbers(first), _numbers(second), strict=True)]
        answers = _bits(results, size + self.longer)
        # No result is 0: its highest bit is a 1, and the sign that it ends stands behind.
        end = np.array([result.bit_length() for result in results], np.int64)[:, None]
        np.put_along_axis(answers, end, 2, 1)
        return Answered(symbols, answers)


class BinaryAddition(_Binary):
    """The sum of two numbers in binary, the lowest bit first, with a sign (2) between them.

    The first number's width is drawn evenly from 1 to the length less 2, the second's is what is left, and each number
    evenly from 1 to the largest of its width, so that it may end with zeros. The answer is one longer than the row: the
    sum, the sign 2 that it ends, zeros. Places after the sign are asked here; the authors learn them too, and leave
    them out of the accuracy. Lengths from 3 on: the authors' shorter rows hold one number and no sign.
    """

    name = "binary_addition"
    longer = 1
    chance = 0.61
    """The share of zeros among the answers at lengths 3 to 40."""

    @staticmethod
    def result(first: int, second: int) -> int:
        return first + second


class BinaryMultiplication(_Binary):
    """The product of two numbers in binary, the lowest bit first, with a sign (2) between them.

    Drawn as for addition. The answer is as long as the row: the product, the sign 2 that it ends, zeros. Places after
    the sign are asked here; the authors learn them too, and leave them out of the accuracy. Lengths from 3 on: the
    authors' shorter rows hold one number and no sign, and their answer is 0.
    """

    name = "binary_multiplication"
    longer = 0
    chance = 0.515
    """The share of zeros among the answers at lengths 3 to 40."""

    @staticmethod
    def result(first: int, second: int) -> int:
        return first * second


def _positive(random: np.random.Generator, width: Symbols, size: int) -> Symbols:
    """Numbers drawn evenly from 1 to 2^width - 1 (N, 1), as bits, the lowest first, then zeros (N, size)."""
    inside = np.arange(size) < width
    bits = random.integers(0, 2, inside.shape) * inside
    while len(zero := np.flatnonzero(~bits.any(1))):
        bits[zero] = random.integers(0, 2, (len(zero), size)) * inside[zero]
    return bits


def _numbers(bits: Symbols) -> list[int]:
    """The numbers of rows of bits (N, n), the lowest first. Of any width: Python's integers have no largest."""
    packed = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _bits(numbers: Iterable[int], width: int) -> Symbols:
    """Numbers as rows of bits (N, width), the lowest first."""
    wide = (width + 7) // 8
    packed = np.frombuffer(b"".join(number.to_bytes(wide, "little") for number in numbers), np.uint8)
    return np.unpackbits(packed.reshape(-1, wide), axis=1, count=width, bitorder="little").astype(np.int64)
