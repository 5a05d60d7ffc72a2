"""The regular tasks of Chomsky's hierarchy: parity, even pairs, navigation on a cycle, arithmetic without brackets.

Deletang et al. 2022 (arXiv:2207.02098) give the definitions, Ruoss et al. 2023 (arXiv:2305.16843) the symbols kept
here, and the rule by which rows of one length are drawn.
"""

from __future__ import annotations

import numpy as np

from posenc.data.sequences.generator import Answered, Generator, Symbols

MODULUS = 5


class ParityCheck(Generator):
    """Is the number of ones odd? Bits are drawn evenly; the answer is one class, 0 (even) or 1 (odd)."""

    name = "parity_check"
    symbols = ("0", "1")
    classes = 2

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        bits = random.integers(0, 2, (count, size))
        return Answered(bits, bits.sum(1, keepdims=True) % 2)


class EvenPairs(Generator):
    """Is the number of neighbours that differ (01 and 10) odd? Bits are drawn evenly.

    It is odd where the first bit differs from the last: the one thing that is asked is what stands at the two ends.
    """

    name = "even_pairs"
    symbols = ("0", "1")
    classes = 2

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        bits = random.integers(0, 2, (count, size))
        return Answered(bits, (bits[:, :1] != bits[:, -1:]).astype(np.int64))


class CycleNavigation(Generator):
    """Where does a walk on a cycle of 5 places end? Steps are drawn evenly from back (0), stay (1), on (2).

    The walk starts at place 0; the answer is the sum of (symbol - 1) modulo 5. Order does not matter.
    """

    name = "cycle_navigation"
    symbols = ("back", "stay", "on")
    classes = MODULUS

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        steps = random.integers(0, 3, (count, size))
        return Answered(steps, (steps - 1).sum(1, keepdims=True) % MODULUS)


class ModularArithmetic(Generator):
    """The value modulo 5 of a sum, difference and product of digits; multiplication binds first.

    Digits stand at every other place, operators between them; both are drawn evenly. Lengths are odd: a length that is
    even is taken as one less in the authors' code, so that each odd length is as frequent there as here.
    """

    name = "modular_arithmetic"
    symbols = ("0", "1", "2", "3", "4", "+", "-", "*")
    classes = MODULUS

    def sizes(self, longest: int) -> list[int]:
        return list(range(1, longest + 1, 2))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        symbols = np.empty((count, size), np.int64)
        symbols[:, ::2] = random.integers(0, MODULUS, (count, size // 2 + 1))
        symbols[:, 1::2] = MODULUS + random.integers(0, 3, (count, size // 2))
        return Answered(symbols, _value(symbols)[:, None])


def _value(symbols: Symbols) -> Symbols:
    """The value (N,) of expressions (N, n) without brackets: products are closed as soon as a sum goes on."""
    plus, minus, times = MODULUS, MODULUS + 1, MODULUS + 2
    total = np.zeros(len(symbols), np.int64)
    term = symbols[:, 0]
    for place in range(1, symbols.shape[1], 2):
        operator, digit = symbols[:, place], symbols[:, place + 1]
        product = operator == times
        total = np.where(product, total, total + term) % MODULUS
        term = np.select([product, operator == plus, operator == minus], [term * digit % MODULUS, digit, -digit])
    return (total + term) % MODULUS
