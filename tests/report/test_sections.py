"""Sections of other packages, and what cannot be read: each costs itself alone, and is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made import cell, make_store, pages, record, visible

from posenc.api import entry_points, sections
from posenc.api.source_code import digest_of_package
from posenc.records.store import Store
from posenc.report import load_records, terminal_table, write_report
from posenc.report.compare import compare
from posenc.report.statistics.resampling import NOT_READABLE

CODE = """
import pandas as pd
from posenc.api.blocks import Figure, Link, List, Paragraph, Table
from posenc.api.sections import ReportSection, Section

class Mine(ReportSection):
    name = "mine"
    order = 15

    def make(self, view):
        best = view.summary["mean"].min()
        figure = Figure("own", "Own <figure>", "own", "<svg></svg>", pd.DataFrame({"x": ["=1+1", "2"]}))
        table = Table(("encoding",), tuple((name,) for name in dict.fromkeys(view.encodings)))
        said = Paragraph(("best <b> ", Link(f"{best:.3f}", "tables/best.csv")))
        return Section("Mine & <yours>", (said, table, figure), files={"best": pd.DataFrame({"best": [best]})})

class Empty(ReportSection):
    name = "empty"

    def make(self, view):
        return None

class Raises(ReportSection):
    name = "raises"
    order = 1

    def make(self, view):
        return view.nothing

class Wrong(ReportSection):
    name = "wrong"

    def make(self, view):
        return Section("Wrong", ("a text", List((1,))))

class Unsvg(ReportSection):
    name = "unsvg"

    def make(self, view):
        return Section("Unsvg", (Figure("unsvg", "t", "a", "no picture", pd.DataFrame()),))

class NoFrame(ReportSection):
    name = "noframe"

    def make(self, view):
        return Section("NoFrame", (Paragraph("x"),), files={"x": 7})

class NoSection(ReportSection):
    name = "nosection"

    def make(self, view):
        return "text"

class Other(ReportSection):
    name = "another"

class Plain:
    name = "plain"
"""
FAULTY = {
    "raises": "AttributeError: 'View' object has no attribute 'nothing'",
    "wrong": "TypeError: str is no block of a report",
    "unsvg": "ValueError: figure unsvg: its text holds no SVG",
    "noframe": "TypeError: tables/x is of int: a table or a text must be given",
    "nosection": "TypeError: make() gave str: it must give a Section or None",
    "other": "must say name = 'other'",
    "plain": "is no subclass of posenc.api.sections.ReportSection",
    "gone": "No module named 'not_there'",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Lays out a package with sections as pip does: name to `module:Class`."""

    def install(code: str = CODE, version: str = "1.2", **targets: str) -> None:
        info = tmp_path / "site" / "own_sections-1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: own-sections\nVersion: {version}\n")
        points = "\n".join(f"{name} = {target}" for name, target in targets.items())
        (info / "entry_points.txt").write_text(f"[posenc.sections]\n{points}\n")
        (tmp_path / "site" / "own_sections.py").write_text(code)
        sections._installed.cache_clear()
        entry_points._brought.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield install
    sys.modules.pop("own_sections", None)
    sections._installed.cache_clear()
    entry_points._brought.cache_clear()


def store_of(folder: Path) -> Store:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
    store = make_store(folder, cells, [])
    for of, value in zip(cells, (3.2, 3.4, 3.0, 3.1), strict=True):
        arrays = {"test/64/weight": np.ones(9), "test/64/bits_per_character": np.full(9, value)}
        store.write_record(record(of, value, value + 1, items=store.write_items(of["id"], arrays)))
        rows = [{"step": 10 * n, "tokens": 10 * n, "seconds": n, "split": "validation", "length": 64,
                 "metric": "bits_per_character", "value": value + 1 / n} for n in (1, 2)]  # fmt: skip
        (store.cell_folder(of["id"]) / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return store


def test_another_packages_section_stands_on_both_pages(tmp_path: Path, installed: Callable[..., None]) -> None:
    installed(mine="own_sections:Mine", empty="own_sections:Empty")
    store = store_of(tmp_path)
    html, page = pages(store)
    assert html.index('<section id="answer"') < html.index('<section id="mine"') < html.index('<section id="compared"')
    assert '<a href="#mine">Mine &amp; &lt;yours&gt;</a>' in html
    assert "## Mine &amp; &lt;yours&gt;" in page
    for text in (visible(html), page.replace("&lt;", "<").replace("&gt;", ">")):
        assert "best <b> " in text
        assert "3.050" in text
        assert "Own <figure>" in text
    report = store.folder / "report"
    assert pd.read_csv(report / "tables" / "best.csv")["best"].tolist() == [pytest.approx(3.05)]
    assert (report / "figures" / "own.svg").read_text() == "<svg></svg>"
    assert (report / "figures" / "own.csv").read_text() == "x\n'=1+1\n2\n"
    assert "Empty" not in html
    assert "What could not be read or drawn" not in html


def test_a_faulty_section_costs_itself_and_is_named(tmp_path: Path, installed: Callable[..., None]) -> None:
    store = store_of(tmp_path)
    installed()
    before = {path.name: path.read_text() for path in write_report(store, tmp_path / "before").parent.rglob("*.csv")}
    classes = {"raises": "Raises", "wrong": "Wrong", "unsvg": "Unsvg", "noframe": "NoFrame", "nosection": "NoSection",
               "other": "Other", "plain": "Plain", "mine": "Mine"}  # fmt: skip
    installed(gone="not_there:Gone", **{name: f"own_sections:{kind}" for name, kind in classes.items()})
    html, page = pages(store)
    for text in (visible(html), page.replace("\\_", "_")):
        unread = text[text.rindex("What could not be read or drawn") :]
        for name, cause in FAULTY.items():
            assert f"section {name} of own-sections 1.2 (" in unread
            assert cause in unread
        assert "section mine" not in unread
        assert "own-sections" not in text[: text.rindex("What could not be read or drawn")]
    assert "<h2>Mine &amp; &lt;yours&gt;</h2>" in html
    after = {path.name: path.read_text() for path in (store.folder / "report").rglob("*.csv")}
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {"best.csv", "own.csv"}


def test_a_name_of_ours_is_not_taken(tmp_path: Path, installed: Callable[..., None]) -> None:
    """Two claim `cost`: ours is not silently another's."""
    installed(CODE.replace('"mine"', '"cost"'), cost="own_sections:Mine")
    html, _ = pages(store_of(tmp_path))
    assert "<h2>Cost</h2>" in html
    assert "report section &#39;cost&#39; is claimed by posenc.report.sections.cost:Cost of posenc" in html


def test_a_report_is_made_again_where_a_section_changed(tmp_path: Path, installed: Callable[..., None]) -> None:
    store = store_of(tmp_path)
    installed(mine="own_sections:Mine")
    assert "best &lt;b&gt;" in pages(store)[0]
    sys.modules.pop("own_sections")
    digest_of_package.cache_clear()
    installed(CODE.replace("best <b>", "the least of all means"), mine="own_sections:Mine")
    assert "the least of all means" in pages(store)[0]
    installed()
    assert "the least of all means" not in pages(store)[0]


def damage(path: Path) -> str:
    path.write_bytes(b"\x00damaged" + path.read_bytes()[:40] + b"\n")
    return str(path)


def test_damaged_items_cost_their_interval(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    whole = pd.read_csv(write_report(store, tmp_path / "whole").parent / "tables" / "summary.csv")
    rope = next(one["id"] for one in store.read_manifest()["cells"] if "/rope/" in one["name"])
    path = damage(store.cell_folder(rope) / "items.npz")
    html, page = pages(store)
    for text in (visible(html), page.replace("\\_", "_")):
        assert path in text[text.index("What could not be read or drawn") :]
        assert f"No interval over test items: {NOT_READABLE}." in text
    pd.testing.assert_frame_equal(pd.read_csv(store.folder / "report" / "tables" / "summary.csv"), whole)


def test_a_damaged_curve_costs_its_line(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    rope = next(one["id"] for one in store.read_manifest()["cells"] if "/rope/" in one["name"])
    path = damage(store.cell_folder(rope) / "curve.jsonl")
    html, _ = pages(store)
    assert path in visible(html)[visible(html).index("What could not be read or drawn") :]
    curve = pd.read_csv(next((store.folder / "report" / "figures").glob("curve-*.csv")))
    assert rope not in set(curve["id"])
    assert curve["id"].nunique() == 3


def test_a_damaged_record_costs_its_cell(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    rope = next(one["id"] for one in store.read_manifest()["cells"] if "/rope/" in one["name"])
    other = store_of(tmp_path / "other")
    path = damage(store.cell_folder(rope) / "record.json")
    html, page = pages(store)
    for text in (visible(html), page.replace("\\_", "_")):
        assert path in text[text.index("What could not be read or drawn") :]
        assert "4 cells: 3 done, 1 not readable" in text
        assert "its record is damaged" in text
        assert "3.100" in text  # the other seed's score
    assert set(load_records(store.folder).set_index("id").loc[[rope], "status"]) == {"not readable"}
    assert terminal_table(store)
    found = compare(store, other)
    assert any(path in line for line in found.cautions)
    assert [how for _, _, how in found.alone] == ["not readable in A, done in B"]
