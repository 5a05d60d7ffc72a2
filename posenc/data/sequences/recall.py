"""Associative recall with several queries (MQAR), as Arora, Eyuboglu et al. 2023 have it (arXiv:2312.04927)."""

from __future__ import annotations

import numpy as np

from posenc.common.errors import ConfigError
from posenc.data.sequences.generator import UNASKED, Generator, Labelled, Symbols, distinct


class Recall(Generator):
    """Pairs of a key and its value, then queries: at a key that comes again its value is asked for.

    Of V symbols keys are 1 ... V/2 - 1 and values V/2 ... V - 1; a row's n keys all differ, and so do its values. All
    pairs stand first (2 n symbols). Each key comes once more behind them, an even number of symbols 2 g further on; the
    n gaps g are drawn without replacement by p(g) ~ a (g + 1)^(a - 1). At these queries, and nowhere else, the target
    is the key's value. All other places hold random symbols of V, or 0. (HazyResearch/zoology
    d88d6f5, data/multiquery_ar.py.)

    Guessing one of the row's own values is right in 1 of n cases: that is chance here.

    Args:
        pairs: n. vocabulary: V. power: a, the smaller the nearer are queries to the pairs; 1 draws them evenly.
        noise: whether other places hold random symbols (`random_non_queries`), as by that code's default; the paper's
            Figure 2 has 0 there.
    """

    name = "recall"

    def __init__(self, pairs: int = 4, vocabulary: int = 8192, power: float = 0.01, noise: bool = True) -> None:
        if not 1 <= pairs < vocabulary // 2:
            raise ConfigError(f"pairs = {pairs}: must be from 1 to {vocabulary // 2 - 1}, the keys of {vocabulary}")
        if not 0 < power <= 1:
            raise ConfigError(f"power = {power}: must be more than 0 and at most 1")
        self.pairs, self.power, self.noise = pairs, power, noise
        self.symbols = self.classes = vocabulary
        self.chance = 1 / pairs

    def sizes(self, longest: int) -> list[int]:
        """One, as in the paper: the longest that is even; it has room for all queries, and V is more than it."""
        size = longest // 2 * 2
        return [size] if 4 * self.pairs <= size < self.vocabulary else []

    def draw(self, random: np.random.Generator, size: int, count: int) -> Labelled:
        half, context = self.vocabulary // 2, 2 * self.pairs
        keys = 1 + distinct(random, half - 1, self.pairs, count)
        values = half + distinct(random, self.vocabulary - half, self.pairs, count)
        gaps = self._gaps(random, (size - context) // 2, count)
        rows = random.integers(self.vocabulary if self.noise else 1, size=(count, size))
        rows[:, 0:context:2], rows[:, 1:context:2] = keys, values
        targets = np.full((count, size), UNASKED)
        np.put_along_axis(rows, context + 2 * gaps, keys, axis=1)
        np.put_along_axis(targets, context + 2 * gaps, values, axis=1)
        return Labelled(rows, targets)

    def _gaps(self, random: np.random.Generator, space: int, count: int) -> Symbols:
        """(count, pairs) gaps below `space`, in each row different.

        The smallest of exponential times of rates p come in the order of draws without replacement by p.
        """
        rates = self.power * np.arange(1, space + 1) ** (self.power - 1)
        times = random.standard_exponential((count, space)) / rates
        order: Symbols = np.argsort(times, axis=1, kind="stable")[:, : self.pairs]
        return order
