"""The figure of all encodings at once: effects by hand, the floor, what is not possible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import cell, make_store, record

from posenc.report.figures.overview import heat_map
from posenc.report.view import View

SCORES = {"sinusoidal": (3.2, 3.3, 3.25), "rope": (3.0, 3.05, 2.95), "none": (3.4, 3.5, 3.45), "mine": (9.0, 9.1, 9.2)}


def view(folder: Path, attentions: tuple[str, ...] = ("softmax", "performer"), **scores: tuple[float, ...]) -> View:
    cells, records = [], []
    for attention in attentions:
        for name, values in (SCORES | scores).items():
            for seed, value in enumerate(values):
                cells.append(cell(name, seed, attention=attention))
                no = {"status": "not_possible", "reason": "not possible: so it is"}
                lost: dict[str, Any] = no if (attention, name) == ("performer", "none") else {}
                records.append(record(cells[-1], *([] if lost else [value, value]), **lost))
    return View(make_store(folder, cells, records))


def test_effects_are_differences_over_the_spread_of_seeds_and_above_0_is_better(tmp_path: Path) -> None:
    (picture,) = heat_map(view(tmp_path).summary)
    data = picture.data.set_index(["attention", "encoding"])
    for name in ("rope", "none", "mine"):
        mine, theirs = SCORES[name], SCORES["sinusoidal"]
        spread = math.sqrt((np.var(mine, ddof=1) + np.var(theirs, ddof=1)) / 2)
        wanted = (np.mean(theirs) - np.mean(mine)) / spread  # fewer bits are better
        assert data.loc[("softmax", name), "deviations"] == pytest.approx(wanted)
    assert "sinusoidal" not in set(picture.data["encoding"])
    assert math.isnan(data.loc[("performer", "none"), "deviations"])
    for text in ("+5.0", "n/p", "enwik8, softmax", "enwik8, performer", ">rope<"):
        assert text in picture.svg, text
    assert any("n/p: not possible" in note for note in picture.notes)


def test_what_is_at_the_floor_is_hatched(tmp_path: Path) -> None:
    """The unigram's score is 4.71."""
    high = dict.fromkeys(("sinusoidal", "mine"), (9.0, 9.1, 9.2))
    (picture,) = heat_map(view(tmp_path, **high).summary)
    rows = picture.data.set_index(["attention", "encoding"])["at_floor"]
    assert rows["softmax", "mine"] and not rows["softmax", "rope"]
    assert any(note.startswith("Hatched") for note in picture.notes) and "pattern" in picture.svg
    (without,) = heat_map(view(tmp_path / "none").summary)
    assert not any(note.startswith("Hatched") for note in without.notes)


def test_a_few_cells_need_no_figure_of_all(tmp_path: Path) -> None:
    assert heat_map(view(tmp_path, ("softmax",)).summary) == []
    assert heat_map(View(make_store(tmp_path / "b", [cell("rope", 0)], [], baseline=None)).summary) == []
