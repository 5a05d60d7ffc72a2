"""The report, from made-up records: what it computes, what it says, and that nothing in a name can break it."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from hashlib import sha256
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from scipy import stats

from posenc.errors import StoreError
from posenc.paths import content
from posenc.report import load_records, terminal_table, write_report
from posenc.report.intervals import holm, interval
from posenc.report.labels import spread
from posenc.report.style import FIXED_SLOTS, MARKERS, looks
from posenc.report.tables import configuration_differences, cost_table, scores_frame, summary
from posenc.report.words import duration, last_line, markdown, number, short_count, with_half_width
from posenc.store import Store, digest

SCRIPT = (content("reports") / "sort.js").read_text(encoding="utf-8")
TITLE, UNIGRAM = "bits per character", 4.71
TRACEBACK = (
    'Traceback (most recent call last):\n  File "training.py", line 1, in step\nRuntimeError: loss is not finite\n'
)


def cell(encoding: str, seed: int, *, attention: str = "softmax", length: int = 64, **changes: Any) -> dict[str, Any]:
    """A cell of the manifest. `changes` are keys of the training."""
    name = f"enwik8/{attention}/{encoding}/L{length}/s{seed}" + "".join(f"/{k}{v}" for k, v in changes.items())
    config = {
        "schema": 1,
        "task": "enwik8",
        "task_version": 1,
        "scale": "smoke",
        "length": length,
        "seed": seed,
        "encoding": {"name": encoding, "version": "1", "package": "posenc 0.1.0"},
        "data": {"source": "stdlib", "digest": "d" * 64},
        "objective": {"kind": "causal_lm"},
        "backbone": {"attention": attention, "layers": 2, "width": 64},
        "training": {"steps": 400, "learning_rate": 0.002, **changes},
        "evaluation": {"length_factors": [1, 4]},
        "runtime": {"device": "cpu", "precision": "float32", "threads": 1, "backend": "auto"},
        "parent": None,
    }
    return {"id": digest(config)[:16], "name": name, "config": config, "parent": None}


def record(of: dict[str, Any], *values: float | str, status: str = "done", **changes: Any) -> dict[str, Any]:
    """The record of a cell: a value, or why there is none, for each of its lengths."""
    length = of["config"]["length"]
    common = {"schema": 1, "suite": "fake", "status": status, "reason": None, "traceback": None, **of}
    times = {"started": "2026-11-23T09:30:00+00:00", "ended": "2026-11-23T09:30:14+00:00", "seconds": 14.2}
    if status != "done":
        return {**common, "scores": [], "times": times, **changes}
    scores = [
        {"split": "test", "length": length * (1, 4)[index], "metric": "bits_per_character", "items": 8192}
        | ({"value": None, "why": value} if isinstance(value, str) else {"value": value, "why": None})
        for index, value in enumerate(values)
    ]
    return {
        **common,
        "metric": {"name": "bits_per_character", "title": TITLE, "better": "lower"},
        "scores": [*scores, {**scores[0], "split": "validation", "value": 9.99}],
        "baselines": {"unigram": UNIGRAM},
        "best_step": 400,
        "parameters": {"total": 123456, "positional": 64},
        "flops_per_token": 1.2e6,
        "tokens_seen": 819200,
        "tokens_per_second": 80000.0,
        "peak_memory_bytes": 5e8,
        "data": {
            "name": "Python standard library",
            "digest": "d" * 64,
            "bytes": 12345,
            "expected_bytes": None,
            "generated": False,
            "note": "",
        },
        "times": times,
        "backend": "sdpa",
        "code": {"commit": "abc123", "dirty": True},
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu"},
        "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None},
        **changes,
    }


def make_store(folder: Path, cells: list[dict[str, Any]], records: list[dict[str, Any]], **suite: Any) -> Store:
    store = Store(folder / "fake")
    described = {"name": "fake", "title": "A fake suite", "baseline": "sinusoidal", "claim": "rope"}
    described |= {"description": "", **suite}
    made = "2026-11-23T09:30:00+00:00"
    store.write_manifest({"schema": 1, "suite": described, "command": "posenc run fake", "made": made, "cells": cells})
    for one in records:
        store.write_record(one)
        if one["status"] != "done":
            continue
        rows: list[dict[str, Any]] = [{"step": 10, "tokens": 20480, "seconds": 0.4, "loss": None}]
        for step, above in ((100, 1.5), (200, 0.6), (300, 0.2), (400, 0.0)):
            value = one["scores"][0]["value"] + above
            rows.append({"step": step, "tokens": step * 2048, "seconds": step / 25, "split": "validation"})
            rows[-1] |= {"length": one["config"]["length"], "metric": "bits_per_character", "value": value}
        (store.cell_folder(one["id"]) / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return store


def simple_store(folder: Path, scores: dict[str, list[float]], **suite: Any) -> Store:
    """Encodings with a score a seed; at four times the length they are worse by 1."""
    pairs = [(cell(name, seed), value) for name, values in scores.items() for seed, value in enumerate(values)]
    return make_store(folder, [of for of, _ in pairs], [record(of, v, v + 1) for of, v in pairs], **suite)


def summary_of(store: Store) -> pd.DataFrame:
    manifest = store.read_manifest()
    return summary(scores_frame(store.records(), manifest), manifest)


def row_of(store: Store, encoding: str, evaluated: int, **where: Any) -> pd.Series:
    frame = summary_of(store)
    for key, value in {"encoding": encoding, "evaluated": evaluated, **where}.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def pages(store: Store) -> tuple[str, str]:
    path = write_report(store, store.folder / "report")
    return path.read_text(encoding="utf-8"), (path.parent / "report.md").read_text(encoding="utf-8")


def visible(html: str) -> str:
    """What a reader of the page sees, in one line. The one script is the report's, and the policy names its hash."""
    parts: list[str] = []

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert not any(name.startswith("on") for name, _ in attrs)
            self.inside = tag if tag in ("style", "script") else ""

        def handle_endtag(self, tag: str) -> None:
            self.inside = ""

        def handle_data(self, data: str) -> None:
            if self.inside == "script":
                assert data == SCRIPT
                assert f"script-src 'sha256-{base64.b64encode(sha256(data.encode()).digest()).decode()}'" in html
            elif not self.inside:
                parts.append(data)

    Reader().feed(html)
    return " ".join(" ".join(parts).split())


def printed(store: Store) -> str:
    console = Console(width=100, file=StringIO(), color_system=None)
    console.print(terminal_table(store))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= 100 for line in text.splitlines())
    return str(text)


def test_interval_worked_by_hand(tmp_path: Path) -> None:
    # rope: 3.0, 3.1, 3.2: mean 3.1, sd 0.1; t(0.975, 2) = 4.302653; half = 4.302653 * 0.1 / sqrt(3) = 0.248414.
    # sinusoidal: 3.2, 3.4, 3.3; differences -0.2, -0.3, -0.1: mean -0.2, sd 0.1, the same half.
    store = simple_store(tmp_path, {"sinusoidal": [3.2, 3.4, 3.3], "rope": [3.0, 3.1, 3.2]})
    row = row_of(store, "rope", 64)
    assert (row["n"], row["pairs"]) == (3, 3)
    assert row["mean"] == pytest.approx(3.1)
    assert row["sd"] == pytest.approx(0.1)
    assert (row["low"], row["high"]) == pytest.approx((3.1 - 0.248414, 3.1 + 0.248414), abs=1e-6)
    assert row["difference"] == pytest.approx(-0.2)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((-0.448414, 0.048414), abs=1e-6)
    assert row_of(store, "rope", 256)["mean"] == pytest.approx(4.1)
    html, page = pages(store)
    assert "3.100 ± 0.248" in visible(html)
    assert "−0.200 ± 0.248" in visible(html)
    assert "**3.100 ± 0.248** | −0.200 ± 0.248" in page
    assert re.search(r"rope +│? *3\.100 ± 0\.248 +−0\.200 ± 0\.248", printed(store))


@given(st.lists(st.tuples(*[st.floats(-5, 5).map(lambda x: round(x, 2))] * 2), min_size=2, max_size=9))
def test_interval_of_differences_is_scipys_paired_t(pairs: list[tuple[float, float]]) -> None:
    mine, theirs = (list(values) for values in zip(*pairs, strict=True))
    differences = [a - b for a, b in pairs]
    got = interval(differences)
    if max(differences) - min(differences) < 1e-9:
        assert got.half == pytest.approx(0, abs=1e-9)
        return
    expected = stats.ttest_rel(mine, theirs)
    limits = expected.confidence_interval(0.95)
    assert (got.low, got.high, got.p) == pytest.approx((limits.low, limits.high, expected.pvalue), rel=1e-6, abs=1e-9)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1 is 0.03, 0.06, 0.04; none may be below the one before it.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_pairs_only_seeds_that_both_have(tmp_path: Path) -> None:
    store = simple_store(tmp_path, {"sinusoidal": [3.2, 3.4], "rope": [3.0, 3.1, 9.0]})
    row = row_of(store, "rope", 64)
    assert (row["n"], row["pairs"]) == (3, 2)
    assert row["difference"] == pytest.approx(-0.25)  # seeds 0 and 1: -0.2, -0.3
    assert "difference over 2 seeds that the baseline sinusoidal has as well" in visible(pages(store)[0])


def test_one_seed_has_no_interval_and_says_so(tmp_path: Path) -> None:
    store = simple_store(tmp_path, {"sinusoidal": [3.2], "rope": [3.0]})
    row = row_of(store, "rope", 64)
    assert row["difference"] == pytest.approx(-0.2)
    assert all(math.isnan(row[key]) for key in ("sd", "low", "high", "difference_low", "p"))
    for text in (visible(pages(store)[0]), pages(store)[1], printed(store)):
        assert "one seed: no interval" in text
        assert "1 seed: too few for a claim (five needed)" in text
        assert not re.search(r"\d ± ", text)


def test_claims_only_from_five_seeds(tmp_path: Path) -> None:
    base = [3.2, 3.3, 3.25, 3.31, 3.19]
    scores = {"sinusoidal": base, "rope": [3.0, 3.1, 3.06, 3.12, 3.0], "none": [3.3, 3.2, 3.3, 3.25, 3.2]}
    few = simple_store(tmp_path / "few", {name: values[:4] for name, values in scores.items()})
    for text in (*pages(few), printed(few)):
        assert not re.search("(rope|none) is (better|worse)|told apart", text)
        assert "4 seeds: too few for a claim" in text
    enough = visible(pages(simple_store(tmp_path / "enough", scores))[0])
    assert "The named comparison, at 64: rope is better than sinusoidal (p " in enough
    assert "described, not claimed" in enough
    assert not re.search("(none|rope at 256) is (better|worse|not told)", enough)
    assert "too few" not in enough


def test_baseline_that_did_not_run_is_said(tmp_path: Path) -> None:
    cells = [cell("sinusoidal", 0), cell("rope", 0), cell("rope", 0, attention="performer")]
    store = make_store(tmp_path, cells, [record(of, 3.0, 4.0) for of in cells])
    row = row_of(store, "rope", 64, attention="performer")
    assert row["mean"] == 3.0
    assert row["pairs"] == 0
    html, page = pages(store)
    said = "no difference: the baseline sinusoidal was not run here"
    assert said in visible(html)
    assert said in page
    assert said in " ".join(printed(store).split())
    assert (
        "no baseline cell to hold it against: rope (enwik8, performer attention, trained at length 64, seed 0)"
        in visible(html)
    )


def test_suite_without_a_baseline(tmp_path: Path) -> None:
    store = simple_store(tmp_path, {"none": [3.2, 3.4], "rope": [3.0, 3.1]}, baseline=None)
    html, page = pages(store)
    for text in (visible(html), page, printed(store)):
        assert "the suite names no baseline" in text
        assert "3.050 ± 0.635" in text
        assert "difference from" not in text


def test_not_possible_failed_and_waiting(tmp_path: Path) -> None:
    why = "not possible: learned has 64 positions"
    cells = [cell(name, seed) for name in ("sinusoidal", "learned", "shaw", "rope") for seed in (0, 1)]
    records = [record(of, 3.2, 4.2) for of in cells[:2]] + [record(of, 3.4, why) for of in cells[2:4]]
    records += [record(of, status="not_possible", reason="shaw has no linear form") for of in cells[4:6]]
    records += [record(cells[6], status="failed", reason="loss is not finite", traceback=TRACEBACK)]
    store = make_store(tmp_path, cells, records)
    assert row_of(store, "learned", 256)["why"] == why
    assert row_of(store, "shaw", 256)["why"] == "not possible: shaw has no linear form"
    assert row_of(store, "rope", 64)["why"] == "1 seed: failed: loss is not finite; 1 seed: not run yet"
    html, page = pages(store)
    for text in (visible(html), page.replace("\\_", "_")):
        assert "RuntimeError: loss is not finite" in text
        assert "line 1, in step" not in text
        assert "enwik8/softmax/rope/L64/s1" in text  # waits
        assert why in text
        assert "8 cells: 4 done, 1 failed, 2 not possible, 1 not run yet" in text
    assert "learned, none at 256" in html
    assert "not possible: learned" in printed(store)


def test_no_finished_cell(tmp_path: Path) -> None:
    cells = [cell("sinusoidal", 0), cell("rope", 0)]
    nothing = make_store(tmp_path / "a", cells, [])
    failed = make_store(tmp_path / "b", cells, [record(cells[0], status="timed_out", reason="longer than 60 s")])
    for store in (nothing, failed):
        html, page = pages(store)
        assert "No cell has finished" in visible(html)
        assert "No cell has finished" in page
        assert "not run yet" in printed(store)
        assert not list((store.folder / "report").glob("figures/*"))
    assert "timed out: longer than 60 s" in visible(html)


def test_what_else_a_suite_varies_is_not_averaged(tmp_path: Path) -> None:
    cells = [cell(name, 0, learning_rate=rate) for name in ("sinusoidal", "rope") for rate in (0.001, 0.002)]
    store = make_store(
        tmp_path, cells, [record(of, value, 4.0) for of, value in zip(cells, (3, 3.5, 2, 2.9), strict=True)]
    )
    row = row_of(store, "rope", 64, variant="training.learning_rate=0.002")
    assert row["n"] == 1
    assert row["difference"] == pytest.approx(-0.6)
    assert configuration_differences(store.read_manifest()["cells"], "sinusoidal").empty


def test_configuration_differences(tmp_path: Path) -> None:
    cells = [cell("sinusoidal", 0), cell("rope", 0)]
    assert configuration_differences(cells, "sinusoidal").empty
    cells[1]["config"]["training"]["steps"] = 500
    found = configuration_differences(cells, "sinusoidal").to_dict("records")
    assert [(row["key"], row["value"], row["baseline_value"]) for row in found] == [("training.steps", 500, 400)]
    store = make_store(tmp_path, cells, [record(of, 3.0, 4.0) for of in cells])
    assert "training.steps is 500, the baseline's 400: rope" in visible(pages(store)[0])


@pytest.mark.filterwarnings("error")
def test_names_cannot_break_the_pages(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|`*_[x](y)$\\frac$&amp;\"'"
    store = simple_store(tmp_path, {"sinusoidal": [3.2, 3.3], evil: [3.0, 3.1]}, title=evil, description=evil)
    broken = record(cell(evil, 7), status="failed", reason=evil, traceback=f"x\n{evil}")
    manifest = store.read_manifest()
    store.write_manifest({**manifest, "cells": [*manifest["cells"], cell(evil, 7)], "command": evil})
    store.write_record(broken)
    html, page = pages(store)
    assert visible(html).count(evil) > 5  # the reader also holds that no tag is a script
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert "<script" not in rendered
    assert "<em>" not in rendered
    assert not re.search('<a (?!href="figures/)', rendered)  # our own links alone
    assert visible(rendered).count(evil) > 5
    assert rendered.count("<table>") == 3  # results, time and cost: no row fell out of its table
    assert len(set(re.findall(r"(?m)^\|.*$", page)[0].split(" | "))) > 3
    assert "alert(1)" in printed(store)


def test_page_is_self_contained(tmp_path: Path) -> None:
    html, page = pages(simple_store(tmp_path, {"sinusoidal": [3.2, 3.3], "rope": [3.0, 3.1]}))
    assert not re.search(
        r"https?:|//|@import|url\((?!#)|<script(?!>.use strict)|<link(?! rel=\"icon\" href=\"data:,\")", html
    )
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)
    assert ">rope</text>" in html
    assert "unigram (no model)</text>" in html
    for name in re.findall(r"\]\((figures/[^)]+)\)", page):
        assert (tmp_path / "fake" / "report" / name).is_file()


def test_same_records_same_bytes_and_no_global_state(tmp_path: Path) -> None:
    store = simple_store(tmp_path, {"sinusoidal": [3.2, 3.3], "rope": [3.0, 3.1]})
    before = dict(mpl.rcParams)
    contents = []
    for folder in ("a", "b"):
        write_report(store, tmp_path / folder)
        files = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / folder)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 14  # three figures with their CSV, five tables, LaTeX, two pages
    assert dict(mpl.rcParams) == before
    assert "sinusoidal & 2 & 3.250 $\\pm$ 0.635" in contents[0]["tables/summary.tex"].decode()
    csv = pd.read_csv(StringIO(contents[0]["tables/summary.csv"].decode()))
    assert csv.loc[csv["encoding"] == "rope", "mean"].tolist() == pytest.approx([3.05, 4.05])


def test_stale_figures_go_and_other_files_stay(tmp_path: Path) -> None:
    store = simple_store(tmp_path, {"sinusoidal": [3.2]})
    folder = store.folder / "report" / "figures"
    folder.mkdir(parents=True)
    for name in ("curve-old.svg", "mine.svg"):
        (folder / name).write_text("x")
    pages(store)
    assert not (folder / "curve-old.svg").exists()
    assert (folder / "mine.svg").exists()


def test_damaged_or_missing_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no results"):
        write_report(Store(tmp_path / "none"), tmp_path / "out")
    store = simple_store(tmp_path, {"sinusoidal": [3.2]})
    next(store.folder.rglob("curve.jsonl")).write_text("{broken\n{}\n")
    with pytest.raises(StoreError, match="damaged"):
        write_report(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_warnings_are_said_first_and_at_every_table(tmp_path: Path) -> None:
    of = cell("sinusoidal", 0)
    data = {"name": "enwik8", "digest": "e" * 64, "bytes": 500, "expected_bytes": 100_000_000, "generated": True}
    html, page = pages(make_store(tmp_path, [of], [record(of, 3.0, 4.0, data={**data, "note": "cut"})]))
    said = "enwik8 (generated data; only 500 of 100,000,000 bytes)"
    assert said in visible(html)
    assert said in page
    assert "\n- encodings: sinusoidal\n" in page  # lines of their own
    assert visible(html).index("only 500 of 100,000,000 bytes") < visible(html).index("Results")


def test_frames(tmp_path: Path) -> None:
    store = simple_store(tmp_path, {"sinusoidal": [3.2, 3.4], "rope": [3.0]})
    frame = load_records(store.folder)
    assert len(frame) == 9  # three cells: two lengths of the test split, one of validation
    first = frame.iloc[0]
    assert (first["task"], first["attention"], first["encoding"], first["length"]) == (
        *("enwik8", "softmax", "sinusoidal", 64),
    )
    cost = cost_table(frame).set_index("encoding")
    assert cost.loc["sinusoidal", "cells"] == 2
    assert cost.loc["rope", "tokens_per_second"] == 80000


def test_looks_are_stable_and_distinct() -> None:
    many = looks([f"mine{index}" for index in range(20)] + ["rope"])
    assert many["rope"] == looks(["rope", "sinusoidal"])["rope"]
    assert len(set(map(repr, many.values()))) == 21
    assert len(MARKERS) == len(FIXED_SLOTS)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_labels_never_overlap(wanted: list[float]) -> None:
    placed = spread(wanted, gap=0.1)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    heights = [placed[index] for index in order]
    assert all(above - below >= 0.1 - 1e-9 for below, above in itertools.pairwise(heights))
    assert min(heights) >= -1e-9
    assert max(heights) <= 1 + 1e-9


def test_words() -> None:
    assert with_half_width(3.01234, 0.0203, 3) == "3.012 ± 0.020"
    assert with_half_width(-0.5, 0.00001, 3, signed=True) == "−0.500 ± <0.001"
    assert number(-0.0001, 2, signed=True) == "0.00"
    assert number(None, 2) == "–"
    assert [short_count(x) for x in (12, 1200, 1.234e6, None)] == ["12", "1.2 k", "1.23 M", "–"]
    assert [duration(x) for x in (14.2, 200, 7500)] == ["14.2 s", "3 min 20 s", "2 h 05 min"]
    assert last_line(TRACEBACK) == "RuntimeError: loss is not finite"
    assert last_line(None) == ""
    assert markdown("a|b\n<c>`d`") == "a\\|b &lt;c&gt;\\`d\\`"
