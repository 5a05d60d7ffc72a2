"""The report, from made-up records: what it computes, what it says, and that nothing in a name can break it."""

from __future__ import annotations

import csv
import itertools
import math
import re
import warnings
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import TRACEBACK, cell, make_store, pages, record, simple_store, visible
from markdown_it import MarkdownIt
from rich.console import Console
from scipy import stats

from posenc.common.errors import StoreError
from posenc.records.store import Store
from posenc.report import load_records, terminal_table, write_report
from posenc.report.figures.labels import spread
from posenc.report.figures.style import looks
from posenc.report.statistics.intervals import holm, interval
from posenc.report.statistics.tables import configuration_differences, cost_table, scores_frame, summary
from posenc.report.words import duration, last_line, markdown, number, short_count, with_half_width


def summary_of(store: Store) -> pd.DataFrame:
    manifest = store.read_manifest()
    return summary(scores_frame(store.records(), manifest), manifest)


def row_of(store: Store, encoding: str, evaluated: int, **where: Any) -> pd.Series:
    frame = summary_of(store)
    for key, value in {"encoding": encoding, "evaluated": evaluated, **where}.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1
    return frame.iloc[0]


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
        assert "Not yet a claim: 1 of 5 seeds" in text
        assert not re.search(r"\d ± ", text)


def test_claims_only_from_five_seeds(tmp_path: Path) -> None:
    base = [3.2, 3.3, 3.25, 3.31, 3.19]
    scores = {"sinusoidal": base, "rope": [3.0, 3.1, 3.06, 3.12, 3.0], "none": [3.3, 3.2, 3.3, 3.25, 3.2]}
    few = simple_store(tmp_path / "few", {name: values[:4] for name, values in scores.items()})
    for text in (*pages(few), printed(few)):
        assert not re.search("(rope|none) is (better|worse)|told apart", text)
        assert "Not yet a claim: 4 of 5 seeds" in text
    assert "observed to be better in 1 of 1 (not yet a claim: 4 of 5 seeds)." in visible(pages(few)[0])
    enough = visible(pages(simple_store(tmp_path / "enough", scores))[0])
    assert "The named comparison, at 64: rope is better than sinusoidal (p " in enough
    assert "described, not claimed" in enough
    assert not re.search("(none|rope at 256) is (better|worse|not told)", enough)
    assert "Not yet a claim" not in enough


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


def test_without_its_baseline_a_suite_has_scores_by_length_and_no_differences(tmp_path: Path) -> None:
    cells = [cell("none", 0), cell("rope", 0), cell("learned", 0)]
    records = [*(record(of, 3.0, 4.0) for of in cells[:2]), record(cells[2], 3.1, "not possible: it has 64 positions")]
    store = make_store(tmp_path, cells, records, claim="")
    html, page = pages(store)
    assert "By length" in visible(html)
    assert not re.search(r"\bnan\b", visible(html) + page)


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
    assert not re.search('<a (?!href="(figures/|tables/|#|../cells/))', rendered)  # our own links alone
    assert visible(rendered).count(evil) > 5
    # The answer by length, results, score by length, equal cost and cost: no row fell out of its table.
    assert rendered.count("<table>") == 5
    assert len(set(re.findall(r"(?m)^\|.*$", page)[0].split(" | "))) > 3
    assert "alert(1)" in printed(store)


@pytest.mark.parametrize("values", [[0.1] * 5, [0.7 - 0.6, 0.65 - 0.55, 0.9 - 0.8, 0.3 - 0.2, 1.1 - 1.0], [-0.25] * 8])
def test_equal_differences_are_no_claim(tmp_path: Path, values: list[float]) -> None:
    """Quantised scores: without a spread there is no test (p was 0)."""
    assert math.isnan(interval(values).p)
    base = [3.0 + seed / 4 for seed in range(len(values))]
    scores = {"sinusoidal": base, "rope": [b - v for b, v in zip(base, values, strict=True)]}
    store = simple_store(tmp_path, scores)
    assert math.isnan(row_of(store, "rope", 64)["p_holm"])
    html, page = pages(store)
    for text in (visible(html), page):
        assert "without a spread there is no test" in text
        assert "rope is better than" not in text
        assert "rope is worse than" not in text


def test_damaged_or_missing_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no results"):
        write_report(Store(tmp_path / "none"), tmp_path / "out")
    store = simple_store(tmp_path, {"sinusoidal": [3.2]})
    store.manifest_path.write_text("{broken")
    with pytest.raises(StoreError, match="damaged"):
        write_report(store, tmp_path / "other")
    assert not (tmp_path / "other").exists()


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


def test_a_plugins_package_and_version_are_shown_in_all(tmp_path: Path) -> None:
    cells = [cell(name, seed) for name in ("sinusoidal", "mine", "mine.py:Own") for seed in (0, 1)]
    told = {"mine": {"version": "3", "package": "my-alibi 1.2"},
            "mine.py:Own": {"package": "a file", "source": "f00d" * 16}}  # fmt: skip
    for one in cells:
        one["config"]["encoding"] |= told.get(one["config"]["encoding"]["name"], {})
    store = make_store(tmp_path, cells, [record(of, 3.0 + of["config"]["seed"], 4.0) for of in cells])
    html, page = pages(store)
    said = "posenc 0.1.0 (sinusoidal); my-alibi 1.2 (mine, version 3); a file (mine.py:Own, SHA-256 f00df00df00d)"
    assert f"packages of encodings {said}" in visible(html)
    assert f"packages of encodings: {said}" in page
    for name in ("scores", "summary", "cost"):
        table = pd.read_csv(store.folder / "report" / "tables" / f"{name}.csv")
        assert dict(zip(table["encoding"], table["package"], strict=True)) == {
            "sinusoidal": "posenc 0.1.0", "mine": "my-alibi 1.2", "mine.py:Own": "a file"
        }  # fmt: skip
    frame = load_records(store.folder)
    assert set(frame.loc[frame["encoding"] == "mine", "encoding_version"]) == {"3"}


EVIL_CELLS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("evil", EVIL_CELLS)
def test_no_text_of_a_csv_is_a_formula(tmp_path: Path, evil: str) -> None:
    cells = [{**cell(name, seed), "label": evil} for name in ("sinusoidal", evil) for seed in (0, 1)]
    records = [record(of, -0.5 + of["config"]["seed"], evil) for of in cells]
    store = make_store(tmp_path, cells, records, title=evil)
    pages(store)
    files = list((store.folder / "report").rglob("*.csv"))
    assert len(files) >= 6
    numbers = 0
    for path in files:
        for row in csv.reader(StringIO(path.read_bytes().decode(), newline="")):
            for text in row:
                if text[:1] in "=+-@\t\r" and text:
                    float(text)  # a number stays one
                    numbers += 1
    assert numbers > 0


def test_nothing_in_a_name_acts_on_a_terminal_or_breaks_a_figure(tmp_path: Path) -> None:
    evil = "a\x1b[31m\u202eb\nc\td\re\x00"
    cells = [{**cell(name, seed), "label": evil} for name in ("sinusoidal", "rope") for seed in (0, 1)]
    cells[3]["config"]["encoding"]["name"] = evil
    records = [record(of, 3.0 + of["config"]["seed"], evil) for of in cells]
    records[2] = record(cells[2], status="failed", reason=evil, traceback=f"x\n{evil}")
    store = make_store(tmp_path, cells, records, title=evil, description=evil)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pages(store)
    for path in (store.folder / "report").rglob("*.*"):
        text = path.read_bytes().decode()
        assert not set(text) & set("\x1b\u202e\x00\r"), path.name
        if path.suffix == ".svg":
            ElementTree.fromstring(text)
    assert not set(printed(store)) & set("\x1b\u202e\x00\r")


def test_looks_are_stable_and_distinct() -> None:
    many = looks([f"mine{index}" for index in range(20)] + ["rope"])
    assert many["rope"] == looks(["rope", "sinusoidal"])["rope"]
    assert len(set(map(repr, many.values()))) == 21


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
