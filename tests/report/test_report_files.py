"""The report as files: one page that asks nobody, the same bytes for the same records, nothing of a user's lost."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from made import pages, simple_store

from posenc.common.errors import StoreError
from posenc.report import write_report


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
    assert len(contents[0]) == 15  # three figures with their CSV, five tables, LaTeX, two pages, the list
    assert dict(mpl.rcParams) == before
    assert "sinusoidal & 2 & 3.250 $\\pm$ 0.635" in contents[0]["tables/summary.tex"].decode()
    csv = pd.read_csv(StringIO(contents[0]["tables/summary.csv"].decode()))
    assert csv.loc[csv["encoding"] == "rope", "mean"].tolist() == pytest.approx([3.05, 4.05])


def test_only_files_that_an_earlier_report_listed_are_removed(tmp_path: Path) -> None:
    """The user's own may have names like figures'."""
    store = simple_store(tmp_path, {"sinusoidal": [3.0, 3.1], "rope": [2.8, 2.9]})
    output = tmp_path / "thesis"
    mine = [output / name for name in ("figures/length-of-my-thesis.pdf", "figures/curve-old.svg", "answer.txt")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    write_report(store, output)
    listed = json.loads((output / "files.json").read_text())["files"]
    curve = next(output / name for name in listed if name.startswith("figures/curve-"))
    assert curve.is_file()
    manifest = store.read_manifest()
    manifest["cells"] = [one for one in manifest["cells"] if one["config"]["encoding"]["name"] == "nothing"]
    store.write_manifest(manifest)
    write_report(store, output)
    assert not curve.exists(), "of an earlier run: beside this report it would mislead"
    assert [path.read_text() for path in mine] == ["mine"] * 3


@pytest.mark.parametrize("name", ["index.html", "report.md"])
def test_a_users_page_is_not_written_over(tmp_path: Path, name: str) -> None:
    store = simple_store(tmp_path, {"sinusoidal": [3.0, 3.1], "rope": [2.8, 2.9]})
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("mine")
    with pytest.raises(StoreError, match="was not written by a report"):
        write_report(store, tmp_path / "site")
    assert [path.name for path in (tmp_path / "site").iterdir()] == [name]


def test_a_report_is_made_again_only_where_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.report import write

    made = []
    original = write.write_report
    monkeypatch.setattr(write, "write_report", lambda *given: (made.append(1), original(*given)))
    store = simple_store(tmp_path, {"sinusoidal": [3.0, 3.1], "rope": [2.8, 2.9]})
    output = tmp_path / "out"
    for _ in range(3):
        write_report(store, output)
    assert len(made) == 1
    (output / "tables" / "scores.csv").unlink()
    write_report(store, output)
    changed = next(iter(store.records()))
    store.write_record({**changed, "tokens_per_second": 1.0})
    write_report(store, output)
    curve = store.cell_folder(changed["id"]) / "curve.jsonl"
    curve.write_text(curve.read_text() + '{"step": 500, "tokens": 1, "seconds": 1, "loss": 1}\n')
    write_report(store, output)
    write_report(store, output)
    assert len(made) == 4
