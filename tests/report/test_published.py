"""Published results: their tables follow from their records, and no seed is left out."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from posenc.cli import main
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.published import unpacked
from posenc.report import write_report

PUBLISHED = Path(__file__).resolve().parent.parent.parent / "reports" / "published"
NAMES = sorted(path.parent.name for path in PUBLISHED.glob("*/records.tar.xz"))


def test_something_is_published() -> None:
    assert "quick" in NAMES


def test_a_published_folder_is_read_as_it_lies(tmp_path: Path) -> None:
    run = CliRunner()
    refused = run.invoke(main, ["report", str(PUBLISHED / "quick")])
    assert refused.exit_code == 2 and "--output: must say where the report goes" in refused.output
    done = run.invoke(main, ["report", str(PUBLISHED / "quick"), "--output", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "made" / "index.html").is_file()
    names = {path.name for path in (tmp_path / "made" / "tables").iterdir()}
    assert names == {path.name for path in (PUBLISHED / "quick" / "tables").iterdir()}
    told = run.invoke(main, ["compare", str(PUBLISHED / "quick"), str(PUBLISHED / "quick")])
    assert told.exit_code == 0, told.output


@pytest.mark.parametrize(
    ("content", "words"), [(b"no archive", "is damaged"), (None, "holds 0 folders with a suite.json")]
)
def test_a_damaged_archive_is_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    archive = tmp_path / "records.tar.xz"
    if content is None:
        tarfile.open(archive, "w:xz").close()
    else:
        archive.write_bytes(content)
    done = CliRunner().invoke(main, ["report", str(tmp_path), "--output", str(tmp_path / "made")])
    assert done.exit_code == 2 and words in " ".join(done.output.split())
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_made_again_from_the_records(name: str, tmp_path: Path) -> None:
    store = unpacked(PUBLISHED / name, tmp_path)
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
