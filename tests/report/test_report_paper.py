"""The report's parts that stand for the paper, and those of time: from made-up cards, stages and measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from made import cell, make_store, measured, pages, record, visible

from posenc.records.store import Store
from posenc.report.sections.paper import NOT_RUN, stage_frame
from posenc.report.statistics.equal_cost import equal_cost, timed
from posenc.report.view import View

BITS = {"name": "bits_per_character", "title": "bits per character", "better": "lower"}


def reported(where: str, row: str, value: float | None, **changes: Any) -> dict[str, Any]:
    return {"where": where, "row": row, "metric": "bits_per_character", "value": value, "says": "", "split": "test",
            "length": 0, "stage": 0, **changes}  # fmt: skip


def with_card(store: Store, told: list[dict[str, Any]], caveats: list[str]) -> Store:
    card = {"paper": "Su et al. 2021", "caveats": caveats, "reported": told}
    manifest = store.read_manifest()
    for one in manifest["cells"]:
        one["label"] = {"sinusoidal": "BERT", "rope": "RoFormer"}.get(one["config"]["encoding"]["name"], "")
    store.write_manifest({**manifest, "tasks": {"enwik8": {"title": "Bytes", "card": card}}})
    return store


def store_of(folder: Path, told: list[dict[str, Any]], caveats: list[str], **changes: Any) -> Store:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
    values = (3.2, 3.4, 3.0, 3.1)
    records = [record(of, value, 4.0, **changes) for of, value in zip(cells, values, strict=True)]
    return with_card(make_store(folder, cells, records), told, caveats)


def rows_after(page: str, title: str) -> list[list[str]]:
    """The cells of the first Markdown table after a heading."""
    part = page[page.index(title) :]
    lines = re.findall(r"(?m)^\| (.*) \|$", part)
    table = part[: part.index("\n\n", part.index("| ---"))].count("\n| ")
    return [[text.strip() for text in line.split("|")] for line in lines[:table]]


def test_the_papers_figures_stand_beside_ours(tmp_path: Path) -> None:
    told = [
        reported("Table 2", "BERT", 3.5),
        reported("Table 2", "RoFormer", 3.25, says="dev"),
        reported("Table 2", "WoBERT", 3.3),
        reported("Figure 3, right", "RoFormer", None, says="lower, and sooner"),
        reported("Figure 3, right", "", None, metric="", says="curves alone"),
    ]
    caveats = ["the paper's row is of another <b>split</b>"]
    data = {
        "name": "made-up text",
        "digest": "e" * 64,
        "bytes": 5,
        "expected_bytes": None,
        "generated": True,
        "note": "",
    }
    html, page = pages(store_of(tmp_path, told, caveats, data=data))
    rows = {row[0]: row for row in rows_after(page, "### Table 2")[2:]}
    # Two seeds, 3.0 and 3.1: the half is 12.7062 x 0.0707 / sqrt(2) = 0.635.
    assert rows["RoFormer"][3:6] == ["3.25 (dev)", "3.050 ± 0.635", "2"]
    assert rows["RoFormer"][-1] == "made-up text (generated data)"
    assert rows["BERT"][3:5] == ["3.5", "3.300 ± 1.271"]
    assert rows["WoBERT"][3:5] == ["3.3", NOT_RUN]
    text = visible(html)
    assert text.count("the paper's row is of another <b>split</b>") == 2  # of the table, and of the figure
    assert "lower, and sooner" in text
    assert "The paper: curves alone." in text
    paper = html[html.index('<section id="paper"') : html.index('<section id="figures"')]
    assert 'id="figure-curve-' in paper[paper.index("Figure 3, right") :]  # our curves beside it
    # A figure that stands twice has its points and bands twice: what it refers to is there, as a browser reads it.
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    targets = {unquote(target) for target in re.findall(r'(?:href="#|url\(#)([^")]+)', html)}
    assert targets <= set(ids), sorted(targets - set(ids))[:5]


def test_a_reported_length_and_split_choose_what_stands_beside_it(tmp_path: Path) -> None:
    cells = [cell("rope", 0), cell("rope", 0, length=128)]
    store = make_store(tmp_path, cells, [record(cells[0], 3.0), record(cells[1], 2.0)])
    told = [
        reported("Table 5", "RoFormer", 0.5, length=128),
        reported("Table 5", "RoFormer", 0.6, length=128, split="validation"),
        reported("Table 5", "RoFormer", 0.7, length=1024),
    ]
    page = pages(with_card(store, told, []))[1]
    rows = rows_after(page, "### Table 5")[2:]
    assert [(row[3], row[4], row[6]) for row in rows] == [
        ("0.5", "2.000", "softmax attention, 128"),
        ("0.6", "9.990", "softmax attention, 128"),
        ("0.7", "3.000", "softmax attention, 64"),  # 1,024 was not trained: all there is, each with its length
        ("0.7", "2.000", "softmax attention, 128"),
    ]


def test_stages(tmp_path: Path) -> None:
    stages = [
        {"stage": 1, "length": 512, "batch": 256, "steps": 200000, "items": 9, "scores": {"bits_per_character": 1.9}},
        {"stage": 2, "length": 1536, "batch": 256, "steps": 12500, "items": 9, "scores": {"bits_per_character": 1.7}},
    ]
    told = [reported("Table 4", "RoFormer", value, stage=stage) for stage, value in ((1, 1.73), (2, 1.61), (3, 1.75))]
    store = store_of(tmp_path, told, [], stages=stages)
    rows = rows_after(pages(store)[1], "### Table 4")[2:]
    of_rope = [row for row in rows if row[1].startswith("RoFormer")]
    assert [(row[0], row[2], row[5], row[6], row[7]) for row in of_rope] == [
        ("1", "512", "2", "1.900 ± 0.000", "1.73"),
        ("2", "1,536", "2", "1.700 ± 0.000", "1.61"),
        ("3", "", "0", NOT_RUN, "1.75"),
    ]
    view = View(store)
    assert len(stage_frame(view.records, view.manifest)) == 8
    assert (store.folder / "report" / "tables" / "stages.csv").is_file()


def theory_store(folder: Path) -> Store:
    metrics = [
        {"name": "relative_error", "title": "error of relative position", "better": "lower"},
        {"name": "decays", "title": "score falls with distance", "better": "higher"},
    ]
    cells, records = [cell("sinusoidal", 0), cell("rope", 0)], []
    for of, error, why in zip(cells, (None, 1e-15), ("not relative", None), strict=True):
        empty = {"split": "theory", "length": 64, "items": 1, "why": None}
        details = {"distances": [0, 1, 2, 3], "bound": [4.0, 3.0, 2.5, 2.0] if error else None}
        details |= {"same": [1.0, 0.8, 0.7, 0.6], "random": [1.0, 0.9, 1.1, 0.2]}
        scores = [
            {**empty, "metric": "relative_error", "value": error, "why": why},
            {**empty, "metric": "decays", "value": 1.0, "details": details},
        ]
        records.append(record(of, 0.0) | {"scores": scores, "metric": metrics[0], "metrics": metrics, "baselines": {}})
    store = make_store(folder, cells, [])
    for one in records:  # without a curve: nothing was trained
        store.write_record(one)
    return store


def test_theory_is_a_table_and_a_figure_and_no_result(tmp_path: Path) -> None:
    store = theory_store(tmp_path)
    html, page = pages(store)
    rows = {row[0]: row[1:] for row in rows_after(page, "own properties, measured")[2:]}
    assert rows == {"sinusoidal": ["not relative", "1"], "rope": ["1e-15", "1"]}
    names = [path.name for path in sorted((store.folder / "report" / "figures").glob("*.csv"))]
    assert names == [f"decay-enwik8-smoke-softmax-L64-{name}.csv" for name in ("rope", "sinusoidal")]
    assert html.count("the paper's bound</text>") == 1  # sinusoidal has none
    assert html.count("measured, random</text>") == 2
    assert "random queries and keys need not follow" in visible(html)
    assert View(store).summary.empty
    assert "There are no scores to compare yet" in visible(html)


def test_speed_by_length_says_on_which_machine(tmp_path: Path) -> None:
    store = store_of(tmp_path, [], [])
    rows = [measured(name, length, length * 1e-5 * slow) for name, slow in (("none", 1), ("rope", 1.1), ("mine", 2))
            for length in (256, 512)]  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    html, page = pages(store)
    assert "attention, softmax, forward, cpu float32; a CPU, 2 cores" in visible(html)
    rope = next(row for row in rows_after(page, "## Speed and memory by length")[2:] if row[0] == "rope")
    assert rope[2:] == ["2.82 ms, 1.10×, 5 MB", "5.63 ms, 1.10×, 5 MB"]
    assert [path.name for path in (store.folder / "report" / "figures").glob("speed-*.svg")] == [
        "speed-attention-softmax-forward-cpu-float32.svg"
    ]
    assert html.count(">mine</text>") == 1
    odd = ({"length": "256"}, {"encoding": None}, {"backend": ["sdpa"]}, {"device": {"a": 1}})
    for text in ("{", "[7]", *(json.dumps([{**rows[0], **change}]) for change in odd)):
        (tmp_path / "bench.json").write_text(text)
        for page in pages(store):
            assert "is no list of measurements" in page[page.index("What could not be read") :]
            assert "Speed and memory" not in page


def test_equal_cost_by_hand(tmp_path: Path) -> None:
    # Validations after 4, 8, 12 and 16 s; rope takes half as long again, and is read at 16 s, when sinusoidal is done.
    cells = [cell("sinusoidal", 0), cell("rope", 0)]
    after = {"started": "2026-11-23T09:30:14+00:00", "ended": "2026-11-23T09:30:40+00:00", "seconds": 26.0}
    store = make_store(tmp_path, cells, [record(cells[0], 3.2), record(cells[1], 3.0, times=after)])
    path = store.cell_folder(cells[1]["id"]) / "curve.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "seconds": row["seconds"] * 1.5}) + "\n" for row in lines))
    times = equal_cost(timed(View(store).curves, View(store).alone), "sinusoidal").set_index("encoding")
    assert (times["unit"] == "s").all()
    assert times.loc["rope", "cost"] == 24
    assert (times["limit"] == 16).all()
    assert times.loc["rope", "at_end"] == pytest.approx(3.0)
    # 16 s lie two thirds of the way from the validation at 12 s (3.6) to that at 18 s (3.2).
    assert times.loc["rope", "in_time"] == pytest.approx(3.6 - 0.4 * 2 / 3)
    assert times.loc["rope", "difference"] == pytest.approx(3.6 - 0.4 * 2 / 3 - 3.2)
    # Sinusoidal ends at 3.2, which rope has at the third of its four validations.
    assert times.loc["rope", ["share", "seeds", "caught_up"]].tolist() == [0.75, 1, 1]
    assert times.loc["sinusoidal", "seeds"] == 0
    html, page = pages(store)
    assert "75 %" in next(line for line in page.splitlines() if "rope" in line and "24.0 s" in line)
    assert "after 16.0 s" in visible(html) and "Cost: time a cell" in visible(html)
    assert "3.333" in page
    # Cells that ran at once: time tells of the machine, and FLOPs are the same for both here.
    store = make_store(tmp_path / "at once", cells, [record(cells[0], 3.2), record(cells[1], 3.0)])
    counted = equal_cost(timed(View(store).curves, View(store).alone), "sinusoidal").set_index("encoding")
    assert not View(store).alone and (counted["unit"] == "FLOPs").all()
    assert counted.loc["rope", "cost"] == 400 * 2048 * 1.2e6
    assert counted.loc["rope", "in_time"] == pytest.approx(3.0)
    shown = visible(pages(store)[0])
    assert "after 983 GFLOP" in shown and "Cost: FLOPs a token" in shown and "Cost: time a cell" not in shown


def test_seeds_that_took_times_of_their_own_are_told_by_flops(tmp_path: Path) -> None:
    """Alone, but one seed of rope took half as long again: a loaded machine, not the encoding."""
    cells = [cell(name, seed) for seed in (0, 1) for name in ("sinusoidal", "rope")]
    records = []
    for index, of in enumerate(cells):
        times = {"started": f"2026-11-23T09:{index:02}:00+00:00", "ended": f"2026-11-23T09:{index:02}:26+00:00"}
        records.append(record(of, 3.0 + index / 10, times={**times, "seconds": 26.0}))
    store = make_store(tmp_path, cells, records)
    assert View(store).alone and "Cost: time a cell" in visible(pages(store)[0])
    path = store.cell_folder(cells[3]["id"]) / "curve.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "seconds": row["seconds"] * 1.5}) + "\n" for row in lines))
    shown = visible(pages(store)[0])
    assert View(store).alone and "Cost: FLOPs a token" in shown and "Cost: time a cell" not in shown
