"""The MLflow mirror against real SQLite databases, with records and curves that no training made."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from mirrored import (
    Told,
    history,
    make_cell,
    make_store,
    rows_in_database,
    runs_of,
    strict_mirror,
    write_record,
    write_rows,
)

from posenc.common.errors import ConfigError, StoreError
from posenc.tracking.mirror import Mirror, sync
from posenc.tracking.place import default_uri
from posenc.tracking.told import CURVE_POINTS, diverged_at, extra_axes, metric_name, run_names, summaries, thin
from posenc.tracking.ui import ui_command

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_import_loads_no_mlflow() -> None:
    code = "import sys, posenc.tracking.mirror; sys.exit(bool({'mlflow', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_default_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_uri(Path("results")) == f"sqlite:///{tmp_path}/results/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert default_uri(Path("results")) == "http://127.0.0.1:1"
    with pytest.raises(ConfigError, match="already"):
        ui_command(default_uri(tmp_path))


def test_a_cell_that_ended(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell, make_cell(seed=1)])
    write_rows(store, cell, range(10, 401, 10))
    write_record(store, cell)
    strict_mirror(store).update()
    (run,) = runs_of(store).values()
    assert run.info.run_name == "rope/L64/s0"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 14000
    assert run.data.params == {
        "id": cell["id"],
        "package": "posenc 0.1.0",
        "encoding_version": "1",
        "encoding": "rope",
        "task": "enwik8",
        "length": "64",
        "seed": "0",
        "backbone": "softmax",
        "scale": "smoke",
        "schema": "1",
        "backbone.layers": "2",
        "training.steps": "400",
        "training.learning_rate": "0.002",
    }
    assert run.data.metrics["test/bits_per_character/L64"] == 3.0
    assert "test/bits_per_character/L256" not in run.data.metrics
    assert run.data.metrics["chosen/bits_per_character/L64"] == 3.1
    assert run.data.metrics["parameters"] == 123456
    assert run.data.metrics["tokens_per_second"] == 80000
    assert run.data.metrics["seconds"] == 14.2
    tags = run.data.tags
    assert (tags["package"], tags["encoding_version"]) == ("posenc 0.1.0", "1")
    assert (tags["status"], tags["backend"], tags["commit"]) == ("done", "sdpa", "abc123")
    assert tags["group"] == run.info.run_name.removesuffix("/s0")
    assert "L256: not possible" in tags["not_possible"]
    assert "diverged" not in tags
    assert len(history(store, run, "train/loss")) == 40
    assert history(store, run, "validation/bits_per_character/L64") == [(s, 4.1) for s in (100, 200, 300, 400)]
    folder = tmp_path / "results" / "mlartifacts" / run.info.run_id / "artifacts"
    assert json.loads((folder / "record.json").read_text())["id"] == cell["id"]


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    cells = [make_cell(), make_cell(seed=1)]
    store = make_store(tmp_path, cells)
    for cell in cells:
        write_rows(store, cell, range(1, 400))
    write_record(store, cells[0])
    report = store.folder / "report"
    report.mkdir()
    (report / "index.html").write_text("<p>report</p>")
    mirror = strict_mirror(store)
    mirror.update()
    mirror.finish(report)
    before = rows_in_database(store)
    mirror.update()
    mirror.finish(report)
    assert rows_in_database(store) == before
    again = strict_mirror(store)
    again.update()
    again.finish(report)
    assert rows_in_database(store) == before
    assert sync(store, default_uri(store.folder.parent)) == 2
    assert rows_in_database(store) == before


def test_a_running_cell_sends_only_new_points(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    mirror = strict_mirror(store)
    mirror.update()
    assert runs_of(store) == {}
    write_rows(store, cell, range(1, 51))
    mirror.update()
    (run,) = runs_of(store).values()
    assert (run.info.status, run.data.tags["status"]) == ("RUNNING", "running")
    assert len(history(store, run, "train/loss")) == 50
    write_rows(store, cell, range(51, 101))
    mirror.update()
    assert len(history(store, run, "train/loss")) == 100
    write_rows(store, cell, range(101, 151))
    mirror = strict_mirror(store)  # a driver that was started again
    sent: list[Any] = []
    mirror.update()
    write_rows(store, cell, range(151, 161))
    original = mirror._client.log_batch

    def spy(run_id: str, metrics: list[Any], *rest: Any, **named: Any) -> None:
        sent.extend(metrics)
        original(run_id, metrics, *rest, **named)

    mirror._client.log_batch = spy
    mirror.update()
    assert [metric.step for metric in sent] == list(range(151, 161))
    write_record(store, cell)
    mirror.update()
    (run,) = runs_of(store).values()
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(store, run, "train/loss")] == list(range(1, 161))


def test_a_resumed_curve_goes_on_and_a_new_one_replaces(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_rows(store, cell, range(1, 51))
    mirror = strict_mirror(store)
    mirror.update()
    (run,) = runs_of(store).values()
    (store.cell_folder(cell["id"]) / "curve.jsonl").unlink()
    write_rows(store, cell, range(1, 31))  # back at a checkpoint
    mirror.update()
    write_rows(store, cell, range(31, 61))
    mirror.update()
    (same,) = runs_of(store).values()
    assert same.info.run_id == run.info.run_id
    assert len(history(store, same, "train/loss")) == 60
    (store.cell_folder(cell["id"]) / "curve.jsonl").unlink()
    write_rows(store, cell, range(1, 101), loss=5.0)
    mirror.update()
    (other,) = runs_of(store).values()
    assert other.info.run_id != run.info.run_id
    assert history(store, other, "train/loss")[0] == (1, 5.0 - 0.001)


def test_a_cell_that_ran_again_has_one_run(tmp_path: Path) -> None:
    cell = make_cell()
    store = make_store(tmp_path, [cell])
    write_rows(store, cell, range(1, 11))
    write_record(store, cell, "failed")
    mirror = strict_mirror(store)
    mirror.update()
    assert next(iter(runs_of(store).values())).info.status == "FAILED"
    store.remove(cell["id"])
    mirror.update()
    write_rows(store, cell, range(1, 6))
    mirror.update()
    assert next(iter(runs_of(store).values())).info.status == "RUNNING"
    write_record(store, cell)
    mirror.update()
    (run,) = runs_of(store).values()
    assert run.data.tags["status"] == "done"
    assert "reason" not in run.data.tags
    assert len(history(store, run, "train/loss")) == 5


def test_not_possible_and_diverged(tmp_path: Path) -> None:
    impossible, diverging = make_cell("learned"), make_cell("none")
    store = make_store(tmp_path, [impossible, diverging])
    write_record(store, impossible, "not_possible")
    write_rows(store, diverging, range(1, 6))
    write_rows(store, diverging, range(6, 9), loss=None)
    with (store.cell_folder(diverging["id"]) / "curve.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": NaN, "grad_norm": Infinity}\n')
    write_record(store, diverging, value=float("3"))
    strict_mirror(store).update()
    runs = runs_of(store)
    tags = runs["learned/L64/s0"].data.tags
    assert (tags["status"], tags["reason"]) == ("not_possible", "learned has 64 positions")
    assert runs["learned/L64/s0"].data.metrics == {"seconds": 14.2}
    assert runs["none/L64/s0"].data.tags["diverged"] == "at step 6"
    assert len(history(store, runs["none/L64/s0"], "train/loss")) == 5


@pytest.mark.parametrize("steps", [1, 2, 498, 499, 500, 501, 1000, 12345])
def test_thinning(steps: int) -> None:
    rows = [{"step": step, "seconds": step, "loss": 1.0, "learning_rate": 0.1} for step in range(steps + 1)]
    points = thin(rows, steps, ended=True)
    for key in ("train/loss", "train/learning_rate"):
        taken = [point.step for point in points if point.key == key]
        assert len(taken) == min(steps + 1, len(taken)) <= CURVE_POINTS
        assert len(taken) == steps + 1 or len(taken) >= CURVE_POINTS // 2
        assert taken == sorted(set(taken))
        assert (taken[0], taken[-1]) == (0, steps)
        gaps = [after - before for before, after in pairwise(taken)]
        assert max(gaps) - min(gaps[:-1], default=1) <= 1 or steps <= 2
    for part in (1, len(rows) // 3, len(rows)):
        some = thin(rows[:part], steps, ended=False)
        assert points[: len(some)] == some  # what was sent stays right
    assert len(thin(rows * 3, steps, ended=True)) <= 2 * CURVE_POINTS
    assert len(thin(rows, None, ended=True)) == len(points)
    assert thin(rows, None, ended=False) == []


def test_a_long_curve_in_the_database(tmp_path: Path) -> None:
    cell = make_cell(steps=3000)
    store = make_store(tmp_path, [cell])
    mirror = strict_mirror(store)
    for start in (1, 1001, 2001):
        write_rows(store, cell, range(start, start + 1000))
        mirror.update()
    write_record(store, cell)
    mirror.update()
    (run,) = runs_of(store).values()
    steps = [step for step, _ in history(store, run, "train/loss")]
    assert CURVE_POINTS - 5 <= len(steps) <= CURVE_POINTS
    assert steps[-1] == 3000


def test_names() -> None:
    assert metric_name("test", "a@b", "L64") == "test/a_b/L64"
    assert metric_name("..", "", "a/b:c[d]é") == "_/_/a_b_c_d_é"
    cells = [make_cell(), make_cell(attention="performer")]
    assert run_names(cells)[cells[1]["id"]] == "performer/rope/L64/s0"
    assert run_names(cells[1:]) == {cells[1]["id"]: "rope/L64/s0"}
    assert extra_axes([make_cell(), make_cell(seed=1), make_cell("none", rate=0.1)]) == []
    assert extra_axes([make_cell(), make_cell(rate=0.1)]) == ["training.learning_rate"]
    assert diverged_at([{"step": 1, "loss": 2.0}]) is None


def test_odd_characters(tmp_path: Path) -> None:
    odd = "rope(base=5e5, note='[/b] \"x\" é %')+alibi"
    cell = make_cell(odd)
    folder = tmp_path / "a b#c[é]"
    folder.mkdir()
    store = make_store(folder, [cell], name="quick [é]/%s 'x'")
    write_rows(store, cell, range(1, 11))
    with (store.cell_folder(cell["id"]) / "curve.jsonl").open("a") as file:
        file.write('{"step": 11, "odd@[name]": 1}\n')
    write_record(store, cell)
    mirror = strict_mirror(store)
    mirror.update()
    mirror.finish(None)
    runs = runs_of(store, "quick [é]/%s 'x'")
    run = runs[f"{odd}/L64/s0"]
    assert run.data.params["encoding"] == odd
    assert run.data.metrics["train/odd__name_"] == 1
    assert (store.folder.parent / "mlartifacts" / run.info.run_id / "artifacts" / "record.json").exists()
    assert f"summary {odd}" in runs


@pytest.mark.parametrize("name", ["a%20b", "a?b"])
def test_a_folder_that_mlflow_cannot_use(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path / name, [make_cell()])
    told = Told()
    Mirror(store, default_uri(store.folder.parent), told).update()
    assert len(told) == 1
    assert "'%' or '?'" in told[0]
    assert {path.name for path in tmp_path.iterdir()} == {name}
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_URI"):
        ui_command(default_uri(store.folder.parent))


def test_summaries(tmp_path: Path) -> None:
    cells = [make_cell(seed=seed) for seed in range(3)] + [make_cell("none")]
    store = make_store(tmp_path, cells)
    for cell, value in zip(cells, (1.0, 2.0, 3.0, 4.0), strict=True):
        write_record(store, cell, value=value)
    report = store.folder / "report"
    (report / "figures").mkdir(parents=True)
    (report / "figures" / "a.png").write_bytes(b"x")
    (report / "figures" / ".a.png.abcdefgh").write_bytes(b"half")  # of a process that was killed
    mirror = strict_mirror(store)
    mirror.update()
    mirror.finish(report)
    runs = runs_of(store)
    name = "test/bits_per_character/L64"
    rope = runs["summary rope"]
    assert rope.data.metrics == {f"{name}/mean": 2.0, f"{name}/sd": 1.0, f"{name}/seeds": 3.0}
    assert rope.data.tags["posenc.summary"] == "encoding"
    assert runs["summary none"].data.metrics == {f"{name}/mean": 4.0, f"{name}/seeds": 1.0}
    suite = runs["summary"]
    assert suite.data.tags["cells.done"] == "4"
    files = store.folder.parent / "mlartifacts" / suite.info.run_id / "artifacts" / "report"
    assert (files / "figures" / "a.png").read_bytes() == b"x"
    assert [path.name for path in (files / "figures").iterdir()] == ["a.png"]
    write_record(store, cells[2], value=6.0)
    (report / "figures" / "a.png").write_bytes(b"y")
    mirror.update()
    mirror.finish(report)
    assert len(runs_of(store)) == len(runs)
    assert runs_of(store)["summary rope"].data.metrics[f"{name}/mean"] == 3.0
    assert (files / "figures" / "a.png").read_bytes() == b"y"
    for cell in cells[1:]:
        write_record(store, cell, "failed")
    assert sync(store, default_uri(store.folder.parent)) == 4
    runs = runs_of(store)
    assert "summary none" not in runs
    assert runs["summary rope"].data.metrics == {f"{name}/mean": 1.0, f"{name}/seeds": 1.0}
    assert runs["summary"].data.tags["cells.failed"] == "3"


def test_summaries_never_pool_what_is_varied() -> None:
    cells = [make_cell(), make_cell(attention="performer"), make_cell(rate=0.1)]
    score = {"split": "test", "length": 64, "metric": "accuracy", "value": 0.5}
    found = summaries(cells, [{"config": cell["config"], "scores": [score]} for cell in cells])["rope"]
    assert {name for name in found if name.endswith("mean")} == {
        "softmax/training.learning_rate 0.002/test/accuracy/L64/mean",
        "performer/training.learning_rate 0.002/test/accuracy/L64/mean",
        "softmax/training.learning_rate 0.1/test/accuracy/L64/mean",
    }
