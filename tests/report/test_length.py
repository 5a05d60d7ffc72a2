"""Scores by length and by position: averaged by hand, on the page, and of trained cells in their known order."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import cell, make_store, pages, record, visible

from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.report.statistics import positions
from posenc.report.statistics.cut import beside_cut
from posenc.report.view import View
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

BITS = "bits_per_character"
METRICS = [
    {"name": f"{BITS}{suffix}", "title": f"bits per character{said}", "better": "lower", "over": "mean",
     "items": [f"{BITS}{suffix}", f"weight{suffix}"], "running": True}
    for suffix, said in (("", ""), ("_sliding", " (sliding by 32)"), ("_cut", " (cut to 64, sliding by 32)"))
]  # fmt: skip


def slid(store: Store, of: dict[str, Any], separate: list[float], sliding: list[float]) -> None:
    """A cell scored in three ways at 64 and 256; `learned` has only the cut score beyond its table."""
    rows: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for index, length in enumerate((64, 256)):
        values = {"": separate[index], "_sliding": sliding[index], "_cut": sliding[0]}
        beyond = of["config"]["encoding"]["name"] == "learned" and length > 64
        for suffix, value in values.items():
            row = {"split": "test", "length": length, "metric": f"{BITS}{suffix}", "items": 512, "why": None}
            rows.append({**row, "value": None, "why": "learned has 64"} if beyond and suffix != "_cut" else
                        {**row, "value": value})  # fmt: skip
            windows = 4 if suffix else 512 // length
            if not beyond or suffix == "_cut":
                arrays[f"test/{length}/{BITS}{suffix}"] = np.full(windows, value * 512 / windows)
                arrays[f"test/{length}/weight{suffix}"] = np.full(windows, 512 // windows)
        if not beyond:
            ends = np.array([1, 2, 4, 64, 128, 256][: 4 + 2 * index])
            targets = np.diff([0, *ends]) * (512 // length)
            arrays |= {f"test/{length}/positions.ends": ends, f"test/{length}/positions.targets": targets}
            arrays[f"test/{length}/positions.nats"] = targets * separate[index] * math.log(2)
    changes = {"metric": METRICS[0], "metrics": METRICS, "items": store.write_items(of["id"], arrays)}
    store.write_record({**record(of, 1.0, **changes), "scores": rows})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope", "learned") for seed in (0, 1)]
    made = make_store(tmp_path, cells, [])
    for of in cells:
        by, seed = (
            {"sinusoidal": 0.0, "rope": 0.5, "learned": 0.2}[of["config"]["encoding"]["name"]],
            of["config"]["seed"],
        )
        slid(made, of, [3 + by + seed / 10, 4 - by], [2.9 + by, 3.5 + by * (2 + seed)])
    return made


def test_positions_are_means_over_seeds_paired_with_the_baselines(store: Store) -> None:
    found = View(store).positions
    row = found[(found["encoding"] == "rope") & (found["evaluated"] == 64)].iloc[2]
    assert (row["unit"], row["first"], row["last"], row["n"], row["pairs"]) == ("bits", 3, 4, 2, 2)
    assert row["mean"] == pytest.approx(3.55) and row["difference"] == pytest.approx(0.5)
    half = 12.7062 * 0.1 / math.sqrt(2) / math.sqrt(2)  # Student's t at one degree of freedom, of two values 0.1 apart
    assert (row["low"], row["high"]) == pytest.approx((3.55 - half, 3.55 + half), abs=1e-3)
    assert set(found.loc[found["encoding"] == "learned", "evaluated"]) == {64}
    assert set(found.loc[found["evaluated"] == 256, "last"]) == {1, 2, 4, 64, 128, 256}
    nats = positions.by_seed(
        {}, "perplexity", "test", 64, {f"positions.{n}": [2.0] for n in ("ends", "nats", "targets")}
    )
    assert nats[0]["value"] == 1 and nats[0]["unit"] == "nats"
    assert positions.by_seed({}, BITS, "test", 64, {}) == []


def test_longer_windows_are_held_against_cut_ones_by_seed(store: Store) -> None:
    found = beside_cut(View(store).scores).set_index("encoding")
    assert list(found["evaluated"]) == [256, 256, 256]
    # Sliding less cut: 3.5 + 0.5 * (2 + seed) - 3.4, of two seeds.
    assert found.loc["rope", "difference"] == pytest.approx(np.mean([1.1, 1.6])) and found.loc["rope", "n"] == 2
    assert found.loc["learned", "n"] == 0 and math.isnan(found.loc["learned", "difference"])


def test_the_page_has_a_row_for_each_length_and_a_curve(store: Store) -> None:
    html, markdown = pages(store)
    part = html[html.index('<section id="length"') :]
    text = visible(part[: part.index("</section>")])
    assert "encoding length separate difference sliding difference cut to 64 sliding less cut" in text
    assert "rope 256 3.500 \u00b1 0.000 \u22120.500 \u00b1 0.000 4.750 \u00b1 3.177" in text
    assert "learned 256 learned has 64 learned has 64 3.100 \u00b1 0.000 \u2013" in text
    answer = html[html.index('<section id="answer"') :]
    text = visible(answer[: answer.index("</section>")])
    assert "learned: not possible beyond 64 tokens." in text and "Loss by position" in text
    assert "cells at scores difference furthest" in text
    assert "## Score by length" in markdown
    folder = store.folder / "report"
    drawn = pd.read_csv(next((folder / "figures").glob("positions-*.csv")))
    assert set(drawn["evaluated"]) == {64, 256} and {"low", "high", "difference_low"} <= set(drawn)
    assert len(pd.read_csv(folder / "tables" / "length.csv")) == 3
    items = pd.read_csv(folder / "tables" / "items.csv")
    assert set(items.loc[items["evaluated"] == 256, "encoding"]) == {"rope"}, "learned has no items of the main metric"
    assert set(items.loc[items["evaluated"] == 256, "items"]) == {2}, "of separate windows, whatever other items are"


@pytest.mark.slow
def test_beyond_the_trained_length_sinusoids_fall_apart_and_alibi_holds(tmp_path: Path) -> None:
    """Press et al. 2021, figure 1: at 16 times the length; seen apart by 1.2 bits after twice as many steps."""
    shorter = {"training.steps": 300, "training.validate_every": 300, "evaluation.tokens": 3072}
    asked = Selection(encodings=("sinusoidal", "alibi"), seeds=(0,), changes=shorter)
    found = {}
    for one in make(find_suite("length"), asked).cells:
        ended = train(one, CellTerms("length", tmp_path))
        assert ended is not None and ended["status"] == "done"
        found[one.settings.encoding_name] = {
            (score["metric"].removeprefix(BITS), score["length"]): score["value"]
            for score in ended["scores"] if score["split"] == "test"
        }  # fmt: skip
    sinusoidal, alibi = found["sinusoidal"], found["alibi"]
    assert set(alibi) == {(mode, 32 * by // 2) for mode in ("", "_sliding", "_cut") for by in (2, 3, 4, 8, 16, 32)}
    assert sinusoidal["", 512] > sinusoidal["", 32] + 0.5 and sinusoidal["", 512] > alibi["", 512] + 0.4
    assert sinusoidal["_sliding", 512] > sinusoidal["_cut", 512] + 0.5, "longer windows are worse than none"
    assert abs(alibi["", 512] - alibi["", 32]) < 0.2 and abs(alibi["_sliding", 512] - alibi["_cut", 512]) < 0.2
