"""The command line in processes of its own: what it prints, its exit status, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest
from runs import apart, start, stop, wait_until, workers_of
from warm import Process

from posenc.records.store import Store

TINY = [
    "--set", "backbone.layers=1", "--set", "backbone.width=16", "--set", "backbone.heads=2",
    "--set", "training.batch=4", "--set", "backbone.feedforward=16", "--set", "training.validate_every=5",
    "--set", "evaluation.tokens=256",
    "--set", "backbone.attention=softmax",
]  # fmt: skip


def posenc(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return apart(folder, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quik"], ["unknown suite or task 'quik'", "did you mean 'quick'"]),
        (["run", "quick", "--encodings", "ropee"], ["ropee", "did you mean 'rope'", "--encodings"]),
        (["run", "quick", "--encodings", "rope(basis=3)"], ["basis", "known: base"]),
        (["run", "quick", "--set", "training.steps=lots"], ["training.steps", "lots", "integer"]),
        (["run", "quick", "--set", "training.steps"], ["KEY=VALUE"]),
        (["run", "quick", "--device", "tpu"], ["--device", "tpu", "'cpu', 'cuda'"]),
        (["run", "quick", "--jobs", "0"], ["--jobs 0"]),
        (["run", "quick", "--rerun", "some"], ["--rerun", "'some'", "missing"]),
        (["run", "quick", "--seeds", "x"], ["whole numbers"]),
        (["run", "enwik8", "--scale", "small", "--data", "nowhere"], ["nowhere", "no such folder"]),
        (["run", "missing.toml"], ["missing.toml", "no such file"]),
        (["status", "quick"], ["no results in"]),
        (["report", "quick"], ["no results in"]),
        (["check", "nothing"], ["unknown encoding 'nothing'"]),
        (["show", "nothing"], ["unknown name 'nothing'"]),
        (["ui"], ["no mlflow.db"]),
        (["list", "things"], ["encodings", "tasks", "suites"]),
    ],
)
def test_bad_input_is_a_line_or_two_status_2_and_nothing_written(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = posenc(*arguments, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_zip_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "enwik8.zip", "w") as archive:
        archive.writestr("enwik8", "text" * 10_000)
    raw = (tmp_path / "enwik8.zip").read_bytes()
    (tmp_path / "enwik8.zip").write_bytes(raw[: len(raw) // 2])
    done = posenc("run", "enwik8", "--scale", "small", "--data", str(tmp_path), folder=tmp_path)
    assert done.returncode == 2
    assert "enwik8.zip is damaged" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"enwik8.zip"}


def test_lists_and_descriptions_answer(tmp_path: Path) -> None:
    names = {row["name"] for row in json.loads(posenc("list", "encodings", "--json", folder=tmp_path).stdout)}
    assert {"none", "sinusoidal", "learned", "t5", "shaw", "rope", "rope_outside"} <= names
    assert "enwik8" in posenc("list", "tasks", folder=tmp_path).stdout
    assert "quick" in posenc("list", "suites", folder=tmp_path).stdout
    assert "base: float = 10000.0" in posenc("show", "rope", folder=tmp_path).stdout
    assert 'baseline = "sinusoidal"' in posenc("show", "quick", folder=tmp_path).stdout
    plan = posenc("plan", "enwik8", "--scale", "paper", folder=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "not at hand" in plan.stdout
    assert "FLOPs" in plan.stdout


@pytest.mark.slow
def test_check_passes_for_rope(tmp_path: Path) -> None:
    done = posenc("check", "rope", "--lengths", "72", "--rounds", "0", folder=tmp_path)
    assert done.returncode == 0
    assert "does what it declares" in done.stdout


def test_a_run_leaves_records_a_report_and_a_mirror_and_runs_only_what_is_missing(tmp_path: Path) -> None:
    arguments = ["run", "quick", "--seeds", "0", "--lengths", "16", "--set", "training.steps=10", *TINY]
    first = posenc(*arguments, "--encodings", "rope,learned,rope_outside", folder=tmp_path)
    assert first.returncode == 0, first.stderr + first.stdout
    store = Store(tmp_path / "results" / "quick")
    records = {record["config"]["encoding"]["name"]: record for record in store.records()}
    assert {name: record["status"] for name, record in records.items()} == {
        "rope": "done", "learned": "done", "rope_outside": "not_possible",
    }  # fmt: skip
    assert "report: " in first.stdout
    page = (store.folder / "report" / "index.html").read_text()
    assert "it has 16 positions, and 64 were asked for" in page
    assert (tmp_path / "results" / "mlflow.db").is_file()
    before = {record["id"]: record["digest"] for record in records.values()}
    more = posenc(*arguments, "--encodings", "rope,learned,rope_outside,none", folder=tmp_path)
    assert "4 cells, 3 finished before" in more.stdout
    after = {record["id"]: record["digest"] for record in store.records()}
    assert before.items() <= after.items()
    assert len(after) == 4
    status = posenc("status", "quick", folder=tmp_path)
    assert "done          3" in status.stdout
    assert "not possible  1" in status.stdout
    assert "4 cells in sqlite" in posenc("sync", "quick", folder=tmp_path).stdout


@pytest.mark.slow
def test_a_failed_cell_stops_no_other_and_makes_status_3_with_the_list_last(tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(
        'name = "mine"\ntitle = "One diverges"\nbaseline = "none"\nseeds = [0]\n[[grid]]\ntasks = ["enwik8"]\n'
        'encodings = ["none"]\nvary = { "training.learning_rate" = [1e-3, 1e30] }\nset = { "training.warmup" = 0 }\n'
    )
    done = posenc("run", str(suite), "--lengths", "16", "--set", "training.steps=10", *TINY, folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert {record["status"] for record in Store(tmp_path / "results" / "mine").records()} == {"done", "failed"}
    assert "failed: enwik8/softmax/none/L16/learning_rate=1e+30/s0: diverged" in done.stdout
    again = posenc(
        "run", str(suite), "--lengths", "16", "--set", "training.steps=10", *TINY, "--rerun", "failed", folder=tmp_path
    )
    assert "2 cells, 1 finished before" in again.stdout
    assert "failed        1" in posenc("status", str(suite), folder=tmp_path).stdout
    assert posenc("report", "mine.toml", folder=tmp_path).returncode == 0


def _start(tmp_path: Path) -> Process:
    arguments = ["run", "quick", "--seeds", "0", "--set", "training.steps=100000", "--encodings", "rope,none", *TINY]
    process = start(tmp_path, *arguments, "--jobs", "2")
    wait_until(lambda: len(list(tmp_path.glob("results/quick/cells/*/curve.jsonl"))) == 2 or process.poll() is not None)
    assert process.poll() is None
    return process


@pytest.mark.slow
def test_a_second_driver_is_told_who_holds_the_suite(tmp_path: Path) -> None:
    process = _start(tmp_path)
    try:
        second = posenc("run", "quick", "--seeds", "0", "--encodings", "none", *TINY, folder=tmp_path)
        assert second.returncode == 2
        assert f"in use by process {process.pid} on" in second.stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # leaves the lock's file: the next run must not mind
        process.wait()
    again = ["run", "quick", "--seeds", "0", "--lengths", "16", "--set", "training.steps=5", *TINY]
    assert posenc(*again, "--encodings", "none", folder=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_record_changed_by_hand_is_named_and_set_aside(tmp_path: Path) -> None:
    arguments = ["run", "quick", "--seeds", "0", "--lengths", "16", "--set", "training.steps=5", *TINY, "--encodings"]
    assert posenc(*arguments, "none,rope", folder=tmp_path).returncode == 0
    store = Store(tmp_path / "results" / "quick")
    first = {record["id"]: record for record in store.records()}
    changed, cut = (store.cell_folder(cell_id) / "record.json" for cell_id in first)
    changed.write_text(changed.read_text().replace('"status": "done"', '"status": "failed"'))
    cut.write_text(cut.read_text()[:200])
    status = posenc("status", "quick", folder=tmp_path)
    assert "unusable      2" in status.stdout
    assert f"{changed} was changed after it was written" in status.stdout
    again = posenc(*arguments, "none,rope", folder=tmp_path)
    assert again.returncode == 0
    assert "was changed after it was written" in again.stdout
    assert "is damaged" in again.stdout
    assert changed.with_name("record.unusable.json").is_file()
    assert {r["id"]: r["scores"] for r in store.records()} == {i: r["scores"] for i, r in first.items()}


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = _start(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    assert list(Store(tmp_path / "results" / "quick").records()) == []
    assert len(list(tmp_path.glob("results/quick/cells/*/checkpoint.pt"))) == 2


def test_a_worker_killed_once_costs_nothing_but_its_last_steps_and_workers_end_with_their_driver(
    tmp_path: Path,
) -> None:
    process = _start(tmp_path)
    try:
        first = workers_of(process)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: len(now := workers_of(process)) == 2 and now != first)
        assert process.poll() is None
        assert list(Store(tmp_path / "results" / "quick").records()) == []
        # The new worker is there before it has taken its cell.
        wait_until(lambda: "running       2" in posenc("status", "quick", folder=tmp_path).stdout)
        status = posenc("status", "quick", folder=tmp_path).stdout
        assert f"run now by process {process.pid} on" in status
        workers = workers_of(process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        assert list(tmp_path.glob("results/quick/cells/*/checkpoint.pt"))  # of the one that was at work all the time
    finally:
        stop(process)
    assert "started       2" in posenc("status", "quick", folder=tmp_path).stdout
