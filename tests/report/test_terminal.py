"""The results in a terminal: as wide as it is, nothing cut, and only what has run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from made import cell, make_store, record
from rich.console import Console

from posenc.records.store import Store
from posenc.report import terminal_table

WHY = "not possible: it has 64 positions, and 256 were asked for"
NAMES = ("sinusoidal", "rope", "learned", "layers(rope_llama3(original_length=8192), none, every=2)")


def store_of(folder: Path, factors: tuple[int, ...] = (1, 4), waiting: tuple[str, ...] = ()) -> Store:
    """Three seeds of NAMES in softmax attention; cells without a record in each attention of `waiting`."""
    cells: list[dict[str, Any]] = []
    records = []
    for name in NAMES:
        for seed in range(3):
            of = cell(name, seed)
            of["config"]["evaluation"]["length_factors"] = list(factors)
            made = record(of, 1.0)
            score = {**made["scores"][0], "why": None}
            made["scores"] = [{**score, "length": 64 * factor, "value": factor + seed / 10} for factor in factors]
            if name == "learned" and len(factors) > 1:
                made["scores"][-1] |= {"value": None, "why": WHY}
            cells.append(of)
            records.append(made)
    cells += [cell("rope", seed, attention=attention) for attention in waiting for seed in range(3)]
    return make_store(folder, cells, records)


def printed(store: Store, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(terminal_table(store))
    return console.file.getvalue()  # type: ignore[attr-defined]


def flat(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("width", [45, 60, 80, 100, 140])
@pytest.mark.parametrize("factors", [(1,), (1, 4), (1, 2, 4), (1, 2, 4, 8)])
def test_nothing_is_cut_and_no_figure_is_broken(tmp_path: Path, width: int, factors: tuple[int, ...]) -> None:
    text = printed(store_of(tmp_path, factors), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    assert all(f"at {64 * factor:,}" in text for factor in factors)
    # Means of three seeds 0, 0.1, 0.2 above the factor: +0.1, half of the interval 4.302653 x 0.1 / sqrt(3).
    for factor in factors:
        assert text.count(f"{factor + 0.1:.3f} \u00b1 0.248") == (3 if factor == factors[-1] > 1 else 4)
        assert f"{factor + 0.1:.3f}\u00b1" not in text
    assert text.count("baseline") >= len(factors)


def test_a_reason_is_folded_and_whole(tmp_path: Path) -> None:
    for width in (45, 80):
        column = [
            line.split("\u2502")[-2] for line in printed(store_of(tmp_path), width).splitlines() if "\u2502" in line
        ]
        assert flat(WHY) in flat("".join(column))


@pytest.mark.parametrize(("waiting", "said"), [(("performer",), "1 group of cells has"), (("a", "b"), "2 groups")])
def test_groups_that_have_not_run_are_counted_and_not_printed(tmp_path: Path, waiting: Any, said: str) -> None:
    text = printed(store_of(tmp_path, waiting=waiting), 100)
    assert text.count("not run yet") == 1 and said in text
    assert text.count("trained at length 64") == 1
    assert "not run yet" not in printed(store_of(tmp_path / "all"), 100)


def test_a_group_of_which_one_cell_has_run_is_printed(tmp_path: Path) -> None:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in range(2)]
    text = printed(make_store(tmp_path, cells, [record(cells[0], 3.0, 4.0)]), 100)
    assert "3.000" in text and text.count("not run yet") == 3  # of rope at each length, and of a seed


def test_where_nothing_has_run_that_is_all(tmp_path: Path) -> None:
    assert printed(make_store(tmp_path, [cell("rope", 0)], []), 80).strip() == "1 group of cells has not run yet."
