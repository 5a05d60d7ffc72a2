"""What is asked stands somewhere in a long row: a passkey in noise, a number in a phone book, variables in noise.

Words and numbers of the papers' prompts are cut to small vocabularies: a digit, a letter, a word of the noise is a
symbol.
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import Answered, Generator, Symbols, distinct

_DIGITS = tuple("0123456789")
_SENTENCES = ("the grass is green", "the sky is blue", "the sun is yellow", "here we go", "there and back again")
_NOISE = [word for sentence in _SENTENCES for word in (*sentence.split(), ".")]
_WORDS = tuple(dict.fromkeys(_NOISE))
_FREE = -1
"""A place that noise is yet to fill."""


class Passkey(Generator):
    """A key of some digits in noise: which digits?

    Mohtashami and Jaggi 2023 (Landmark attention, arXiv:2305.16300); RULER's single needle in noise (Hsieh et al.
    2024, arXiv:2404.06654). The noise is theirs, "The grass is green. The sky is blue. The sun is yellow. Here we go.
    There and back again.", over and over, a symbol a word and one for the full stop. Somewhere in it, at a place drawn
    evenly (between two words; theirs stands between two sentences), the sign `key` and the digits; at the row's end
    the sign `key?`. Digits are drawn evenly, the first may be 0. Instructions before and after the noise are left out.

    Args:
        digits: how many, 1 to 20.
    """

    name = "passkey"
    symbols = (*_DIGITS, "key", "key?", *_WORDS)
    classes = len(_DIGITS)

    def __init__(self, digits: int = 5) -> None:
        self._digits = _checked("digits", digits, 1, 20, self.name)

    def sizes(self, longest: int) -> list[int]:
        return list(range(self._digits + 3, longest + 1))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        digits = random.integers(0, 10, (count, self._digits))
        needle = np.concatenate([np.full((count, 1), self.symbols.index("key")), digits], 1)
        start = random.integers(0, size - needle.shape[1], (count, 1))
        symbols = np.full((count, size), _FREE)
        np.put_along_axis(symbols, start + np.arange(needle.shape[1]), needle, 1)
        symbols[:, -1] = self.symbols.index("key?")
        _fill(symbols, self.symbols)
        return Answered(symbols, digits)


class PhoneBook(Generator):
    """Names with their numbers, then a name: which number?

    Jelassi et al. 2024 (Repeat after me, arXiv:2402.01032); RULER's needles among needles. A name is two
    letters of a to z, all names of a book different, drawn evenly, as are the digits and the name that is asked. There
    are no signs between: an entry is the name's two letters and its digits, and the row ends with the two letters
    asked.

    Args:
        digits: of a number, 1 to 20.
    """

    name = "phone_book"
    symbols = (*_DIGITS, *ascii_lowercase)
    classes = len(_DIGITS)

    def __init__(self, digits: int = 4) -> None:
        self._digits = _checked("digits", digits, 1, 20, self.name)

    def sizes(self, longest: int) -> list[int]:
        entry = 2 + self._digits
        return list(range(2 * entry + 2, min(longest, len(ascii_lowercase) ** 2 * entry + 2) + 1, entry))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        letters, entries = len(ascii_lowercase), (size - 2) // (2 + self._digits)
        names = distinct(random, letters**2, entries, count)
        spelt = 10 + np.stack([names // letters, names % letters], 2)
        numbers = random.integers(0, 10, (count, entries, self._digits))
        book = np.concatenate([spelt, numbers], 2).reshape(count, -1)
        rows, asked = np.arange(count), random.integers(0, entries, count)
        return Answered(np.concatenate([book, spelt[rows, asked]], 1), numbers[rows, asked])


class VariableTracking(Generator):
    """Chains of assignments in noise, then a value: which variables have it?

    RULER (Hsieh et al. 2024, arXiv:2404.06654), variable tracking: `VAR A = 12345`, `VAR B = VAR A` and so on through
    `hops` assignments. The answer is the chain's variables, in the order in which they stand; RULER asks for all of
    them and counts those found. A variable is one letter of A to Z (theirs: five letters), a value `digits` digits,
    the first no 0, all values and variables of a row different. A row is the noise of the passkey task with the
    statements at places drawn evenly (between words, several at one place allowed; theirs stand between blocks of
    noise), each chain in its order and the chains mixed, and ends with the sign `?` and a value's digits, of the first
    chain as it is drawn.

    RULER's benchmark has one chain, where all variables are the answer and nothing need be tracked; its code takes any
    number, and here there are two.

    Args:
        chains: how many, from 1 on.
        hops: assignments from one variable to the next in a chain, from 1 on. Chains times (hops + 1) variables, at
        most 26. digits: of a value, 1 to 9.
    """

    name = "variable_tracking"
    symbols = (*ascii_uppercase, *_DIGITS, "VAR", "=", "?", *_WORDS)
    classes = len(ascii_uppercase)

    def __init__(self, chains: int = 2, hops: int = 4, digits: int = 5) -> None:
        self._digits = _checked("digits", digits, 1, 9, self.name)
        self._hops = _checked("hops", hops, 1, 25, self.name)
        self._chains = _checked("chains", chains, 1, 26 // (hops + 1), self.name)

    @property
    def _stated(self) -> int:
        """Symbols of all statements."""
        return self._chains * (3 + self._digits + 5 * self._hops)

    def sizes(self, longest: int) -> list[int]:
        return list(range(self._stated + 1 + self._digits, longest + 1))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        links = self._hops + 1
        statements = self._chains * links
        variables = distinct(random, self.classes, statements, count).reshape(count, self._chains, links)
        values = self._values(random, count)
        spelt = len(ascii_uppercase) + values[:, :, None] // 10 ** np.arange(self._digits)[::-1] % 10
        noise = size - 1 - self._digits - self._stated
        before = np.sort(random.integers(0, noise + 1, (count, statements)), 1)
        chains = distinct(random, statements, statements, count) // links
        symbols = np.full((count, size), _FREE)
        rows, said, stated = np.arange(count), np.zeros((count, self._chains), np.int64), np.zeros(count, np.int64)
        for statement in range(statements):
            chain = chains[:, statement]
            link = said[rows, chain]
            this = variables[rows, chain, link]
            head = np.flatnonzero(link == 0)
            hop = np.flatnonzero(link > 0)
            start = before[:, statement] + stated
            self._write(symbols, head, start, this, spelt[head, chain[head]])
            origin = np.stack(
                [np.full(len(hop), self.symbols.index("VAR")), variables[hop, chain[hop], link[hop] - 1]], 1
            )
            self._write(symbols, hop, start, this, origin)
            stated += np.where(link == 0, 3 + self._digits, 5)
            said[rows, chain] += 1
        symbols[:, -1 - self._digits] = self.symbols.index("?")
        symbols[:, -self._digits :] = spelt[:, 0]
        _fill(symbols, self.symbols)
        return Answered(symbols, variables[:, 0].copy())

    def _values(self, random: np.random.Generator, count: int) -> Symbols:
        """A value for each chain (N, chains), different in a row."""
        lowest = 10 ** (self._digits - 1)
        values = random.integers(lowest, 10 * lowest, (count, self._chains))
        while len(alike := np.flatnonzero((np.diff(np.sort(values, 1), axis=1) == 0).any(1))):
            values[alike] = random.integers(lowest, 10 * lowest, (len(alike), self._chains))
        return values

    def _write(self, symbols: Symbols, rows: Symbols, start: Symbols, this: Symbols, origin: Symbols) -> None:
        """Writes `VAR this = origin` into some rows, from their start on."""
        said = [np.full(len(rows), self.symbols.index("VAR")), this[rows], np.full(len(rows), self.symbols.index("="))]
        statement = np.concatenate([np.stack(said, 1), origin], 1)
        symbols[rows[:, None], start[rows, None] + np.arange(statement.shape[1])] = statement


def _fill(symbols: Symbols, names: tuple[str, ...]) -> None:
    """Writes the noise, word after word, over and over, wherever a row is free."""
    free = symbols == _FREE
    noise = np.array([names.index(word) for word in _NOISE])
    symbols[free] = noise[(free.cumsum(1) - 1) % len(noise)][free]


def _checked(option: str, given: int, least: int, most: int, generator: str) -> int:
    """The option's value, within what is allowed."""
    if not least <= given <= most:
        raise ConfigError(f"{option} = {given}: allowed are {least} to {most} ({generator})")
    return given
