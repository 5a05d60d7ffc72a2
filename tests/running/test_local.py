"""Where cells run: order, second tries, limits, GPUs; faults cost the cell that has them and no other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from runs import cells, install_faulty, numbers, options, posenc

from posenc.common.errors import ConfigError, StorageError
from posenc.plan.cell import Cell
from posenc.plan.plan import Plan
from posenc.plan.selection import choose
from posenc.records.store import Store
from posenc.running import driver
from posenc.running import local as engines
from posenc.running.local import Events, LocalEngine
from posenc.running.queue import Schedule
from posenc.training.cell_terms import CellTerms, StoppedError


def quiet(ended: list[tuple[str, str]] | None = None, said: list[str] | None = None) -> Events:
    return Events(
        started=lambda cell: None,
        ended=lambda cell, record: None if ended is None else ended.append((cell.name, record["status"])),
        tick=lambda: None,
        said=lambda line: None if said is None else said.append(line),
    )


def cell(name: str, parent: str | None = None) -> Cell:
    return Cell(name, name, {}, None, None, parent)


def test_a_schedule_keeps_the_order_and_lets_children_wait() -> None:
    schedule = Schedule([cell("child", "parent"), cell("parent"), cell("grandchild", "child"), cell("other")], {})
    assert [taken.id for taken in (schedule.take(), schedule.take()) if taken] == ["parent", "other"]
    assert schedule.take() is None
    schedule.end(cell("parent"), "done")
    assert schedule.take() == cell("child", "parent")
    schedule.end(cell("child", "parent"), "failed")
    assert [barred.id for barred in schedule.barred()] == ["grandchild"]
    assert schedule.take() is None


def test_a_child_of_a_cell_that_ended_before() -> None:
    schedule = Schedule([cell("good", "a"), cell("bad", "b")], {"a": "done", "b": "timed_out"})
    assert [barred.id for barred in schedule.barred()] == ["bad"]
    assert schedule.take() == cell("good", "a")


def test_a_cell_is_tried_twice_and_the_second_time_comes_first() -> None:
    schedule = Schedule([cell("a"), cell("b")], {})
    first = schedule.take()
    assert first and schedule.again(first)
    assert schedule.take() == first
    assert not schedule.again(first)


@pytest.fixture
def faulty(tmp_path: Path) -> dict[str, str]:
    marks = tmp_path / "marks"
    marks.mkdir()
    return {"PYTHONPATH": install_faulty(tmp_path / "package"), "FAULTY": str(marks)}


@pytest.mark.slow
def test_each_fault_costs_its_cell_alone_and_is_told_with_its_cause(tmp_path: Path, faulty: dict[str, str]) -> None:
    encodings = "raises,diverges,hungry,dies,diesonce,rope,slow"
    arguments = ["run", "enwik8", "--lengths", "16", "--encodings", encodings, "--time-limit", "25s", *options()]
    output = posenc(tmp_path, *arguments, status=3, **faulty)
    records = {r["config"]["encoding"]["name"]: r for r in Store(tmp_path / "results/enwik8").records()}
    statuses = {name: record["status"] for name, record in records.items()}
    failed = dict.fromkeys(["raises", "diverges", "hungry", "dies"], "failed")
    assert statuses == {**failed, "diesonce": "done", "rope": "done", "slow": "timed_out"}
    causes = {
        "raises": "RuntimeError: broken on purpose",
        "diverges": "diverged: the loss is nan at step 1",
        "hungry": "can't allocate memory",
        "dies": "the worker process died twice: killed by signal 9",
        "slow": "s and may take 25: stopped after step",
    }
    for name, cause in causes.items():
        assert cause in records[name]["reason"]
    assert "in go_wrong" in records["raises"]["traceback"] and "in go_wrong" in records["hungry"]["traceback"]
    assert "tried once more" in output
    last = output.rsplit("report: ", 1)[0].splitlines()[-5:]
    assert {line.split(":")[0] for line in last} == {"failed", "timed out"}, "the list comes last"
    # With more time, and faster, the slow one goes on from where it was stopped.
    slow = Store(tmp_path / "results/enwik8").cell_folder(records["slow"]["id"])
    before = (slow / "curve.jsonl").read_text().splitlines()
    again = [part if part != "25s" else "900s" for part in arguments]
    again[again.index(encodings)] = "slow"
    Path(faulty["FAULTY"], "fast").touch()
    posenc(tmp_path, *again, "--rerun", "failed", **faulty)
    record = Store(tmp_path / "results/enwik8").read_record(records["slow"]["id"])
    assert record and record["status"] == "done"
    steps_now = [row["step"] for row in Store(tmp_path / "results/enwik8").curve(record["id"]) if "split" not in row]
    assert steps_now == list(range(1, 11))
    assert (slow / "curve.jsonl").read_text().splitlines()[: len(before)] == before, "it did not start anew"


def test_a_cell_that_hangs_is_killed(tmp_path: Path, faulty: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in faulty.items():
        monkeypatch.setenv(key, value)
    monkeypatch.syspath_prepend(faulty["PYTHONPATH"])
    todo = cells("rope")
    hanging = Cell("f" * 16, "hangs", {**todo[0].config, "encoding": {"name": "hangs"}})
    ended: list[tuple[str, str]] = []

    def clock() -> float:
        """Hours ahead from when the cell hangs until it is killed: nothing depends on how fast the machine is."""
        return time.monotonic() + (1e6 if Path(faulty["FAULTY"], "hangs").exists() and not ended else 0.0)

    monkeypatch.setattr(engines, "monotonic", clock)
    terms = CellTerms("test", tmp_path / "store", time_limit=3600.0)
    assert LocalEngine(Schedule([hanging, *todo], {}), terms, quiet(ended), [None]).run()
    assert ended == [("hangs", "timed_out"), (todo[0].name, "done")]
    record = Store(terms.store).read_record(hanging.id)
    assert record and record["reason"] == "did not end within 3600 s and 30 more: killed"


def test_each_worker_has_the_gpus_of_its_slot_and_loads_no_compiler(
    tmp_path: Path, faulty: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in faulty.items():
        monkeypatch.setenv(key, value)
    monkeypatch.syspath_prepend(faulty["PYTHONPATH"])
    todo = [
        Cell(f"{i:016x}", f"tells{i}", {**c.config, "encoding": {"name": "tells"}})
        for i, c in enumerate(cells("rope", seeds=(0, 1)))
    ]
    assert LocalEngine(Schedule(todo, {}), CellTerms("test", tmp_path / "store"), quiet(), ["2,3", "5"]).run()
    told = sorted(path.read_text() for path in Path(faulty["FAULTY"]).iterdir())
    assert told == ["2,3 plain", "5 plain"]


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(**runtime: Any) -> Plan:
        base = cells("rope")[0]
        return Plan(None, [Cell("a", "a", {**base.config, "runtime": {**base.config["runtime"], **runtime}})], "")  # type: ignore[arg-type]

    monkeypatch.setattr(driver.provenance, "cores", lambda: 8)
    assert driver.slots(plan(threads=2), None) == [None] * 4
    assert driver.slots(plan(threads=2, processes=2), None) == [None] * 2
    assert driver.slots(plan(threads=16), None) == [None]
    assert driver.slots(plan(), 3) == [None] * 3
    monkeypatch.setattr(driver, "require_device", lambda device: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,9")
    assert driver.slots(plan(device="cuda"), None) == ["4", "5", "6", "7", "9"]
    assert driver.slots(plan(device="cuda"), 7) == ["4", "5", "6", "7", "9", "4", "5"]
    assert driver.slots(plan(device="cuda", processes=2), None) == ["4,5", "6,7"]
    too_many, key = plan(device="cuda", processes=6), "runtime.processes"
    for choice, named in (
        (None, "runtime.processes = 6"),
        (choose(processes=6), "--processes 6"),
        (choose(changes={key: 6}), f"--set {key}=6"),
    ):
        with pytest.raises(ConfigError, match=f"^{named}: this machine has 5 GPUs"):
            driver.slots(too_many, None, choice)


def test_small_cells_share_a_gpu_by_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless several processes train a cell, or nvidia-smi does not tell what is free."""
    base = cells("rope", seeds=tuple(range(40)))
    config = {**base[0].config["runtime"], "device": "cuda"}
    plan = Plan(None, [Cell(one.id, one.name, {**one.config, "runtime": config}) for one in base], "")  # type: ignore[arg-type]
    monkeypatch.setattr(driver, "require_device", lambda device: None)
    monkeypatch.setattr(driver.provenance, "cores", lambda: 16)
    smi, said = tmp_path / "nvidia-smi", []
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def slots(free: str, gpus: str) -> list[str | None]:
        smi.write_text(f"#!/bin/sh\n{free}\n")
        smi.chmod(0o755)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        return driver.slots(plan, None, None, said.append)

    assert slots("echo 140000", "0") == ["0"] * 8
    assert said[-1].startswith("8 cells at a time on each GPU: 16 cores give 8 at 2 a cell, 147 GB free give ")
    assert slots("echo 140000; echo 8000", "0,1") == ["0", "1"] * 4
    assert slots("echo 5000", "0") == ["0"] * 2
    for silent in ("echo none", "exit 6", "echo 140000; exit 1"):
        assert slots(silent, "GPU-a") == ["GPU-a"]
        assert "nvidia-smi does not tell" in said[-1]
    assert driver.slots(plan, 3, None, said.append) == ["GPU-a"] * 3


def test_a_disk_that_takes_no_more_stops_the_run_and_keeps_what_there_is(tmp_path: Path) -> None:
    """The worker's own answer: no record is made up for the cell, and none of the others is given out."""
    terms = CellTerms("test", tmp_path)
    todo = cells("rope", "none", "learned")
    blocked = Store(tmp_path).cell_folder(todo[0].id)
    blocked.parent.mkdir()
    blocked.touch()  # where a folder is wanted: nothing can be written there
    with pytest.raises(StorageError, match=r"\.lock cannot be written \(File exists\)"):
        LocalEngine(Schedule(todo, {}), terms, quiet(), [None]).run()
    assert not list(tmp_path.glob("cells/*/record.json"))
    blocked.unlink()
    assert LocalEngine(Schedule(todo, {}), terms, quiet(), [None]).run()
    assert len(list(tmp_path.glob("cells/*/record.json"))) == 3


def test_a_worker_that_outlives_its_driver_and_its_successor_never_write_together(tmp_path: Path) -> None:
    """The successor waits for the cell's lock, and takes the record that was written meanwhile."""
    from posenc.training.cell import train

    terms, todo = CellTerms("test", tmp_path), cells("rope")[0]
    store = Store(tmp_path)
    asked: list[int] = []

    with store.cell_locked(todo.id, lambda: False) as held:
        assert held
        with pytest.raises(StoppedError):
            train(todo, terms, lambda: bool(asked.append(1) or len(asked) > 2))
        assert len(asked) == 3
        assert store.read_record(todo.id) is None
    first = train(todo, terms)
    assert first and first["status"] == "done"
    before = numbers(store, todo.id)
    assert train(todo, terms) == store.read_record(todo.id)
    assert numbers(store, todo.id) == before
