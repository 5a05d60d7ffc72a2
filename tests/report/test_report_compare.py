"""`posenc compare`: two suites, or one at two commits, paired cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from made import cell, make_store, record
from markdown_it import MarkdownIt

from posenc.cli import main
from posenc.common.errors import StoreError
from posenc.records.store import Store
from posenc.report.compare import compare


def store_of(folder: Path, scores: dict[str, list[float]], *, code: str = "abc123", **changes: Any) -> Store:
    pairs = [
        (cell(name, seed, **changes), value) for name, values in scores.items() for seed, value in enumerate(values)
    ]
    made = {"code": {"commit": code, "dirty": False}}
    return make_store(folder, [of for of, _ in pairs], [record(of, v, v + 1, **made) for of, v in pairs])


A = {"sinusoidal": [3.2, 3.4, 3.3], "rope": [3.0, 3.1, 3.2]}


def test_differences_by_hand(tmp_path: Path) -> None:
    # rope: 3.1 - 3.0, 3.3 - 3.1, 3.5 - 3.2: mean 0.2, sd 0.1; half 4.302653 x 0.1 / sqrt(3) = 0.248414.
    a = store_of(tmp_path / "a", A)
    b = store_of(tmp_path / "b", {"sinusoidal": A["sinusoidal"], "rope": [3.1, 3.3, 3.5]}, code="def456", steps=500)
    found = compare(a, b)
    row = found.scores[(found.scores["encoding"] == "rope") & (found.scores["evaluated"] == 64)].iloc[0]
    assert (row["n"], row["mean_a"], row["mean_b"]) == (3, pytest.approx(3.1), pytest.approx(3.3))
    assert row["difference"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == pytest.approx((0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
    assert found.pairs == 6
    assert ("training.steps", "400", "500") in found.changes
    assert ("code", "abc123", "def456") in found.changes
    assert not [what for what, _, _ in found.changes if what.startswith("suite")]
    same = found.scores[found.scores["encoding"] == "sinusoidal"]
    assert (same["same"] == 3).all()


def test_what_has_no_pair_is_named_and_never_averaged_in(tmp_path: Path) -> None:
    a = store_of(tmp_path / "a", A)
    b = store_of(tmp_path / "b", {"sinusoidal": [3.2, 3.4], "rope": [3.0], "none": [3.9]})
    found = compare(a, b)
    assert set(found.scores["encoding"]) == {"sinusoidal", "rope"}
    assert found.scores.set_index(["encoding", "evaluated"])["n"].to_dict() == {
        ("sinusoidal", 64): 2,
        ("sinusoidal", 256): 2,
        ("rope", 64): 1,
        ("rope", 256): 1,
    }
    where = [(place, name.split("/")[2], name.rsplit("/", 1)[1]) for place, name, _ in found.alone]
    assert where == [("only in A", "sinusoidal", "s2"), ("only in A", "rope", "s1"), ("only in A", "rope", "s2"),
                     ("only in B", "none", "s0")]  # fmt: skip


def test_endings_that_differ_are_said(tmp_path: Path) -> None:
    of = cell("rope", 0)
    a = make_store(tmp_path / "a", [of], [record(of, 3.0, 4.0)])
    b = make_store(tmp_path / "b", [of], [record(of, status="failed", reason="loss is not finite")])
    found = compare(a, b)
    assert found.alone == (("ended otherwise", of["name"], "done in A, failed in B"),)
    assert (found.scores["n"] == 0).all() or found.scores.empty


def test_other_data_is_warned_of(tmp_path: Path) -> None:
    a, of = store_of(tmp_path / "a", {"rope": [3.0]}), cell("rope", 0)
    of["config"]["data"]["digest"] = "e" * 64
    b = make_store(tmp_path / "b", [of], [record(of, 2.0)])
    assert any("The data differ" in caution for caution in compare(a, b).cautions)
    assert any(what == "data.digest" for what, _, _ in compare(a, b).changes)


def test_nothing_in_common_is_bad_input(tmp_path: Path) -> None:
    a = store_of(tmp_path / "a", {"rope": [3.0]})
    b = make_store(tmp_path / "b", [cell("rope", 0, length=128)], [])
    with pytest.raises(StoreError, match=r"no cell of .* has a pair"):
        compare(a, b)


def test_on_the_command_line(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|`*_[x](y)"
    a = store_of(tmp_path / "a", {**A, evil: [3.0, 3.1, 3.2]})
    b = store_of(tmp_path / "b", {**A, evil: [3.1, 3.3, 3.5]}, learning_rate=0.004)
    output = tmp_path / "out"
    done = CliRunner().invoke(main, ["compare", str(a.folder), str(b.folder), "--output", str(output)])
    assert done.exit_code == 0, done.output
    assert all(len(line) <= 100 for line in done.output.splitlines() if "/" not in line)
    assert "+0.200 ± 0.248" in done.output
    assert "the same to the bit" in done.output
    assert "3 seeds: too few for a claim" in done.output
    page = (output / "compare.md").read_text()
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    assert "<script" not in rendered
    assert "alert(1)" in rendered
    assert rendered.count("<table>") == 2  # what changed, and the scores
    assert "| training.learning\\_rate | 0.002 | 0.004 |" in page
    frame = pd.read_csv(output / "compare.csv")
    assert frame.loc[frame["encoding"] == evil, "difference"].tolist() == pytest.approx([0.2, 0.2])
    assert "training.learning_rate" in (output / "changes.csv").read_text()


@pytest.mark.parametrize("wrong", ["nothing-here", "quick"])
def test_bad_input_exits_with_2(tmp_path: Path, wrong: str) -> None:
    a = store_of(tmp_path / "a", A)
    done = CliRunner().invoke(main, ["compare", str(a.folder), wrong, "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert "no results in" in done.output
