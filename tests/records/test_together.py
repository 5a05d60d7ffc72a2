"""Results folders of several machines or seeds, read as one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import cell, make_store, record, visible

from posenc.cli import main
from posenc.common.errors import StoreError
from posenc.records.store import Store
from posenc.records.together import together
from posenc.report import write_report
from posenc.report.statistics import claims
from posenc.report.view import View

BASE = [3.2, 3.3, 3.25, 3.31, 3.19, 3.27, 3.24]


def part(folder: Path, seeds: range, made: str = "2026-11-23T09:30:00+00:00", hour: str = "09", **suite: Any) -> Store:
    """Some seeds of one suite, trained in an hour."""
    cells = [cell(name, seed) for seed in seeds for name in ("sinusoidal", "rope")]
    times = {"started": f"2026-11-23T{hour}:30:00+00:00", "ended": f"2026-11-23T{hour}:50:00+00:00", "seconds": 14.2}
    records = []
    for one in cells:
        seed = one["config"]["seed"]
        value = BASE[seed] - (0.2 + seed / 100 if one["config"]["encoding"]["name"] == "rope" else 0)
        records.append(record(one, value, value + 1, times=times))
    store = make_store(folder, cells, records, definition="a", **suite)
    store.write_manifest({**store.read_manifest(), "made": made})
    return store


def test_seeds_of_two_folders_are_one_suite(tmp_path: Path) -> None:
    parts = [part(tmp_path / "a", range(3)), part(tmp_path / "b", range(3, 5))]
    whole, one = View(together(parts)).summary, View(part(tmp_path / "c", range(5))).summary
    assert whole.drop(columns=["looks"]).equals(one.drop(columns=["looks"]))
    (row,) = whole[whole["named"].astype(bool)].to_dict("records")
    assert claims.verdict(row) == "better" and row["looks"] == 1
    page = write_report(together(parts), tmp_path / "report")
    assert "better in 1 of 1" in visible(page.read_text())
    assert not list((tmp_path / "a/fake").glob("report*"))


@pytest.mark.parametrize(
    ("made", "looks"),
    [("2026-11-23T09:31:00+00:00", 1), ("2026-11-23T10:31:00+00:00", 2)],
    ids=["while the first ran", "after the first had ended"],
)
def test_seeds_that_another_folder_adds_after_a_look_are_an_extension(tmp_path: Path, made: str, looks: int) -> None:
    parts = [part(tmp_path / "a", range(5)), part(tmp_path / "b", range(5, 7), made, hour="10")]
    summary = View(together(parts[::-1])).summary
    assert set(summary["looks"]) == {looks}


def test_two_records_of_one_cell_must_be_the_same(tmp_path: Path) -> None:
    first, second = part(tmp_path / "a", range(2)), part(tmp_path / "b", range(1, 3), hour="11")
    assert len(list(together([first, second]).records())) == 6
    other = next(one for one in second.records() if one["config"]["seed"] == 1)
    other["scores"][0]["value"] += 1e-9
    second.write_record(other)
    with pytest.raises(StoreError, match=f"two different records of {other['name']}: in .*a/fake and in .*b/fake"):
        together([first, second])


def test_a_damaged_record_costs_itself_alone(tmp_path: Path) -> None:
    first, second = part(tmp_path / "a", range(2)), part(tmp_path / "b", range(1, 3))
    for one in list(first.records()):
        (first.cell_folder(one["id"]) / "record.json").write_text("null")
    both = together([first, second])
    page = write_report(both, tmp_path / "report").read_text()
    done = {one["config"]["seed"] for one in View(both).records if one["status"] == "done"}
    assert done == {1, 2}  # seed 1 is whole in the second folder
    assert "What could not be read" in visible(page)


def test_other_suites_and_other_cells_are_refused(tmp_path: Path) -> None:
    first = part(tmp_path / "a", range(2))
    for changes, said in (({"name": "other"}, "'fake' and 'other'"), ({"definition": "b"}, "other cells")):
        second = part(tmp_path / said.replace("'", ""), range(2, 4))
        manifest = second.read_manifest()
        second.write_manifest({**manifest, "suite": {**manifest["suite"], **changes}})
        with pytest.raises(StoreError, match="are not of one suite") as error:
            together([first, second])
        assert said in str(error.value)
    second = part(tmp_path / "c", range(2))
    manifest = second.read_manifest()
    manifest["cells"][0]["id"] = "f" * 16
    second.write_manifest(manifest)
    with pytest.raises(StoreError, match=f"{manifest['cells'][0]['name']} is another cell"):
        together([first, second])


def test_the_command_asks_where_to_and_writes_there(tmp_path: Path) -> None:
    folders = [str(part(tmp_path / name, seeds).folder) for name, seeds in (("a", range(2)), ("b", range(2, 4)))]
    refused = CliRunner().invoke(main, ["report", *folders])
    assert refused.exit_code == 2 and "--output" in refused.output
    done = CliRunner().invoke(main, ["report", *folders, "--output", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    assert (
        "4 seeds" in (tmp_path / "both/report.md").read_text() or "4 of 5" in (tmp_path / "both/report.md").read_text()
    )
    shutil.rmtree(folders[1])
    gone = CliRunner().invoke(main, ["report", *folders, "--output", str(tmp_path / "both")])
    assert gone.exit_code == 2 and "no results in" in gone.output
