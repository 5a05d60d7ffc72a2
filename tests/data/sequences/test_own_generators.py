"""The generators of algorithmic tasks, recall and flip-flop: solved by code written apart, and the same everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from posenc.data import sources
from posenc.data.sequences.generator import UNASKED, Answered, Generator, Labelled
from posenc.data.sequences.source import Sequences

Row = list[int]


def added_in_the_middle(row: Row) -> Row:
    half = len(row) // 2
    assert row[half] == 10 and half * 2 + 1 == len(row)
    first, second = (int("".join(map(str, part))) for part in (row[:half], row[half + 1 :]))
    return [int(digit) for digit in str(first + second).zfill(half + 1)]


def remembered(row: Row) -> Row:
    answers, bit = [], None
    for told, next_to in zip(row[::2], row[1::2], strict=True):
        bit = next_to if told == 2 else bit
        answers += [bit if told == 3 else UNASKED, UNASKED]
    return answers  # type: ignore[return-value]  # the first instruction writes


def recalled(pairs: int) -> Callable[[Row], Row]:
    def solve(row: Row) -> Row:
        values = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        return [UNASKED if place < 2 * pairs else values.get(symbol, UNASKED) for place, symbol in enumerate(row)]

    return solve


SOLVERS: dict[str, tuple[Callable[[Row], Row], list[int], dict[str, Any]]] = {
    "copy": (lambda row: row, [1, 7, 40], {}),
    "reverse": (lambda row: [row[-1 - place] for place in range(len(row))], [1, 7, 40], {}),
    "sorting": (lambda row: sorted(row), [1, 7, 40], {}),
    "count": (lambda row: [sum(1 for _ in row) % 10], [1, 7, 43], {}),
    "addition": (added_in_the_middle, [3, 5, 41], {}),
    "recall": (recalled(4), [32, 64], {"noise": False}),
    "flip_flop": (remembered, [4, 64], {}),
}


def found(name: str, **options: Any) -> Sequences:
    given = sources.load(f"sequences/{name}", None, options)
    assert isinstance(given, Sequences)
    return given


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_written_apart_has_every_answer(name: str) -> None:
    solve, sizes, options = SOLVERS[name]
    generator = found(name, **options).generator
    for size in sizes:
        drawn = generator.draw(np.random.default_rng(size), size, 200)
        assert drawn.symbols.shape == (200, size) and drawn.symbols.dtype == np.int64
        assert drawn.symbols.min() >= 0 and drawn.symbols.max() < generator.vocabulary
        assert drawn[1].max() < generator.classes
        assert [solve(row) for row in drawn.symbols.tolist()] == drawn[1].tolist()
        assert isinstance(drawn, Answered) or (drawn.targets != UNASKED).any(axis=1).all()


def test_recall_is_laid_out_as_its_authors_have_it() -> None:
    """All pairs first, each key once more an even way behind; with noise the same keys and values are asked."""
    drawn = found("recall", pairs=4, vocabulary=64).generator.draw(np.random.default_rng(1), 32, 3000)
    assert isinstance(drawn, Labelled)
    keys, values = drawn.symbols[:, 0:8:2], drawn.symbols[:, 1:8:2]
    assert all(len(set(row)) == 4 for row in (*keys.tolist(), *values.tolist()))
    assert keys.min() == 1 and keys.max() == 31 and values.min() == 32 and values.max() == 63
    asked = drawn.targets != UNASKED
    assert (asked.sum(1) == 4).all() and not asked[:, :8].any() and not asked[:, 9::2].any()
    for row in range(50):
        known = dict(zip(keys[row].tolist(), values[row].tolist(), strict=True))
        places = np.flatnonzero(asked[row])
        assert sorted(drawn.symbols[row, places].tolist()) == sorted(keys[row].tolist())
        assert [known[key] for key in drawn.symbols[row, places].tolist()] == drawn.targets[row, places].tolist()
    first = asked[:, 8::2].mean(axis=0)
    assert first[0] > 0.8 > 0.35 > first[-1] > 0.05, "near ones are queried more often: p ~ k^(a - 1)"


def test_flip_flops_shares_are_those_asked_for() -> None:
    for ignore in (0.8, 0.98, 0.1):
        drawn = found("flip_flop", ignore=ignore).generator.draw(np.random.default_rng(1), 512, 300)
        told = drawn.symbols[:, 2:-2:2]
        assert (told == 4).mean() == pytest.approx(ignore, abs=0.01)
        assert (told == 2).mean() == pytest.approx((1 - ignore) / 2, abs=0.01)
        assert (drawn.symbols[:, 0] == 2).all() and (drawn.symbols[:, -2] == 3).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_no_sequence_of_training_is_in_another_split(name: str) -> None:
    """However many are drawn: of sizes with so few sequences that they come again and again."""
    small: dict[str, Any] = {"kinds": 2} if name in ("copy", "reverse", "sorting", "count") else {}
    small = {"pairs": 1, "vocabulary": 10, "noise": False} if name == "recall" else small
    data = found(name, **small)
    least = 3 if name == "addition" else 6
    assert least in data.sizes("train", least) and least in data.sizes("test", least)
    rows = {split: {row.tobytes() for row in data.fixed(split, least, 50).symbols} for split in ("test", "validation")}
    rows["train"] = {
        row.tobytes() for seed in range(20) for row in data.train(np.random.default_rng(seed), least, 200).symbols
    }
    assert all(rows.values())
    assert not (rows["train"] & rows["test"] or rows["train"] & rows["validation"] or rows["test"] & rows["validation"])
    drawn = data.generator.draw(np.random.default_rng(0), least, 2000)
    assert np.mean([row.tobytes() in rows["train"] for row in drawn.symbols]) > 0.5


def test_a_size_without_a_row_for_a_split_is_left_out_of_it() -> None:
    data = found("copy", kinds=2)
    sizes = {split: data.sizes(split, 8) for split in ("train", "validation", "test")}
    for split, own in sizes.items():
        for size in range(1, 5):
            every = {tuple(row) for row in data.generator.draw(np.random.default_rng(0), size, 500).symbols.tolist()}
            assert len(every) == 2**size
            of_split = set(map(tuple, data.fixed(split, size, 100).symbols.tolist())) if size in own else set()
            assert (size in own) == bool(of_split) or split == "train"
    assert 1 in sizes["train"] and 1 not in sizes["test"] and 8 in sizes["test"], "both rows are training's"
    assert len(data.fixed("test", 5, 100).symbols) < 10, "each of its rows once"


DIGESTS = {
    "copy": "3787b6d72e6fb0d9",
    "addition": "24231817066c3e0b",
    "recall": "19abb410c0ad5b21",
    "flip_flop": "e8aa55804403b2ab",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_rows_are_the_same_everywhere(name: str) -> None:
    """To the bit: by a digest that was worked out once."""
    data = found(name)
    size = data.generator.sizes(33)[-1]
    whole = hashlib.sha256()
    for drawn in (data.train(np.random.default_rng(7), size, 40), data.fixed("test", size, 40)):
        for array in drawn:
            whole.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    assert whole.hexdigest()[:16] == DIGESTS[name]


def test_what_records_know_of_a_generator() -> None:
    plain, other, again = found("copy"), found("copy", kinds=9), found("copy", kinds=9)
    assert plain.digest != other.digest == again.digest
    assert plain.describe()["generated"] and "kinds = 9" in str(other.describe()["note"])
    assert isinstance(plain.generator, Generator) and plain.generator.chance is None
    assert found("recall").generator.chance == 0.25
