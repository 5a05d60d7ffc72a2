"""Each generator's rows are answered as its definition in words answers them, and are what it says they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import solvers
from goldens import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from posenc.common.errors import ConfigError
from posenc.data.sequences import context_free, context_sensitive, regular
from posenc.data.sequences.dyck import Dyck
from posenc.data.sequences.generator import UNASKED, Answered, Generator, Labelled
from posenc.data.sequences.haystack import Passkey, PhoneBook, VariableTracking
from posenc.data.sequences.indexing import IndirectIndexing
from posenc.data.sequences.words import WordProblem

CHOMSKY: dict[str, Generator] = {
    kind.name: kind()
    for module in (regular, context_free, context_sensitive)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Generator) and hasattr(kind, "name")
}
THEIRS = json.loads((GOLDEN / "tasks-chomsky.json").read_text())

OTHERS: dict[str, tuple[Generator, Callable[[list[str]], Any]]] = {
    "A5": (WordProblem("A5"), solvers.permutations),
    "S5": (WordProblem("S5"), solvers.permutations),
    "Z60": (WordProblem("Z60"), solvers.cycle(60)),
    "dyck": (Dyck(), solvers.brackets),
    "dyck(3 kinds)": (Dyck(kinds=3, depth=3), solvers.brackets),
    "indirect_indexing": (IndirectIndexing(), solvers.letter),
    "passkey": (Passkey(), partial(solvers.passkey, digits=5)),
    "phone_book": (PhoneBook(), partial(solvers.phone, digits=4)),
    "variable_tracking": (VariableTracking(), partial(solvers.variables, digits=5)),
    "variable_tracking(1 chain)": (VariableTracking(chains=1, hops=2, digits=2), partial(solvers.variables, digits=2)),
    "variable_tracking(1 digit)": (VariableTracking(chains=5, hops=1, digits=1), partial(solvers.variables, digits=1)),
}
ALL = CHOMSKY | {name: generator for name, (generator, _) in OTHERS.items()}

DIGESTS: dict[str, str] = {
    "parity_check": "42059a95a060",
    "even_pairs": "1d6f6c61991e",
    "cycle_navigation": "79a8c3a56b9b",
    "modular_arithmetic": "9e24313e05b3",
    "reverse_string": "b5a2f53165c3",
    "stack_manipulation": "836bf1e07a5d",
    "modular_arithmetic_brackets": "c4312c905363",
    "solve_equation": "07e0e95e1453",
    "duplicate_string": "163a75ec9c05",
    "missing_duplicate_string": "9601504bc637",
    "odds_first": "7f815f52205c",
    "bucket_sort": "2c348715bb15",
    "compute_sqrt": "fd221b674a69",
    "binary_addition": "c73bb6af84c5",
    "binary_multiplication": "cffbcf5fff9c",
    "A5": "706602065d49",
    "S5": "95f8caf389b3",
    "Z60": "739c77eacbbb",
    "dyck": "e3b4dac6b0e7",
    "dyck(3 kinds)": "9c9921e903be",
    "indirect_indexing": "3fe2a5505f4d",
    "passkey": "b8c27281f68f",
    "phone_book": "b47634845d3d",
    "variable_tracking": "1b12068f9ccd",
    "variable_tracking(1 chain)": "9684f922f572",
    "variable_tracking(1 digit)": "ae013379ec09",
}
"""Of 50 rows of the ninth size, from seed 0: a platform or a version of numpy that draws others would show."""


def drawn(generator: Generator, size: int, count: int, seed: int = 0) -> tuple[Any, Any]:
    return generator.draw(np.random.default_rng(seed), size, count)


def solved(name: str, symbols: Any) -> list[list[int]]:
    """What the solver says of rows, in numbers."""
    if name in CHOMSKY:
        return [solvers.CHOMSKY[name](row) for row in symbols.tolist()]
    generator, solve = OTHERS[name]
    names = generator.symbols
    assert isinstance(names, tuple)
    return [[names.index(said) for said in solve([names[symbol] for symbol in row])] for row in symbols.tolist()]


def test_all_fifteen_are_there() -> None:
    assert CHOMSKY.keys() == THEIRS.keys() == solvers.CHOMSKY.keys()


@pytest.mark.parametrize("name", THEIRS)
def test_the_authors_examples_are_answered_and_can_be_drawn(name: str) -> None:
    generator, theirs = CHOMSKY[name], THEIRS[name]
    shortest = min(len(example["input"]) for example in theirs["examples"])
    rows = {tuple(row) for row in drawn(generator, shortest, 20_000)[0].tolist()}
    for example in theirs["examples"]:
        row, answer = example["input"], example["output"]
        answer = answer if isinstance(answer, list) else [answer]
        assert solvers.CHOMSKY[name](row) == answer
        assert len(row) in generator.sizes(13)
        assert max(row) < generator.vocabulary <= theirs["input_symbols"]
        assert len(row) > shortest or tuple(row) in rows
        assert drawn(generator, len(row), 1)[1].shape[1] == len(answer)
    assert generator.classes == theirs["output_symbols"]


@pytest.mark.parametrize("name", CHOMSKY)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 70))
def test_chomskys_fifteen_are_solved(name: str, seed: int, size: int) -> None:
    sizes = CHOMSKY[name].sizes(size) or CHOMSKY[name].sizes(5)[:1]
    symbols, answers = drawn(CHOMSKY[name], sizes[-1], 10, seed)
    assert [solvers.CHOMSKY[name](row) for row in symbols.tolist()] == answers.tolist()


@pytest.mark.parametrize("name", OTHERS)
@given(seed=st.integers(0, 2**32), place=st.integers(0, 60))
def test_the_others_are_solved(name: str, seed: int, place: int) -> None:
    generator, solve = OTHERS[name]
    names = generator.symbols
    assert isinstance(names, tuple)
    sizes = generator.sizes(150)
    symbols, targets = drawn(generator, sizes[min(place, len(sizes) - 1)], 10, seed)
    said = [[None if symbol == UNASKED else symbol for symbol in row] for row in targets.tolist()]
    if isinstance(generator, Dyck):  # a class is a kind of bracket, which opens as every other symbol
        said = [[None if kind is None else names[2 * kind] for kind in row] for row in said]
    else:
        said = [[None if symbol is None else names[symbol] for symbol in row] for row in said]
    assert [solve([names[symbol] for symbol in row]) for row in symbols.tolist()] == said


@pytest.mark.parametrize("name", ALL)
def test_rows_are_what_the_generator_says(name: str) -> None:
    generator = ALL[name]
    sizes = generator.sizes(100)
    assert all(1 <= a < b <= 100 for a, b in pairwise(sizes))
    assert set(generator.sizes(sizes[3])) == set(sizes[:4])
    for size in (sizes[0], sizes[1], sizes[-1]):
        rows = generator.draw(np.random.default_rng(1), size, 200)
        assert isinstance(rows, (Answered, Labelled))
        symbols, targets = rows
        assert symbols.shape == (200, size)
        assert symbols.dtype == targets.dtype == np.int64
        assert symbols.min() >= 0
        assert symbols.max() < generator.vocabulary
        assert len(targets) == 200
        assert targets.max() < generator.classes
        assert targets.min() >= (UNASKED if isinstance(rows, Labelled) else 0)
        assert (targets != UNASKED).any(1).all()


@pytest.mark.parametrize("name", ALL)
def test_one_seed_gives_one_set_of_rows_everywhere(name: str) -> None:
    generator = ALL[name]
    rows = [drawn(generator, generator.sizes(150)[8], 50, seed) for seed in (0, 0, 1)]
    first, again, other = [b"".join(part.astype("<i8").tobytes() for part in parts) for parts in rows]
    assert first == again != other
    assert hashlib.sha256(first).hexdigest()[:12] == DIGESTS[name]


@pytest.mark.parametrize("name", ALL)
def test_chance_is_what_the_most_frequent_answer_scores(name: str) -> None:
    """The mean over lengths up to 40, the longest in Ruoss et al.'s training, or over the 20 smallest beyond."""
    generator = ALL[name]
    sizes = generator.sizes(40) or generator.sizes(100)[:20]
    shares = np.zeros(generator.classes)
    for size in sizes:
        targets = drawn(generator, size, 500, size)[1]
        asked = targets[targets != UNASKED]
        shares += np.bincount(asked, minlength=generator.classes) / len(asked)
    chance = 1 / generator.classes if generator.chance is None else generator.chance
    assert shares.max() / len(sizes) == pytest.approx(chance, abs=0.02)


@pytest.mark.parametrize("name", ["even_pairs", "reverse_string", "duplicate_string", "odds_first", "A5", "S5"])
def test_order_decides(name: str) -> None:
    """The answer to a row's symbols in another order is right as often as a guess is."""
    symbols, targets = drawn(ALL[name], 33, 1000)
    mixed = np.random.default_rng(1).permuted(symbols, axis=1)
    assert (np.array(solved(name, mixed)) == targets)[:, -1].mean() < 1 / ALL[name].classes + 0.06


@pytest.mark.parametrize("name", ["parity_check", "cycle_navigation", "bucket_sort", "Z60"])
def test_order_does_not_decide(name: str) -> None:
    symbols, targets = drawn(ALL[name], 33, 1000)
    mixed = np.random.default_rng(1).permuted(symbols, axis=1)
    assert (np.array(solved(name, mixed)) == targets)[:, -1].all()


def test_groups_are_the_groups() -> None:
    """Sizes, the identity first, associativity; A5 lies within S5, and only the cyclic group's table is symmetric."""
    for name, order in {"A5": 60, "S5": 120, "A4": 12, "S3": 6, "Z7": 7}.items():
        group = WordProblem(name)
        words = np.random.default_rng(0).integers(0, order, (200, 3))
        table = group._table
        assert group.classes == len(table) == order
        assert (np.sort(table, 1) == np.arange(order)).all()
        assert (table[0] == np.arange(order)).all()
        a, b, c = words.T
        assert (table[table[a, b], c] == table[a, table[b, c]]).all()
        assert (table == table.T).all() == (name == "Z7")
    assert set(WordProblem("A5").symbols) < set(WordProblem("S5").symbols)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WordProblem("D5"), "S3, S4, S5"),
        (lambda: WordProblem("S6"), "S3, S4, S5"),
        (lambda: Dyck(kinds=1), "2 to 4"),
        (lambda: Dyck(depth=1), "at least 2"),
        (lambda: IndirectIndexing(furthest=62), "1 to 61"),
        (lambda: Passkey(digits=0), "1 to 20"),
        (lambda: VariableTracking(chains=6, hops=4), "1 to 5"),
    ],
)
def test_options_that_make_no_task_are_refused(make: Callable[[], Generator], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()
