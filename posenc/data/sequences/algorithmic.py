"""The plain algorithmic tasks of Kazemnejad et al. 2023 (arXiv:2305.19466), by their code's definitions.

Their rows are text in T5's tokens; here a symbol is a token. (McGill-NLP/length-generalization d06170e,
scripts/dataset_builders.)
"""

from __future__ import annotations

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import Answered, Generator


class Copy(Generator):
    """The row again, symbol by symbol (their `copy_multi_char`: each symbol drawn evenly from 100).

    Args:
        kinds: of symbols.
    """

    name = "copy"

    def __init__(self, kinds: int = 100) -> None:
        self.symbols = self.classes = _at_least(2, kinds)

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        rows = random.integers(self.classes, size=(count, size))
        return Answered(rows, rows.copy())


class Reverse(Copy):
    """The row from its end to its start (their `multi_char`: each symbol drawn evenly from 100)."""

    name = "reverse"

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        rows = random.integers(self.classes, size=(count, size))
        return Answered(rows, rows[:, ::-1].copy())


class Sorting(Copy):
    """The row's symbols in their order (their `single_digit`: each symbol drawn evenly from 50).

    Args:
        kinds: of symbols, whose order is that of their numbers.
    """

    name = "sorting"

    def __init__(self, kinds: int = 50) -> None:
        super().__init__(kinds)

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        rows = random.integers(self.classes, size=(count, size))
        return Answered(rows, np.sort(rows, axis=1))


class Count(Generator):
    """How many symbols the row has, modulo 10: one class (their `multi_char` and `modular`: symbols drawn from 26).

    Args:
        kinds: of symbols. modulus: of the count.
    """

    name = "count"

    def __init__(self, kinds: int = 26, modulus: int = 10) -> None:
        self.symbols, self.classes = _at_least(1, kinds), _at_least(2, modulus, "modulus")
        self.beyond = self.classes

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        rows = random.integers(self.vocabulary, size=(count, size))
        return Answered(rows, np.full((count, 1), size % self.classes))


class Addition(Generator):
    """The sum of two decimal numbers, the highest digit first: `12+34` is answered with `046`.

    Both have as many digits, the first of them not 0 unless it is the only one, and the answer has one digit more, with
    a 0 before it where there is no carry: so all rows of a size have one shape. (Theirs draw the two numbers' digits
    apart, and have no 0 before the sum.) A size is 2 d + 1 for numbers of d digits. The answer's first digit is 0 or 1:
    over short rows guessing scores more than the 1/10 that is given as chance.
    """

    name = "addition"
    symbols = (*"0123456789", "+")
    classes = 10

    def sizes(self, longest: int) -> list[int]:
        return list(range(3, longest + 1, 2))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        digits = size // 2
        numbers = random.integers(10, size=(count, 2, digits))
        if digits > 1:
            numbers[:, :, 0] = random.integers(1, 10, size=(count, 2))
        answers, carry = np.empty((count, digits + 1), dtype=np.int64), np.zeros(count, dtype=np.int64)
        for place in reversed(range(digits)):
            carry, answers[:, place + 1] = np.divmod(numbers[:, :, place].sum(1) + carry, 10)
        answers[:, 0] = carry
        sign = np.full((count, 1), self.symbols.index("+"))
        return Answered(np.concatenate([numbers[:, 0], sign, numbers[:, 1]], axis=1), answers)


def _at_least(least: int, given: int, name: str = "kinds") -> int:
    if given < least:
        raise ConfigError(f"{name} = {given}: must be at least {least}")
    return given
