"""What is said of a worker that died: of memory, where that is the usual cause."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posenc.common import memory
from posenc.common.memory import free_memory
from posenc.common.text import size
from posenc.plan.cell import Cell
from posenc.records.store import Store
from posenc.running import local as engines
from posenc.running.local import Events, LocalEngine
from posenc.running.queue import Schedule
from posenc.running.why_died import asked, cause
from posenc.training.cell_terms import CellTerms


def config(**training: Any) -> dict[str, Any]:
    return {
        "task": "enwik8", "scale": "smoke", "encoding": {"name": "none"}, "length": 64, "seed": 0, "parent": None,
        "backbone": {"layers": 2, "width": 64, "heads": 4, "feedforward": 256, "vocabulary": 256},
        "training": {"steps": 10, "batch": 32, **training},
    }  # fmt: skip


def test_signal_9_tells_of_memory_and_another_end_does_not() -> None:
    told = cause(-9, config(batch=100_000), 3_100_000_000)
    assert told.startswith(
        "killed by signal 9: running out of memory is the usual cause; 3.1 GB were free when the cell"
    )
    assert "it asked for about 72.1 GB, with 100,000 rows of 64 tokens at once" in told
    assert "training.accumulate" in told and "--jobs" in told
    assert "free" not in cause(-9, config(), None)
    assert cause(-11, config(), 5) == "killed by signal 11"
    assert cause(1, config(), 5) == "exit status 1"
    assert cause(None, config(), 5) == "exit status None"
    on_card = {**config(batch=100_000), "runtime": {"device": "cuda"}}
    assert "asked for" not in cause(-9, on_card, 5) and "were free" in cause(-9, on_card, 5)


def test_what_a_cell_asks_for_by_hand() -> None:
    # Of a token and layer 8 x 64 + 2 x 256 numbers, of a token 3 x 256 logits; weights 2 x (4 x 64^2 + 2 x 64 x 256)
    # + 256 x 64, each four times; all of four bytes.
    weights, token = 2 * (4 * 64**2 + 2 * 64 * 256) + 256 * 64, 2 * 1024 + 768
    assert asked(config()) == (16 * weights + 4 * 32 * 64 * token, 32, 64)
    assert asked(config(batch=64, accumulate=2)) == asked(config())
    stages = [{"length": 16, "batch": 4, "steps": 3}, {"length": 128, "batch": 8, "steps": 2}]
    assert asked(config(stages=stages))[1:] == (8, 128)
    assert asked({})[0] > 0 and asked({"training": {"stages": [3]}, "backbone": None})[0] > 0


def test_a_step_takes_about_what_is_said() -> None:
    """Held against what PyTorch keeps for the backward pass."""
    import torch

    from posenc.backbone.config import BackboneConfig
    from posenc.backbone.transformer import Transformer

    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    table = config()["backbone"]
    model = Transformer(BackboneConfig(**table), "none", 64, "sdpa")
    model.initialise(0)
    tokens = torch.zeros(32, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = torch.nn.functional.cross_entropy(model.logits(model.hidden(tokens)).flatten(0, 1), tokens.flatten())
    assert loss.requires_grad
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert asked(config())[0] == pytest.approx(sum(kept.values()) + 4 * weights, rel=0.5)


def test_the_engine_says_it_of_the_worker_that_held_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much was free before the cell began, not after its death; at first that it is tried again, then for good."""
    free = [2_000_000_000]
    monkeypatch.setattr(engines, "free_memory", lambda: free[0])
    cell, said = Cell("a" * 16, "big", config(batch=100_000)), []
    ended: list[dict[str, Any]] = []
    events = Events(lambda one: None, lambda one, record: ended.append(record), lambda: None, said.append)
    engine = LocalEngine(Schedule([cell], {}), CellTerms("test", tmp_path), events, [None])
    for _ in range(2):
        free[0] = 2_000_000_000
        assert engine.schedule.take() == cell
        worker = object.__new__(engines._Worker)
        worker.pipe = SimpleNamespace(send=lambda cell: None, poll=lambda: False)
        worker.process = SimpleNamespace(exitcode=-9, join=lambda: None)
        engine.workers[0] = worker
        worker.give(cell)
        free[0] = 60_000_000_000
        engine._look(0, worker, True)
    assert len(said) == 1 and "2.0 GB were free" in said[0] and said[0].endswith("it is tried once more")
    (record,) = ended
    assert record["reason"].startswith("the worker process died twice: killed by signal 9: running out of memory")
    assert "2.0 GB were free" in record["reason"] and "100,000 rows" in record["reason"]
    assert Store(tmp_path).read_record(cell.id) == record


def test_free_memory_is_the_machines_or_what_its_group_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory() is None or free_memory() > 0  # type: ignore[operator]
    machine, group = tmp_path / "meminfo", tmp_path / "group"
    group.mkdir()
    monkeypatch.setattr(memory, "MACHINE", machine)
    monkeypatch.setattr(memory, "GROUP", group)
    assert free_memory() is None
    machine.write_text("MemTotal:  100 kB\nMemAvailable:   50 kB\n")
    assert free_memory() == 51_200
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("3000\n")
    (group / "memory.stat").write_text("anon 5\ninactive_file 500\n")
    assert free_memory() == 51_200
    (group / "memory.max").write_text("10000\n")
    assert free_memory() == 7_500
    (group / "memory.current").write_text("20000\n")
    assert free_memory() == 0


def test_sizes_in_words() -> None:
    assert [size(count) for count in (0, 5.12e8, 3.1e9, 7.2e10, 1.234e12)] == [
        "0 MB", "512 MB", "3.1 GB", "72.0 GB", "1,234 GB",
    ]  # fmt: skip
