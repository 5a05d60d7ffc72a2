"""`posenc new-encoding` and its like: what is written works as it is, installed by itself; nothing is written over."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scratch import Scratch

from posenc.cli import main
from posenc.plan import scaffold
from posenc.records.store import Store

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "encoding": ["posenc_far_away.py"],
    "objective": ["far_away.toml", "posenc_far_away.py"],
    "source": ["far_away.toml", "posenc_far_away.py"],
    "tasks": ["posenc_far_away/bytes.toml", "posenc_far_away/pieces.toml", "posenc_far_away/text.txt"],
}
POINTS = {
    "encoding": {"posenc.encodings": {"far_away": "posenc_far_away:FarAway"}},
    "objective": {"posenc.objectives": {"far_away": "posenc_far_away:FarAway"}},
    "source": {"posenc.sources": {"far_away": "posenc_far_away:corpus"}},
    "tasks": {"posenc.tasks": {"far_away": "posenc_far_away"}},
}

kinds = pytest.mark.parametrize("kind", scaffold.KINDS)


@kinds
def test_it_writes_a_package_and_nothing_over_another(kind: str, tmp_path: Path) -> None:
    arguments = [f"new-{kind}", "far_away", "--folder", str(tmp_path)]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    place = tmp_path / "posenc-far-away"
    names = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert names == {"pyproject.toml", *FILES[kind], "tests/test_far_away.py"}
    assert {Path(line) for line in found.output.splitlines()} == {place / name for name in names}
    (place / "pyproject.toml").write_text("mine")
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "is there already" in again.output
    assert (place / "pyproject.toml").read_text() == "mine"


@kinds
def test_what_is_written_can_be_read(kind: str, tmp_path: Path) -> None:
    written = {path.name: path for path in scaffold.new(kind, "far_away", tmp_path)}
    project = tomllib.loads(written["pyproject.toml"].read_text())
    assert project["project"]["name"] == "posenc-far-away"
    assert project["project"]["entry-points"] == POINTS[kind]
    for name, path in written.items():
        text = path.read_text(encoding="utf-8")
        assert "$" not in text
        if name.endswith(".toml"):
            tomllib.loads(text)
        elif name.endswith(".py"):
            assert ast.get_docstring(ast.parse(text))
    (installed,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert (tmp_path / "posenc-far-away" / installed).exists()


@kinds
def test_what_is_written_passes_ruff(kind: str, tmp_path: Path) -> None:
    """By the rules of posenc's own tests."""
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    rules = ["--select", ",".join(own["lint"]["select"]), "--ignore", "D100,D103," + ",".join(own["lint"]["ignore"])]
    shape = ["--isolated", "--no-cache", "--line-length", str(own["line-length"]), "--target-version", "py311"]
    scaffold.new(kind, "far_away", tmp_path)
    for command in (["check", *shape, *rules], ["format", "--check", *shape]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=tmp_path / "posenc-far-away",
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@kinds
@pytest.mark.parametrize("name", ["Far", "far-away", "1far", "", "../far", "none"])
def test_a_name_that_is_none_for_a_module_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(main, [f"new-{kind}", "--folder", str(tmp_path), "--", name])
    assert found.exit_code == 2
    assert ("None is a word of Python's own" if name == "none" else "must be of small letters") in found.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_fixture_fails_where_an_encoding_lies(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        mine="""
        from posenc import Encoding


        class Lies(Encoding):
            tells_order, linear_reason = True, "not built: it is wrong"

            def initialise(self, generator):
                pass
        """,
        test_mine="""
        def test_mine(check_encoding):
            check_encoding("./mine.py:Lies", lengths=(), names=("loads", "order"))


        def test_rope(check_encoding):
            check_encoding("rope", lengths=(), names=("loads", "order"))
        """,
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "test_mine.py")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*does not do what it declares:*", "*order: it declares tells_order=True*"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scratch, dict[str, Path]]:
    """The packages of all kinds, by kind, in one environment; each has `own_` before its kind for a name."""
    folder = tmp_path_factory.mktemp("packages")
    scratch = Scratch(folder / "env")
    packages = {kind: scaffold.new(kind, f"own_{kind}", folder)[0].parent for kind in scaffold.KINDS}
    scratch.install(*packages.values())
    return scratch, packages


def trained(scratch: Scratch, package: Path, task: str, results: Path | None = None) -> dict[str, Any]:
    """The record of a short run of a task at smoke scale, from its package's folder."""
    results = results or package / "results"
    scratch.run(
        package, "posenc", "run", task, "--scale", "smoke", "--encodings", "rope", "--seeds", "0",
        "--set", "training.steps=40", "--results", results,
    )  # fmt: skip
    (manifest,) = results.glob("*/suite.json")
    (record,) = Store(manifest.parent).records()
    assert record["status"] == "done"
    return dict(record)


def scores_on_test(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [score for score in record["scores"] if score["split"] == "test"]


@pytest.mark.slow
def test_an_encoding_is_found_checked_run_and_named_in_the_report(installed: tuple[Scratch, dict[str, Path]]) -> None:
    scratch, packages = installed
    package = packages["encoding"]
    rows = {row["name"]: row for row in json.loads(scratch.run(package, "posenc", "list", "encodings", "--json"))}
    assert rows["own_encoding"]["package"] == "posenc-own-encoding 0.1.0"
    assert "does what it declares" in scratch.run(package, "posenc", "check", "own_encoding", "--rounds", "0")
    # What its own test of the declarations asks stands in the line above.
    scratch.run(package, "pytest", "-q", "-p", "no:cacheprovider", "tests", "-k", "not declares")
    scratch.run(
        package, "posenc", "run", "quick", "--encodings", "sinusoidal,own_encoding", "--seeds", "0",
        "--lengths", "16", "--set", "training.steps=20",
    )  # fmt: skip
    page = (package / "results/quick/report/index.html").read_text(encoding="utf-8")
    assert "posenc-own-encoding 0.1.0" in page and "s - m_h |n|, m_h = 2^(-8h/H)" in page


@pytest.mark.slow
def test_an_objective_is_found_and_its_task_trained(installed: tuple[Scratch, dict[str, Path]]) -> None:
    scratch, packages = installed
    package = packages["objective"]
    scratch.run(package, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    record = trained(scratch, package, "./own_objective.toml")
    assert record["config"]["objective_package"] == "posenc-own-objective 0.1.0"
    assert list(record["plugins"]) == ["own_objective"]
    assert [(score["metric"], score["length"]) for score in scores_on_test(record)] == [("copied", 32), ("copied", 64)]
    assert record["baselines"] == {"guessing": 1 / 16}
    page = (package / "results/own_objective/report/index.html").read_text(encoding="utf-8")
    assert "share of symbols copied" in page and "generated data" in page


@pytest.mark.slow
def test_a_source_is_found_and_a_task_over_it_trained(installed: tuple[Scratch, dict[str, Path]]) -> None:
    scratch, packages = installed
    package = packages["source"]
    scratch.run(package, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    asked = "from posenc.data.sources import SOURCES; print(SOURCES.entry('own_source').package)"
    found = subprocess.run(
        [scratch.python, "-c", asked], env=scratch.environment, cwd=package, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() == "posenc-own-source 0.1.0"
    record = trained(scratch, package, "./own_source.toml")
    assert list(record["plugins"]) == ["own_source"]
    assert record["data"]["name"] == "own_source" and record["data"]["generated"]
    assert record["data"]["rows"] == {"train": 4000, "validation": 500, "test": 1000}
    assert [score["metric"] for score in scores_on_test(record)] == ["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "metric"), [("bytes", "bits_per_character"), ("pieces", "bits_per_byte")])
def test_tasks_are_listed_with_their_package_and_trained(
    task: str, metric: str, installed: tuple[Scratch, dict[str, Path]], tmp_path: Path
) -> None:
    scratch, packages = installed
    package = packages["tasks"]
    rows = {row["name"]: row for row in json.loads(scratch.run(package, "posenc", "list", "tasks", "--json"))}
    assert rows[f"own_tasks/{task}"]["package"] == "posenc-own-tasks 0.1.0"
    scratch.run(package, "pytest", "-q", "-p", "no:cacheprovider", "tests", "-k", task)
    record = trained(scratch, package, f"own_tasks/{task}", results=tmp_path)
    assert record["config"]["task"] == f"own_tasks/{task}"
    assert record["data"]["name"] == "text.txt"
    assert scores_on_test(record)[0]["metric"] == metric
