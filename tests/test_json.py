"""`--json`: one object on standard output, nothing else, with the keys that the README names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import cell, make_store, record
from runs import options

from posenc.bench import card
from posenc.cli import main
from posenc.common.text import as_json
from posenc.report.compare import FIELDS
from posenc.running.status import COUNTED

README = Path(__file__).resolve().parent.parent / "README.md"


def documented(command: str) -> set[str]:
    (row,) = re.findall(rf"^\| `posenc {command} [^`]*--json` \| (.*) \|$", README.read_text(encoding="utf-8"), re.M)
    return set(re.findall(r"`(\w+)`", row))


def said(*arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == status, done.output
    assert done.stderr == ""
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def keys_of(value: Any, *below: str) -> set[str]:
    """The keys of an object, and those of the objects that stand under `below`."""
    found = set(value)
    for key in below:
        for one in value[key] if isinstance(value[key], list) else [value[key]]:
            found |= set(one)
    return found


def stores(folder: Path) -> tuple[str, str]:
    both = []
    for name, values in (("a", (3.0, 3.1)), ("b", (3.2, 3.1))):
        cells = [cell("rope", seed) for seed in range(2)] + [cell(name, 0), cell("none", 0)]
        records = [record(of, value, 4.0) for of, value in zip(cells, values, strict=False)]
        records.append(record(cells[3], status="failed", reason="diverged \x1b[2J"))
        both.append(str(make_store(folder / name, cells, records, title=name).folder))
    return both[0], both[1]


def test_plan() -> None:
    found = said("plan", "enwik8", "--encodings", "rope,rope_outside", "--seeds", "0-1", *options(), "--json")
    assert keys_of(found, "cells") == documented("plan")
    assert {type(one["why_not"]) for one in found["cells"]} == {str, type(None)}


def test_status(tmp_path: Path) -> None:
    first, _ = stores(tmp_path)
    found = said("status", "fake", "--results", str(Path(first).parent), "--json")
    assert keys_of(found, "counts", "failed") == documented("status")
    assert list(found["counts"]) == list(COUNTED)
    assert (found["folder"], found["cells"], found["run_by"]) == (first, 4, None)
    assert (found["counts"]["done"], found["counts"]["failed"], found["counts"]["left"]) == (2, 1, 1)
    assert found["failed"][0]["reason"] == "diverged \x1b[2J"


def test_status_names_who_runs_it(tmp_path: Path) -> None:
    one = cell("rope", 0)
    store = make_store(tmp_path, [one], [])
    with store.locked("posenc run fake"):
        found = said("status", "fake", "--results", str(tmp_path), "--json")
    assert found["run_by"]["command"] == "posenc run fake"


def test_compare(tmp_path: Path) -> None:
    found = said("compare", *stores(tmp_path), "--output", str(tmp_path / "out"), "--json")
    assert keys_of(found, "a", "changes", "alone") == documented("compare")
    assert (found["pairs"], found["a"]["cells"]) == (3, 4)
    (row,) = (row for row in found["scores"] if row["evaluated"] == 64 and row["encoding"] == "rope")
    assert set(row) == set(FIELDS)
    assert row["difference"] == pytest.approx(0.1) and row["n"] == 2 and row["main"] is True
    assert {one["where"] for one in found["alone"]} == {"only in A", "only in B"}
    assert (tmp_path / "out" / "compare.csv").is_file(), "and what was asked for beside it"


def a_card(encoding: str = "alibi", passed: bool = True) -> card.Card:
    finding = card.Finding("loads", "It loads.", "alibi", "as declared", passed)
    return card.Card(encoding, [], [finding], [0.0, float("nan")], None)


def test_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[bool] = []

    def measure(*given: Any, silent: bool) -> card.Card:
        asked.append(silent)
        return a_card(passed=len(asked) < 4)

    monkeypatch.setattr(card, "measure", measure)
    found = said("check", "alibi", "--json")
    assert keys_of(found, "findings") | {"median", "low", "high", "machine"} == documented("check")
    assert found["decay"] == [0.0, None] and found["passed"] is True
    assert said("check", "alibi", "--json", "-") == found
    file = tmp_path / "card.json"
    done = CliRunner().invoke(main, ["check", "alibi", "--json", str(file)])
    assert (done.exit_code, done.stdout, json.loads(file.read_text())) == (0, "", found)
    assert asked == [True, True, False], "with a file, findings are told as before"
    assert said("check", "alibi", "--json", status=3)["passed"] is False


def test_check_tells_findings_or_json_never_both(monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_card()
    monkeypatch.setattr(card.check, "measure", lambda *given, **more: made.findings)
    monkeypatch.setattr(card, "make", lambda *given: made)
    assert said("check", "alibi", "--json")["findings"][0]["name"] == "loads"
    told = CliRunner().invoke(main, ["check", "alibi"]).stdout
    assert "does what it declares" in told and "{" not in told


def test_list() -> None:
    assert {"quick", "paper"} <= {row["name"] for row in said("list", "suites", "--json")}


def test_an_error_leaves_standard_output_empty(tmp_path: Path) -> None:
    for arguments in (["status", "quick"], ["compare", "quick", "quick"], ["plan", "quik"], ["check", "ropee"]):
        more = [] if arguments[0] in ("plan", "check") else ["--results", str(tmp_path)]
        done = CliRunner().invoke(main, [*arguments, *more, "--json"])
        assert (done.exit_code, done.stdout) == (2, "") and done.stderr


def test_what_is_no_number_is_null() -> None:
    value = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf"), "d": None}, "e": Path("x")}
    assert json.loads(as_json(value)) == {"a": [None, [None, 1.5]], "b": {"c": None, "d": None}, "e": "x"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_what_the_readme_says(shell: str) -> None:
    assert f"_POSENC_COMPLETE={shell}_source posenc" in README.read_text(encoding="utf-8")
    done = CliRunner().invoke(main, prog_name="posenc", env={"_POSENC_COMPLETE": f"{shell}_source"})
    assert done.exit_code == 0 and "_POSENC_COMPLETE" in done.output
    words = {"COMP_WORDS": "posenc run quick --scale sm", "COMP_CWORD": "4" if shell != "fish" else "sm"}
    done = CliRunner().invoke(main, prog_name="posenc", env={"_POSENC_COMPLETE": f"{shell}_complete", **words})
    assert "smoke" in done.output or "small" in done.output
