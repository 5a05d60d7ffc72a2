"""Dyck's languages: which bracket is open?"""

from __future__ import annotations

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import UNASKED, Generator, Labelled, Symbols

_NAMES = ("()", "[]", "{}", "<>")


class Dyck(Generator):
    """Well-nested brackets of bounded depth; after a closing bracket: of which kind is the innermost open one?

    Dyck-(k, D) of Hewitt et al. 2020 (RNNs can generate bounded hierarchical languages with optimal memory,
    arXiv:2010.07515), asked as Yao et al. 2021 ask it (Self-attention networks can process bounded hierarchical
    languages, arXiv:2105.11115): which bracket would close here. They ask it wherever a closing bracket comes. Behind
    an opening bracket the symbol itself is the answer; here it is asked only behind a closing one, with another still
    open, so that what decides is which bracket is the last whose partner has not come: a matter of order.

    For rows: at depth 0 a bracket opens; at the depth D, or where the places left are as many as the brackets open,
    one closes; else either by a fair coin, and the kind of an opening bracket is drawn evenly. Each row ends closed,
    so that lengths are even, from 4 on; a row with no place that is asked is drawn anew. Kind i opens as symbol 2 i
    and closes as 2 i + 1; it is the answer i.

    Args:
        kinds: how many kinds of brackets, 2 to 4.
        depth: how many may be open at once, at least 2.
    """

    name = "dyck"
    causal = True

    def __init__(self, kinds: int = 2, depth: int = 10) -> None:
        if not 2 <= kinds <= len(_NAMES):
            raise ConfigError(f"kinds = {kinds}: allowed are 2 to {len(_NAMES)} (dyck)")
        if depth < 2:
            raise ConfigError(f"depth = {depth}: must be at least 2 (dyck)")
        self.symbols: tuple[str, ...] = tuple("".join(_NAMES[:kinds]))
        self.classes, self._depth = kinds, depth

    def sizes(self, longest: int) -> list[int]:
        return list(range(4, longest + 1, 2))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Labelled:
        symbols, targets = self._rows(random, size, count)
        while len(empty := np.flatnonzero((targets == UNASKED).all(1))):
            symbols[empty], targets[empty] = self._rows(random, size, len(empty))
        return Labelled(symbols, targets)

    def _rows(self, random: np.random.Generator, size: int, count: int) -> tuple[Symbols, Symbols]:
        """Rows and their targets (N, n), all at one place after another."""
        coins, kinds = random.integers(0, 2, (count, size)), random.integers(0, self.classes, (count, size))
        symbols, targets = np.empty((count, size), np.int64), np.full((count, size), UNASKED)
        rows, open_now = np.arange(count), np.zeros(count, np.int64)
        # Place d holds the kind of the bracket at depth d, counted from 1; place 0 is never asked.
        stack = np.zeros((count, self._depth + 1), np.int64)
        for place in range(size):
            must_close = (open_now == self._depth) | (open_now == size - place)
            opens = (open_now == 0) | (~must_close & (coins[:, place] == 1))
            symbols[:, place] = np.where(opens, 2 * kinds[:, place], 2 * stack[rows, open_now] + 1)
            open_now = open_now + np.where(opens, 1, -1)
            stack[rows[opens], open_now[opens]] = kinds[opens, place]
            asked = ~opens & (open_now > 0)
            targets[asked, place] = stack[rows, open_now][asked]
        return symbols, targets
