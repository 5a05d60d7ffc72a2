"""Published results: their tables follow from their records, and no seed is left out."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pandas as pd
import pytest

from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.report import write_report

PUBLISHED = Path(__file__).resolve().parent.parent.parent / "reports" / "published"
NAMES = sorted(path.parent.name for path in PUBLISHED.glob("*/records.tar.xz"))


def test_something_is_published() -> None:
    assert "quick" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_made_again_from_the_records(name: str, tmp_path: Path) -> None:
    with tarfile.open(PUBLISHED / name / "records.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    store = Store(tmp_path / name)
    write_report(store, tmp_path / "report")
    tables = sorted((PUBLISHED / name / "tables").glob("*.csv"))
    assert {path.name for path in tables} == {path.name for path in (tmp_path / "report/tables").glob("*.csv")}
    for path in tables:
        ours, theirs = (pd.read_csv(each) for each in (tmp_path / "report/tables" / path.name, path))
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9)  # sums differ in the last bits between processors
    planned = {(cell["config"]["encoding"]["name"], cell["config"]["seed"]) for cell in store.read_manifest()["cells"]}
    assert {(one["config"]["encoding"]["name"], one["config"]["seed"]) for one in store.records()} == planned
    # More seeds of it join these, and a run of fewer encodings forgets none: it is still the same suite.
    assert (
        make(find_suite(name), Selection(), need_data=False).definition == store.read_manifest()["suite"]["definition"]
    )
