"""`posenc new-encoding`: what it writes works as it is, in an environment of its own, and nothing is written over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from click.testing import CliRunner

from posenc.cli import main
from posenc.plan import scaffold

pytest_plugins = ["pytester"]


def test_it_writes_three_files_and_nothing_over_another(tmp_path: Path) -> None:
    arguments = ["new-encoding", "far_away", "--folder", str(tmp_path)]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    place = tmp_path / "posenc-far-away"
    names = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert names == {"pyproject.toml", "posenc_far_away.py", "tests/test_far_away.py"}
    assert 'far_away = "posenc_far_away:FarAway"' in (place / "pyproject.toml").read_text()
    (place / "pyproject.toml").write_text("mine")
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "is there already" in again.output
    assert (place / "pyproject.toml").read_text() == "mine"


@pytest.mark.parametrize("name", ["Far", "far-away", "1far", "", "../far"])
def test_a_name_that_is_none_for_a_module_is_refused(name: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["new-encoding", "--folder", str(tmp_path), "--", name])
    assert found.exit_code == 2 and "must be of small letters" in found.output
    assert not list(tmp_path.iterdir())


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


@pytest.mark.slow
def test_the_package_is_found_checked_run_and_named_in_the_report(tmp_path: Path) -> None:
    """Installed into an environment of its own, which sees this one's packages."""
    scaffold.new_encoding("far_away", tmp_path)
    package = tmp_path / "posenc-far-away"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    folders = subprocess.run(
        [tmp_path / "env/bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    own = [sysconfig.get_path("purelib"), str(Path(__file__).resolve().parent.parent)]
    (Path(folders.stdout.strip()) / "these.pth").write_text("\n".join(own) + "\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTEST_ADDOPTS")}

    def run(*arguments: object) -> str:
        done = subprocess.run(
            [tmp_path / "env/bin/python", "-m", *map(str, arguments)], cwd=package, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pip", "install", "--quiet", "--no-deps", package)
    rows = {row["name"]: row for row in json.loads(run("posenc", "list", "encodings", "--json"))}
    assert rows["far_away"]["package"] == "posenc-far-away 0.1.0"
    assert "does what it declares" in run("posenc", "check", "far_away", "--rounds", "0")
    run("pytest", "-q", "-p", "no:cacheprovider", "tests")
    run(
        "posenc", "run", "quick", "--encodings", "sinusoidal,far_away", "--seeds", "0", "--lengths", "16",
        "--set", "training.steps=20",
    )  # fmt: skip
    page = (package / "results/quick/report/index.html").read_text(encoding="utf-8")
    assert "posenc-far-away 0.1.0" in page and "s - m_h |n|, m_h = 2^(-8h/H)" in page
