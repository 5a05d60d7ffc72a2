"""What a command loads, by what a process has imported when it ends.

Commands that need no torch share one process: none may load it, and each is told by what it has loaded by then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment, options, posenc

SUITE = ("enwik8", "--encodings", "none", "--seeds", "0", "--lengths", "16", *options(training__steps=2))
REPORT = {"scipy", "seaborn", "pandas", "matplotlib", "statsmodels"}
CODE = """
import atexit, os, sys
wanted = os.environ["WANTED"].split(",")
atexit.register(lambda: print("LOADED", *sorted(set(sys.modules) & set(wanted))))
from posenc.cli import main
main(sys.argv[1:])
"""
ONE_AFTER_ANOTHER = """
import json, sys
from posenc.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code or 0
    print("LOADED" + json.dumps([status, sorted({"posenc", "torch"} & set(sys.modules))]), flush=True)
"""


def loaded(folder: Path, *arguments: str, of: set[str], status: int = 0) -> set[str]:
    """Which modules of `of` a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=folder, env=environment(WANTED=",".join(of)), text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny suite has run."""
    folder = tmp_path_factory.mktemp("finished")
    posenc(folder, "run", *SUITE)
    return folder


@pytest.mark.parametrize(
    ("commands", "status"),
    [
        (
            ["status enwik8", "list tasks", "list suites", "show quick", "compare enwik8 enwik8", "report enwik8",
             "report enwik8 --output elsewhere"], 0,
        ),
        (
            ["run quik", "plan quik", "status quik", "report quik", "compare quik enwik8", "show quik",
             "run quick --tasks enwik", "run quick --encodings none,roope", "run quick --scale smal",
             "run quick --rerun mising", "run quick --engine raay"], 2,
        ),
    ],
    ids=["answered", "mistyped"],
)  # fmt: skip
def test_what_needs_no_model_loads_no_torch(finished: Path, commands: list[str], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps([command.split() for command in commands])],
        cwd=finished, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    told = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert dict(zip(commands, told, strict=True)) == {key: [status, ["posenc"]] for key in commands}, done.stderr


def test_a_report_that_is_up_to_date_loads_none_of_its_libraries(finished: Path) -> None:
    loaded(finished, "report", "enwik8", of=set())
    assert loaded(finished, "report", "enwik8", of=REPORT) == set()


@pytest.mark.parametrize("encodings", ["rope,t5,fox", pytest.param("all", marks=pytest.mark.slow)])
def test_a_plan_loads_neither_the_compiler_nor_the_reports_libraries(tmp_path: Path, encodings: str) -> None:
    found = loaded(tmp_path, "plan", "quick", "--encodings", encodings, of={"torch", "torch._dynamo", *REPORT})
    assert found == {"torch"}


def test_a_finished_suite_starts_no_worker_and_makes_no_report_again(finished: Path) -> None:
    posenc(finished, "run", *SUITE)
    pages = [path for path in (finished / "results/enwik8/report").rglob("*") if path.is_file()]
    before = {path: path.stat() for path in pages}
    heavy = {"torch._dynamo", "mlflow", "multiprocessing.popen_spawn_posix", "posenc.report.write"}
    assert pages and loaded(finished, "run", *SUITE, of=heavy) == set()
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in pages} == {
        path: (found.st_ino, found.st_mtime_ns) for path, found in before.items()
    }


@pytest.mark.slow
def test_a_mirror_that_is_gone_is_made_again(finished: Path) -> None:
    posenc(finished, "run", *SUITE)
    (finished / "results/mlflow.db").unlink()
    assert loaded(finished, "run", *SUITE, of={"mlflow"}) == {"mlflow"}
    assert os.path.getsize(finished / "results/mlflow.db") and loaded(finished, "run", *SUITE, of={"mlflow"}) == set()
