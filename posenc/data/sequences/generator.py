"""What a generator of synthetic sequences is: rows of one size, drawn from a seed, with what is asked of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.int64]
UNASKED = -1
"""As a target: nothing is asked at this place."""


class Answered(NamedTuple):
    """Rows that are read whole before they are answered: symbols (N, n), answers (N, m).

    How the two stand in a model's row is a matter of its form. An encoder reads the symbols and m places to fill
    (Ruoss et al. 2023). A decoder reads symbols, a sign that the answer begins, and the answer but its last symbol.
    """

    symbols: Symbols
    answers: Symbols


class Labelled(NamedTuple):
    """Rows that are answered as they are read: symbols and targets (N, T), where UNASKED says that nothing is asked."""

    symbols: Symbols
    targets: Symbols


class Generator(ABC):
    """A synthetic task, by the definition of its paper.

    The class's docstring gives the paper and the definition. Options are the keywords of `__init__`: a task's TOML
    sets them in `data.options`.

    Attributes:
        name: as a task's TOML writes it after "sequences/".
        symbols: what stands for the integers 0, 1, ... in a row, in words: for people, and its length is how many
            there are. A size alone may be given where they have no names.
        classes: how many answers there are: targets are 0 ... classes - 1.
        chance: what guessing scores at a place that is asked, where it is not 1 / classes.
        causal: whether a row shows its answers further on, so that only a decoder may read it.
        beyond: how many of the largest sizes a test beyond the trained length has: more than one where the size of a
            row decides its answer, which would else be the same in all rows.
        tests: test sets beside the one like training: names to the options that each changes.
    """

    name: ClassVar[str]
    symbols: tuple[str, ...] | int
    classes: int
    chance: float | None = None
    causal: ClassVar[bool] = False
    beyond: int = 1
    tests: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})

    @property
    def vocabulary(self) -> int:
        """How many symbols there are."""
        return self.symbols if isinstance(self.symbols, int) else len(self.symbols)

    def sizes(self, longest: int) -> list[int]:
        """The sizes up to `longest` that rows may have, rising; all from 1 on where nothing else is said.

        A size is the number of symbols (N, n) that are read, the answer's places not counted.
        """
        return list(range(1, longest + 1))

    @abstractmethod
    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered | Labelled:
        """`count` rows of a size, drawn by the paper's rule. The same for the same state of `random`, everywhere."""


def distinct(random: np.random.Generator, kinds: int, drawn: int, count: int) -> Symbols:
    """`drawn` different integers of 0 ... kinds - 1 in each of `count` rows (count, drawn), all orders equally likely.

    The first steps of the shuffle of Fisher and Yates, each for all rows at once: integers alone, so that no sum of
    floating-point numbers decides.
    """
    rows = np.arange(count)
    deck = np.tile(np.arange(kinds), (count, 1))
    for place in range(drawn):
        other = random.integers(place, kinds, count)
        deck[rows, other], deck[rows, place] = deck[rows, place], deck[rows, other]
    return deck[:, :drawn].copy()
