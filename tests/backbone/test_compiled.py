"""runtime.compile: the numbers of the plain form, one graph a shape, none for scores; what it cannot do is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from runs import STAGED
from torch._dynamo.utils import counters

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError
from posenc.config.task import available, task_at
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.running import torchrun as distributed
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms, StoppedError

SHAPES = {"enwik8": 1, "zh-mlm": 3}
"""How many shapes of batches a task's training has here."""


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are taken as ever and run as they stand: without the minutes that a compiler takes."""
    compile = torch.compile

    def plain(function: Any, *, options: Any, **given: Any) -> Any:
        assert options["fallback_random"], "dropout would draw other masks"
        return compile(function, backend="eager", **given)

    monkeypatch.setattr(torch, "compile", plain)
    torch._dynamo.reset()
    counters.clear()


def cell(task: str, encoding: str = "rope", seed: int = 0, **changes: Any) -> Cell:
    own = {} if task == "zh-mlm" else {"training.steps": 5, "training.stages": []}
    settings = {**STAGED, **own, **{key.replace("__", "."): value for key, value in changes.items()}}
    (made,) = make(
        find_suite(task), Selection(encodings=[encoding], lengths=[16], seeds=[seed], changes=settings)
    ).cells
    return made


def train(cell: Cell, folder: Path) -> Record:
    terms = CellTerms("test", folder)
    if cell.config["runtime"]["processes"] > 1:
        distributed.train_cell(cell, terms, lambda: False)
    else:
        training.train(cell, terms)
    record = Store(folder).read_record(cell.id)
    assert record is not None
    assert record["status"] == "done", record["traceback"]
    return record


def values(record: Record) -> list[float]:
    return [row["value"] for row in record["scores"] if row["value"] is not None]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("task", "attention"), [("enwik8", "performer"), ("zh-mlm", "softmax")])
def test_one_graph_a_shape_for_training_alone_and_the_numbers_of_the_plain_form(
    task: str, attention: str, tmp_path: Path
) -> None:
    changes = {"backbone__attention": attention, "backbone__redraw": 2}
    plain, compiled = cell(task, **changes), cell(task, runtime__compile="inductor", **changes)
    assert plain.id != compiled.id
    expected = train(plain, tmp_path)
    assert not counters["stats"]
    record = train(compiled, tmp_path)
    assert counters["stats"]["unique_graphs"] == SHAPES[task]
    assert values(record) == pytest.approx(values(expected), rel=1e-6), "RoPE has a form of its own for compilers"
    assert 0 < record["times"]["compile_seconds"] < record["times"]["seconds"]
    assert expected["times"]["compile_seconds"] == 0


@pytest.mark.parametrize(
    ("attention", "encoding"), [("performer", "rope"), ("softmax", "rope"), ("softmax", "t5"), ("softmax", "shaw")]
)
def test_gradients_under_autocast_have_the_precision_that_they_have_uncompiled(
    attention: str, encoding: str, monkeypatch: pytest.MonkeyPatch, fresh_seed: int
) -> None:
    """A Performer's features, and blocks of attention, are float32 in the backward pass as well."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, options, **given: compile(f, backend="aot_eager", **given))
    torch._dynamo.reset()
    config = BackboneConfig(layers=1, width=32, heads=2, feedforward=32, attention=attention, features=16, chunk=16)  # type: ignore[arg-type]
    tokens = torch.randint(256, (2, 48), generator=torch.Generator().manual_seed(fresh_seed))
    plain, compiled = (Transformer(config, encoding, 48).initialise(fresh_seed) for _ in range(2))
    found = []
    for model in (plain, compiled.compile_training()):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.hidden(tokens).float().square().mean()
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert (found[1] - found[0]).norm() < 1e-4 * found[0].norm()


@pytest.mark.usefixtures("traced")
def test_a_part_that_cannot_be_compiled_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.encodings.rope import Rope

    turns = Rope.turns

    def breaking(self: Rope, positions: torch.Tensor, width: int) -> torch.Tensor:
        torch._dynamo.graph_break()
        return turns(self, positions, width)

    monkeypatch.setattr(Rope, "turns", breaking)
    record = training.train(cell("enwik8", runtime__compile="inductor"), CellTerms("test", tmp_path))
    assert record is not None
    assert record["status"] == "failed"
    assert "graph_break" in record["traceback"]


def test_without_a_compiler_a_cell_says_so(tmp_path: Path) -> None:
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        record = training.train(cell("enwik8", runtime__compile="inductor"), CellTerms("test", tmp_path))
    assert record is not None
    assert (record["status"], record["reason"].split(":")[0]) == ("failed", "runtime.compile")
    assert "C++ compiler" in record["reason"]


@pytest.mark.parametrize("name", sorted(available("tasks")))
def test_only_batches_of_one_shape_are_compiled(name: str) -> None:
    changes = {"runtime.compile": ("inductor", "--set runtime.compile")}
    if task_at(name, "smoke", {}).objective in ("causal_lm", "masked_lm", "images", "videos"):
        assert task_at(name, "smoke", changes).runtime.compile == "inductor"
        return
    with pytest.raises(ConfigError, match=r"runtime\.compile = 'inductor': not built for objective .*, where "):
        task_at(name, "smoke", changes)


@pytest.mark.parametrize(("value", "message"), [("cudagraphs", "must be 'cuda', not 'cpu'"), ("yes", "inductor")])
def test_what_cannot_be_is_refused(value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_at("enwik8", "smoke", {"runtime.compile": (value, "--set runtime.compile")})


# By inductor itself


@pytest.mark.slow
def test_inductor_trains_to_the_same_numbers_and_goes_on_to_the_bit(tmp_path: Path, fresh_seed: int) -> None:
    """In stages, whose rows have several lengths, and in bf16."""
    changes = {"seed": fresh_seed, "backbone__attention": "softmax", "runtime__precision": "bfloat16"}
    expected = train(cell("zh-mlm", "t5", **changes), tmp_path)  # type: ignore[arg-type]
    compiled = cell("zh-mlm", "t5", runtime__compile="inductor", **changes)  # type: ignore[arg-type]
    whole = train(compiled, tmp_path)
    assert values(whole) == pytest.approx(values(expected), rel=2e-2)
    calls = itertools.count()
    with pytest.raises(StoppedError):
        training.train(compiled, CellTerms("test", tmp_path / "stopped"), lambda: next(calls) > 2)
    torch._dynamo.reset()  # as a new process has it: its first shape is another one
    resumed = train(compiled, tmp_path / "stopped")
    assert values(resumed) == values(whole)
    assert resumed["checkpoint"] == whole["checkpoint"]
    assert resumed["times"]["compile_seconds"] > 0


@pytest.mark.slow
def test_two_processes_compile_each_for_itself(tmp_path: Path) -> None:
    one = train(cell("enwik8", backbone__dropout=0.0), tmp_path)
    two = train(cell("enwik8", backbone__dropout=0.0, runtime__processes=2, runtime__compile="inductor"), tmp_path)
    assert values(two) == pytest.approx(values(one), rel=1e-4)
    assert two["times"]["compile_seconds"] > 0
