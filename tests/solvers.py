"""The diagnostic tasks, solved row by row from their definitions in words; nothing is shared with the generators."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

Row = list[int]


def _value(text: str) -> int:
    """An expression modulo 5 by descent: sums of products of digits, brackets and signs."""
    at = 0

    def peek() -> str:
        return text[at] if at < len(text) else ""

    def factor() -> int:
        nonlocal at
        at += 1
        if text[at - 1] == "-":
            return -factor()
        if text[at - 1] == "(":
            inside = total()
            assert peek() == ")"
            at += 1
            return inside
        return int(text[at - 1])

    def term() -> int:
        nonlocal at
        value = factor()
        while peek() == "*":
            at += 1
            value *= factor()
        return value

    def total() -> int:
        nonlocal at
        value = term()
        while peek() in ("+", "-"):
            at += 1
            value += term() if text[at - 1] == "+" else -term()
        return value

    value = total()
    assert at == len(text)
    return value % 5


def _number(bits: Row) -> int:
    """Of bits, the lowest first."""
    return sum(bit << place for place, bit in enumerate(bits))


def _ended(number: int, length: int) -> Row:
    """A number's bits, the lowest first, then 2, then zeros."""
    bits = [int(bit) for bit in reversed(f"{number:b}")]
    return bits + [2] + [0] * (length - len(bits) - 1)


def _operands(row: Row) -> tuple[int, int]:
    sign = row.index(2)
    return _number(row[:sign]), _number(row[sign + 1 :])


def addition(row: Row) -> Row:
    first, second = _operands(row)
    return _ended(first + second, len(row) + 1)


def multiplication(row: Row) -> Row:
    first, second = _operands(row)
    return _ended(first * second, len(row))


def root(row: Row) -> Row:
    number, bits = _number(row[::-1]), (len(row) + 1) // 2
    found = 0
    for place in reversed(range(bits)):
        if (found + 2**place) ** 2 <= number:
            found += 2**place
    return [int(bit) for bit in f"{found:0{bits}b}"]


def missing(row: Row) -> Row:
    string = [symbol for symbol in row if symbol != 3]
    hole, half = string.index(2), len(string) // 2
    answer = string[hole - half]
    string[hole] = answer
    assert string[:half] == string[half:]
    return [answer]


def stack(row: Row) -> Row:
    standing: Row = []
    for symbol in row:
        if symbol == 2:
            standing = standing[:-1]
        else:
            standing = [*standing, {0: 0, 1: 1, 3: 0, 4: 1}[symbol]]
    return standing[::-1] + [2] + [0] * (len(row) - len(standing))


def equation(row: Row) -> Row:
    text = "".join("01234+-()x="[symbol] for symbol in row)
    left, right = text.split("=")
    solutions = [x for x in range(5) if _value(left.replace("x", str(x))) == int(right)]
    assert len(solutions) == 1
    return solutions


def spread(row: Row) -> Row:
    return [symbol for symbol in range(5) for other in row if other == symbol]


CHOMSKY: dict[str, Callable[[Row], Row]] = {
    "parity_check": lambda row: [row.count(1) % 2],
    "even_pairs": lambda row: [sum(a != b for a, b in pairwise(row)) % 2],
    "cycle_navigation": lambda row: [(row.count(2) - row.count(0)) % 5],
    "modular_arithmetic": lambda row: [_value("".join("01234+-*"[symbol] for symbol in row))],
    "modular_arithmetic_brackets": lambda row: [_value("".join("01234+-*()"[symbol] for symbol in row))],
    "solve_equation": equation,
    "reverse_string": lambda row: list(reversed(row)),
    "stack_manipulation": stack,
    "duplicate_string": lambda row: row + row,
    "missing_duplicate_string": missing,
    "odds_first": lambda row: (
        [row[i] for i in range(len(row)) if i % 2] + [row[i] for i in range(len(row)) if not i % 2]
    ),
    "bucket_sort": spread,
    "compute_sqrt": root,
    "binary_addition": addition,
    "binary_multiplication": multiplication,
}
"""Symbols in, answer out."""

Words = list[str]
NOISE = "the grass is green . the sky is blue . the sun is yellow . here we go . there and back again . "


def permutations(row: Words) -> Words:
    """The product so far: each permutation stands as the images of 1, 2, ...; the next one is applied first."""
    so_far, said = row[0], [row[0]]
    for images in row[1:]:
        so_far = "".join(so_far[int(image) - 1] for image in images)
        said.append(so_far)
    return said


def cycle(of: int) -> Callable[[Words], Words]:
    return lambda row: [str(sum(map(int, row[: place + 1])) % of) for place in range(len(row))]


def brackets(row: Words) -> list[str | None]:
    """Behind a closing bracket with another open: the innermost open one."""
    waiting: Words = []
    said: list[str | None] = []
    for symbol in row:
        if symbol in "([{<":
            waiting.append(symbol)
            said.append(None)
        else:
            assert waiting.pop() + symbol in ("()", "[]", "{}", "<>")
            said.append(waiting[-1] if waiting else None)
    assert not waiting
    return said


def letter(row: Words) -> Words:
    *string, named, direction, distance = row
    assert len(set(string)) == len(string)
    place = string.index(named) + int(distance.removeprefix("by ")) * {"left": -1, "right": 1}[direction]
    assert place >= 0
    return [string[place]]


def passkey(row: Words, digits: int) -> Words:
    place = row.index("key")
    assert row[-1] == "key?"
    noise = " ".join(row[:place] + row[place + 1 + digits : -1])
    assert (
        "the grass is green . the sky is blue . the sun is yellow . here we go . there and back again . " * 99
    ).startswith(noise)
    return row[place + 1 : place + 1 + digits]


def phone(row: Words, digits: int) -> Words:
    entries = range(0, len(row) - 2, 2 + digits)
    book = {"".join(row[at : at + 2]): row[at + 2 : at + 2 + digits] for at in entries}
    assert len(book) == len(entries)
    return book["".join(row[-2:])]


def variables(row: Words, digits: int) -> Words:
    """All variables that have the value that is asked, in the order in which they are set."""
    values: dict[str, str] = {}
    asked = row.index("?")
    for at in range(asked - 2):
        if row[at] == "VAR" and row[at + 2] == "=":
            copied = row[at + 3] == "VAR"
            values[row[at + 1]] = values[row[at + 4]] if copied else "".join(row[at + 3 : at + 3 + digits])
    return [name for name, value in values.items() if value == "".join(row[asked + 1 :])]
