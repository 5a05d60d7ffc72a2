"""Several processes for one cell: two of gloo's under torchrun give the losses of one; nothing listens outside."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from runs import cells, install_faulty, listening

from posenc.plan.cell import Cell
from posenc.records.store import Store
from posenc.running import torchrun as distributed
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms, StoppedError


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_listen_to_this_machine_alone(tmp_path: Path) -> None:
    changes = {"training__batch": 8, "training__accumulate": 2, "training__clip": 1.0, "training__learning_rate": 0.01}
    one, two = (cells("learned", runtime__processes=n, **changes)[0] for n in (1, 2))
    assert one.id != two.id
    training.train(one, CellTerms("test", tmp_path))
    exposed: set[str] = set()
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.02):
            exposed.update(listening(os.getpid()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        distributed.train_cell(two, CellTerms("test", tmp_path, keep=frozenset([two.id])), lambda: False)
    finally:
        watching.set()
        thread.join()
    store = Store(tmp_path)
    first, second = store.read_record(one.id), store.read_record(two.id)
    assert first and second
    assert second["status"] == "done", second["traceback"]
    curves = [[row for row in store.curve(cell.id) if "split" not in row] for cell in (one, two)]
    assert [row["step"] for row in curves[1]] == list(range(1, 11)), "written by one of them alone"
    for a, b in zip(*curves, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=2e-6)
    for a, b in zip(first["scores"], second["scores"], strict=True):
        assert b["value"] == pytest.approx(a["value"], abs=2e-6)
    assert first["checkpoint"] != second["checkpoint"], "sums in another order: near, not the same"
    assert store.weights_path(two.id).is_file()
    assert exposed == {"127.0.0.1"}


@pytest.mark.slow
def test_a_group_that_is_stopped_goes_on_to_the_same_numbers_to_the_bit(tmp_path: Path) -> None:
    (cell,) = cells("rope", runtime__processes=2, training__steps=300, training__validate_every=100)
    distributed.train_cell(cell, CellTerms("test", tmp_path / "whole"), lambda: False)
    store = Store(tmp_path / "stopped")

    def halfway() -> bool:
        return len(store.curve(cell.id)) > 5

    with pytest.raises(StoppedError):
        distributed.train_cell(cell, CellTerms("test", store.folder), halfway)
    assert (store.cell_folder(cell.id) / "checkpoint.pt").is_file()
    assert store.read_record(cell.id) is None
    distributed.train_cell(cell, CellTerms("test", store.folder), lambda: False)
    whole, resumed = Store(tmp_path / "whole").read_record(cell.id), store.read_record(cell.id)
    assert whole and resumed
    assert (whole["scores"], whole["checkpoint"]) == (resumed["scores"], resumed["checkpoint"])
    losses = [[row.get("loss") for row in Store(tmp_path / name).curve(cell.id)] for name in ("whole", "stopped")]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "cause"), [("raises", "RuntimeError: broken on purpose"), ("dies", "torchrun")])
def test_a_group_that_fails_says_why(
    tmp_path: Path, encoding: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", install_faulty(tmp_path / "package"))
    (good,) = cells("rope", runtime__processes=2)
    bad = Cell("f" * 16, encoding, {**good.config, "encoding": {"name": encoding}})
    distributed.train_cell(bad, CellTerms("test", tmp_path / "store"), lambda: False)  # ends: nobody waits for the dead
    record = Store(tmp_path / "store").read_record(bad.id)
    assert record and record["status"] == "failed"
    assert cause in record["reason"]
    assert record["traceback"]


def test_processes_that_lose_their_worker_end(tmp_path: Path) -> None:
    """Their standard input ends with it."""
    read, write = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(read, 0)
        assert not distributed._input_ended()
        os.close(write)
        assert distributed._input_ended()
    finally:
        os.dup2(before, 0)
        os.close(read)
        os.close(before)
