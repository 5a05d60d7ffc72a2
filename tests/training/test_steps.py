"""Steps as they are made, against the plain form: a batch made when it is asked for, each loss read at once.

A whole step as a graph is held to the same by a tape of operations, which a CPU can replay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from posenc.api.objective import cut
from posenc.common.errors import ConfigError, NotPossibleError
from posenc.common.seeds import derive
from posenc.config.task import task_at
from posenc.objectives.causal_lm import CausalLM
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.training import cell as training
from posenc.training import graphs
from posenc.training.batches import DEPTH, Ahead, Loss, Made
from posenc.training.cell_terms import CellTerms
from posenc.training.group import Group
from posenc.training.loop import Loop
from posenc.training.optimiser import make_optimiser, rate
from posenc.training.step import Step

pytestmark = pytest.mark.usefixtures("one_thread")
SLOW = pytest.mark.slow
TINY: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16,
    "backbone.dropout": 0.2, "training.steps": 8, "training.batch": 4, "training.validate_every": 8,
    "training.log_every": 3, "training.clip": 0.5, "training.warmup": 3,
}  # fmt: skip
STAGES = [{"length": 16, "batch": 4, "steps": 5}, {"length": 24, "batch": 4, "steps": 3, "accumulate": 2}]
CASES: list[Any] = [
    ("enwik8", "t5", {"backbone.attention": "performer", "backbone.redraw": 3}),
    ("multi30k", "rope", {"training.packed": True, "training.accumulate": 2}),
    pytest.param("multi30k", "shaw", {}, marks=SLOW),
    ("mlm", "rope", {"training.accumulate": 2}),
    pytest.param("zh-mlm", "rope", {"training.stages": STAGES}, marks=SLOW),
    ("glue/sst2", "rope", {"start": "scratch"}),
]


def loop_of(task: str, folder: Path, encoding: str = "rope", **changes: Any) -> Loop:
    return Loop(cell_of(task, encoding, **changes), CellTerms("test", folder), lambda: False)


def cell_of(task: str, encoding: str, **changes: Any) -> Cell:
    choice = Selection(scale="smoke", encodings=[encoding], seeds=[0], changes={**TINY, **changes})
    return make(find_suite(task), choice).cells[-1]


def plainly(loop: Loop) -> list[float]:
    """Train a loop's model to the end without the loop. Returns the loss of each step."""
    model, objective, settings, losses = loop.model, loop.objective, loop.training, []
    optimiser = make_optimiser(model, settings)
    for step in range(1, settings.steps + 1):
        model.train().begin_step(loop.seed, step)
        stage = settings.stage(step, loop.length)
        batch = objective.batch(loop.seed, step, stage.batch)
        optimiser.zero_grad()
        total = 0.0
        for index, rows in enumerate(cut(batch, stage.accumulate)):
            torch.manual_seed(derive(loop.seed, "dropout", step, index))
            share = objective.targets(rows) / objective.targets(batch)
            loss = objective.loss(model, objective.pack(rows) if settings.packed else rows) * share
            loss.backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for group in optimiser.param_groups:
            group["lr"] = rate(settings, step)
        optimiser.step()
        losses.append(total)
    return losses


@pytest.mark.parametrize(("task", "encoding", "changes"), CASES)
def test_the_loop_gives_the_plain_steps_numbers_to_the_bit(
    task: str, encoding: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, loop = (loop_of(task, tmp_path / name, encoding, **changes) for name in ("plain", "loop"))
    expected = plainly(plain)
    for name in ("validate", "end_stage", "_test"):
        monkeypatch.setattr(loop, name, lambda *given: None)
    loop.run()
    rows = {row["step"]: row["loss"] for row in loop.store.curve(loop.cell_id)}
    assert rows == {step: expected[step - 1] for step in (rows.keys() | {1, 3, 6, 8})}
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, loop.model.state_dict()[name]), name
    assert not [one for one in threading.enumerate() if one.name == "batches"]


def test_a_diverged_cell_names_its_first_bad_step_however_seldom_losses_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where a later step fails for it, divergence is the reason."""
    loss, calls = CausalLM.loss, [0]

    def bad(fails: bool, self: CausalLM, *given: Any) -> Tensor:
        calls[0] += 1
        if fails and calls[0] > 5:
            raise IndexError("a position that is no number")
        return loss(self, *given) * (torch.nan if calls[0] == 4 else 1.0)

    for fails in (False, True):
        calls[0] = 0
        monkeypatch.setattr(CausalLM, "loss", lambda self, *given, fails=fails: bad(fails, self, *given))
        cell = cell_of("enwik8", "rope", **{"training.log_every": 50})
        record = training.train(cell, CellTerms("test", tmp_path / str(fails)))
        assert record is not None and record["reason"] == "diverged: the loss is nan at step 4"
        last = Store(tmp_path / str(fails)).curve(cell.id)[-1]
        assert (last["step"], last["loss"], last["tokens"]) == (4, None, 4 * 4 * cell.settings.length)
        assert calls[0] == (6 if fails else 8)


# Batches ahead


def numbered(step: int, fails: Sequence[int] = ()) -> Made:
    if step in fails:
        raise KeyError(f"step {step}")
    return Made(step, [])


def test_batches_come_in_order_a_few_ahead_and_a_failure_at_its_step() -> None:
    asked: list[int] = []
    ahead = Ahead(lambda step: asked.append(step) or numbered(step, [7]), range(1, 100), "cpu")
    assert [ahead.take(step).seen for step in range(1, 7)] == list(range(1, 7))
    assert len(asked) <= 6 + DEPTH + 1
    with pytest.raises(KeyError, match="step 7"):
        ahead.take(7)
    ahead.close()
    assert asked == list(range(1, 8)), "nothing is made after a failure"


def test_the_thread_ends_with_the_loop_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of("enwik8", tmp_path, **{"training.steps": 500})
    monkeypatch.setattr(loop, "step", lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.run()
    assert not [one for one in threading.enumerate() if one.name == "batches"]
    assert loop.batches.of(0, 3).seen, "batches can still be made, where they are asked for"


# A step as a graph


class Tape(TorchDispatchMode):
    """Operations as they were run, and run again on the same memory: what a CUDA graph does, for a CPU.

    A value that Python read, or computed for itself, is the same in each replay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.played: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func) and "nonzero" not in str(func), f"{func}: a read-back"
        out = func(*args, **(kwargs or {}))
        self.played.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.played:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # else it is a view, or in place
                    old.copy_(new)


def taped(function: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    tape = Tape()
    with tape:
        function()
    return tape.replay


@pytest.fixture
def in_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """AdamW as a card has it, which reads no value: a CPU's plain form does."""
    fused = partial(torch.optim.AdamW, fused=True)
    monkeypatch.setattr(
        "posenc.training.optimiser.torch.optim.AdamW", lambda *a, **k: fused(*a, **{**k, "fused": True})
    )


GRAPHED: list[Any] = [
    ("enwik8", "rope", {"backbone.attention": "softmax"}),
    ("enwik8", "randomized+rope", {"backbone.attention": "softmax", "training.accumulate": 2}),
    pytest.param(
        "enwik8", "t5", {"backbone.attention": "performer", "backbone.redraw": 3, "training.steps": 10}, marks=SLOW
    ),
    pytest.param("zh-mlm", "rope", {"training.stages": STAGES, "training.steps": 8}, marks=SLOW),
]


@pytest.mark.usefixtures("in_one_kernel")
@pytest.mark.parametrize(("task", "encoding", "changes"), GRAPHED)
def test_a_graphs_numbers_are_the_plain_steps(
    task: str, encoding: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """With another learning rate each step, dropout, clipping, parts, stages, features drawn anew, random positions."""
    changes = {"training.steps": 50, **changes}
    plain, loop = (loop_of(task, tmp_path, encoding, **changes) for _ in range(2))
    loss = Loss(loop.model, loop.objective)
    loop.one_step = Step(loop.model, loss, loop.training, loop.runtime, Group(), taped)
    loop.warm_up(1)
    recorded = len(loop.one_step._graphs._known)  # type: ignore[union-attr]
    assert recorded == sum(
        {1: 1, 2: 2}[stage.accumulate] for stage in loop.training.stages or [loop.training.stage(1, 8)]
    )
    for step in range(1, loop.training.steps + 1):
        assert loop.step(step).item() == pytest.approx(plain.step(step).item(), rel=2e-5), step
    assert len(loop.one_step._graphs._known) == recorded  # type: ignore[union-attr]
    for (name, mine), other in zip(loop.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}")


@SLOW
@pytest.mark.usefixtures("in_one_kernel")
def test_a_shape_that_comes_late_is_recorded_between_two_steps_and_changes_nothing(tmp_path: Path) -> None:
    """As does all that is recorded before the first step of a cell that goes on from a checkpoint."""
    whole, late = (loop_of("zh-mlm", tmp_path, "randomized+rope", **{"training.stages": STAGES}) for _ in range(2))
    for loop in (whole, late):
        loop.one_step = Step(loop.model, Loss(loop.model, loop.objective), loop.training, loop.runtime, Group(), taped)
    whole.warm_up(1)
    assert [whole.step(step).item() for step in range(1, 9)] == [late.step(step).item() for step in range(1, 9)]
    state, resumed = whole.one_step.optimiser.state_dict(), loop_of("zh-mlm", tmp_path, **{"training.stages": STAGES})
    resumed.one_step = Step(
        resumed.model, Loss(resumed.model, resumed.objective), resumed.training, resumed.runtime, Group(), taped
    )
    resumed.one_step.optimiser.load_state_dict(state)
    before = {name: value.clone() for name, value in resumed.model.state_dict().items()}
    resumed.warm_up(6)
    assert all(torch.equal(value, before[name]) for name, value in resumed.model.state_dict().items())
    for mine, others in zip(resumed.one_step._moments(), whole.one_step._moments(), strict=True):
        assert torch.equal(mine, others)


def test_batches_of_many_shapes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of("multi30k", tmp_path)
    loop.one_step = Step(
        loop.model, Loss(loop.model, loop.objective), loop.training, loop.runtime, Group(), lambda f, g: f
    )
    monkeypatch.setattr(graphs, "GRAPHS", 2)
    with pytest.raises(NotPossibleError, match=r"runtime\.compile = 'cudagraphs': batches have more than 2 shapes"):
        list(map(loop.step, range(1, 9)))
    given = {"runtime.device": ("cuda", "--set"), "runtime.compile": ("cudagraphs", "--set")}
    with pytest.raises(ConfigError, match=r"a graph is one process's, and runtime\.processes = 2"):
        task_at("enwik8", "smoke", {**given, "runtime.processes": (2, "--set")})
    with pytest.raises(ConfigError, match="batches of other shapes would be recorded again"):
        task_at("multi30k", "smoke", given)
