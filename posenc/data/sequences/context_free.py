"""The context-free tasks of Chomsky's hierarchy: reversal, a stack's actions, arithmetic with brackets, equations.

Deletang et al. 2022 (arXiv:2207.02098) give the definitions, Ruoss et al. 2023 (arXiv:2305.16843) the symbols kept
here, and the rule by which rows of one length are drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posenc.data.sequences.generator import Answered, Generator, Symbols

MODULUS = 5


class ReverseString(Generator):
    """Bits, drawn evenly, from the last to the first."""

    name = "reverse_string"
    symbols = ("0", "1")
    classes = 2

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        bits = random.integers(0, 2, (count, size))
        return Answered(bits, bits[:, ::-1].copy())


class StackManipulation(Generator):
    """What is left on a stack after a row of actions, from its top down.

    The row is the stack of bits, its top last, then actions: pop (2; nothing happens to an empty stack), push 0 (3),
    push 1 (4). The stack's height is drawn evenly from 1 to the length less 1 (a row of one symbol has no action), its
    bits and the actions evenly. The answer is one longer than the row: the stack, the sign 2 that it ends, zeros.
    Places after the sign are asked here; the authors learn them too, and leave them out of the accuracy.
    """

    name = "stack_manipulation"
    symbols = ("0", "1", "pop", "push 0", "push 1")
    classes = 3
    chance = 0.61
    """The share of zeros among the answers at lengths 1 to 40."""

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        height = random.integers(1, size, (count, 1)) if size > 1 else np.ones((count, 1), np.int64)
        bits, actions = random.integers(0, 2, (count, size)), random.integers(2, 5, (count, size))
        symbols = np.where(np.arange(size) < height, bits, actions)
        return Answered(symbols, _stacks(symbols))


def _stacks(symbols: Symbols) -> Symbols:
    """What each row (N, n) leaves on its stack, from the top, then 2, then zeros (N, n + 1).

    A letter of the first stack is pushed as an action would push it.
    """
    count, size = symbols.shape
    rows, height = np.arange(count), np.zeros(count, np.int64)
    stack = np.zeros((count, size + 1), np.int64)
    for symbol in symbols.T:
        pop = symbol == 2
        # What is pushed goes to the first free place; after a pop that place holds something that is never read.
        stack[rows, height] = np.where(pop, 0, symbol % 3)
        height = np.where(pop, np.maximum(height - 1, 0), height + 1)
    down = height[:, None] - 1 - np.arange(size + 1)
    return np.where(down >= 0, np.take_along_axis(stack, np.maximum(down, 0), 1), 2 * (down == -1))


class ModularArithmeticBrackets(Generator):
    """The value modulo 5 of an expression with brackets, sums, differences, products and signs.

    An expression of 1 to 4 symbols is a digit d, -d, (d) or (-d). A longer one is (left operator right): the left
    part's length is drawn evenly from 1 to the length less 4, operators and digits evenly, the parts by the same rule.
    """

    name = "modular_arithmetic_brackets"
    symbols = ("0", "1", "2", "3", "4", "+", "-", "*", "(", ")")
    classes = MODULUS
    chance = 0.27
    """The share of zeros among the values at lengths 1 to 40. It grows with the length, towards a third, where a
    product of two parts and a sum of two parts have as many zeros as a part has."""

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        symbols, values = _expressions(random, size, count, _Signs(plus=5, minus=6, times=7, opens=8, closes=9))
        return Answered(symbols, values[:, None])


class SolveEquation(Generator):
    """What is x? An expression with brackets, sums, differences and signs, one digit of it x, then = and its value.

    The expression is drawn as for arithmetic with brackets, without products, so that there is one x. Which digit is x:
    the first from an evenly drawn place on, going on at the start. Lengths from 3 on: the authors' rows of one or
    two symbols are zeros, with the answer 0.
    """

    name = "solve_equation"
    symbols = ("0", "1", "2", "3", "4", "+", "-", "(", ")", "x", "=")
    classes = MODULUS

    def sizes(self, longest: int) -> list[int]:
        return list(range(3, longest + 1))

    def draw(self, random: np.random.Generator, size: int, count: int) -> Answered:
        unknown, equals = 9, 10
        signs = _Signs(plus=5, minus=6, times=None, opens=7, closes=8)
        expression, values = _expressions(random, size - 2, count, signs)
        start, places = random.integers(0, size - 2, (count, 1)), np.arange(size - 2)
        # How far a place lies beyond the start, going round; what is no digit lies beyond all of them.
        beyond = np.where(expression < MODULUS, (places - start) % (size - 2), size)
        place = beyond.argmin(1)[:, None]
        answers = np.take_along_axis(expression, place, 1)
        np.put_along_axis(expression, place, unknown, 1)
        ending = np.stack([np.full(count, equals), values], 1)
        return Answered(np.concatenate([expression, ending], 1), answers)


class _Signs(NamedTuple):
    """The symbols of an expression that are no digits; without `times` there are no products."""

    plus: int
    minus: int
    times: int | None
    opens: int
    closes: int


class _Level(NamedTuple):
    """The parts of all expressions that lie equally deep.

    Which of them are leaves, the leaves' values, and the operators of the others (0 plus, 1 minus, 2 times), whose left
    parts are the first half of the next level, and their right parts the second.
    """

    leaves: NDArray[np.bool_]
    values: Symbols
    operators: Symbols


def _expressions(random: np.random.Generator, size: int, count: int, signs: _Signs) -> tuple[Symbols, Symbols]:
    """Expressions (N, n) and their values (N,), all parts of one depth at a time."""
    symbols = np.empty((count, size), np.int64)
    rows, starts, lengths = np.arange(count), np.zeros(count, np.int64), np.full(count, size)
    levels = []
    while len(rows):
        leaves = lengths < 5
        values = _leaves(random, symbols, rows[leaves], starts[leaves], lengths[leaves], signs)
        rows, starts, lengths = rows[~leaves], starts[~leaves], lengths[~leaves]
        left = random.integers(1, lengths - 3)
        operators = random.integers(0, 2 if signs.times is None else 3, len(rows))
        symbols[rows, starts] = signs.opens
        symbols[rows, starts + 1 + left] = np.array([signs.plus, signs.minus, signs.times or 0])[operators]
        symbols[rows, starts + lengths - 1] = signs.closes
        levels.append(_Level(leaves, values, operators))
        starts = np.concatenate([starts + 1, starts + left + 2])
        rows, lengths = np.concatenate([rows, rows]), np.concatenate([left, lengths - left - 3])
    return symbols, _evaluate(levels)


def _leaves(
    random: np.random.Generator, symbols: Symbols, rows: Symbols, starts: Symbols, lengths: Symbols, signs: _Signs
) -> Symbols:
    """Writes d, -d, (d) or (-d) by its length from 1 to 4, and gives its value."""
    digits = random.integers(0, MODULUS, len(rows))
    bracketed, negative = lengths >= 3, lengths % 2 == 0
    symbols[rows[bracketed], starts[bracketed]] = signs.opens
    symbols[rows[bracketed], (starts + lengths - 1)[bracketed]] = signs.closes
    symbols[rows[negative], (starts + bracketed)[negative]] = signs.minus
    symbols[rows, starts + bracketed + negative] = digits
    return np.where(negative, -digits, digits) % MODULUS


def _evaluate(levels: list[_Level]) -> Symbols:
    """The values (N,) of whole expressions, from the deepest parts up."""
    values = np.zeros(0, np.int64)
    for level in reversed(levels):
        left, right = np.split(values, 2)
        whole = np.empty(len(level.leaves), np.int64)
        whole[level.leaves] = level.values
        whole[~level.leaves] = np.choose(level.operators, [left + right, left - right, left * right]) % MODULUS
        values = whole
    return values
