"""Cost against quality: by hand, by time where times tell, and what the panels show and tell."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from made import cell, make_store, record

from posenc.report.figures.style import MUTED, PAPER
from posenc.report.figures.trade import cost_against_quality, front
from posenc.report.statistics.tables import GROUP, at_trained
from posenc.report.statistics.trade import trade
from posenc.report.view import View

SCORES = {"sinusoidal": 3.2, "rope": 3.0, "t5": 3.1, "learned": 3.3}
FLOPS = {"sinusoidal": 1e6, "rope": 1.25e6, "t5": 1.5e6, "learned": 1e6}


def view(folder: Path, attentions: tuple[str, ...] = ("softmax",), seeds: int = 5, worse: float = 0.0) -> View:
    cells, records = [], []
    for attention in attentions:
        for name, score in SCORES.items():
            for seed in range(seeds):
                cells.append(cell(name, seed, attention=attention))
                value = score + worse + 0.01 * seed * (1 if name == "rope" else -1)
                records.append(record(cells[-1], value, value, flops_per_token=FLOPS[name]))
    return View(make_store(folder, cells, records))


def rows_of(found: View) -> pd.DataFrame:
    return trade(at_trained(found.summary), found.cost, found.timed)


def test_cost_is_flops_over_the_baselines_and_quality_the_paired_difference(tmp_path: Path) -> None:
    found = view(tmp_path)
    rows = rows_of(found).set_index("encoding")
    assert rows["times"].to_dict() == {name: flops / 1e6 for name, flops in FLOPS.items()}
    assert set(rows["unit"]) == {"FLOPs a token"}, "all cells ran at once"
    assert rows.loc["rope", "difference"] == pytest.approx(-0.2 + 0.04)
    assert rows.loc["sinusoidal", "difference"] == 0.0
    assert front(rows.reset_index()) == ["sinusoidal", "rope"], "learned costs as much, t5 more"
    # Where times tell, they are the cost: means over seeds of the last.
    spent = {"sinusoidal": 10.0, "rope": 12.0, "t5": 11.0}
    place = {key: found.cost[key].iloc[0] for key in GROUP}
    runs = [{**place, "encoding": name, "seed": seed, "cost": cost * part + seed, "unit": "s"}
            for name, cost in spent.items() for seed in (0, 1) for part in (0.5, 1.0)]  # fmt: skip
    timed = trade(at_trained(found.summary), found.cost, pd.DataFrame(runs)).set_index("encoding")
    assert timed["times"].to_dict() == {name: pytest.approx((cost + 0.5) / 10.5) for name, cost in spent.items()}
    assert set(timed["unit"]) == {"s"}


def test_a_panel_draws_and_tells_each_encoding(tmp_path: Path) -> None:
    found = view(tmp_path)
    (picture,) = cost_against_quality(rows_of(found), found.looks)
    ElementTree.fromstring(picture.svg)
    told = re.findall(r"<title>(.*?)</title>", picture.svg)
    assert len(told) == 4
    assert told[0] == "sinusoidal, the baseline: 1 M FLOPs a token, 1.00 times sinusoidal's"
    assert re.fullmatch(r"rope: −0.1600 ± 0\.\d+ bits per character, 5 seeds; .*1\.25 times sinusoidal's", told[1])
    marks = {text.split(":")[0].split(",")[0]: mark for mark, text in
             re.findall(r"(<path[^>]*)><title>(.*?)</title>", picture.svg)}  # fmt: skip
    assert marks.keys() == SCORES.keys()
    assert all(found.looks[name].colour in mark for name, mark in marks.items())

    def height(mark: str) -> float:
        return float(re.findall(r"[ML] [\d.]+ ([\d.]+)", mark)[0])

    assert height(marks["rope"]) < height(marks["t5"]) < height(marks["sinusoidal"]) < height(marks["learned"])


def test_few_seeds_are_hollow_and_the_floor_is_grey(tmp_path: Path) -> None:
    found = view(tmp_path, seeds=3, worse=5.0)  # a unigram's score is 4.71
    (picture,) = cost_against_quality(rows_of(found), found.looks)
    marks = re.findall(r"<path[^>]*style=\"fill: (#\w+); stroke: (#\w+)[^>]*><title>", picture.svg)
    assert marks == [(MUTED, MUTED), *[(PAPER, MUTED)] * 3]


def test_many_panels_share_a_key(tmp_path: Path) -> None:
    attentions = ("softmax", "performer", "linear")
    found = view(tmp_path, attentions, seeds=2)
    *panels, key = cost_against_quality(rows_of(found), found.looks)
    assert [panel.title for panel in panels] == [f"enwik8, {attention}" for attention in attentions]
    assert [len(set(re.findall(r">(rope|t5|learned|sinusoidal)<", panel.svg))) for panel in panels] == [2, 2, 2]
    assert set(re.findall(r">(rope|t5|learned|sinusoidal)<", key.svg)) == SCORES.keys()
    few = rows_of(found)[lambda rows: rows["encoding"].isin(["sinusoidal", "rope"])]
    assert cost_against_quality(few, found.looks) == []
    assert cost_against_quality(trade([], found.cost, found.timed), found.looks) == []
