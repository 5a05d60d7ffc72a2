"""Training: equal terms for every encoding, the same numbers again, the best model by validation, failures recorded."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posenc.api.objective import Scored
from posenc.backbone.transformer import is_positional
from posenc.config.task import TrainingConfig
from posenc.objectives.causal_lm import CausalLM
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Record, Store
from posenc.training import cell as training
from posenc.training import checkpoint
from posenc.training.cell_terms import CellTerms, StoppedError
from posenc.training.loop import Loop
from posenc.training.optimiser import rate
from posenc.training.runtime import without_subnormals

SLOW = pytest.mark.slow
TINY = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16, "training.steps": 6,
    "training.batch": 4, "training.validate_every": 2, "training.log_every": 1, "evaluation.tokens": 256,
}  # fmt: skip


def cells(*encodings: str, **changes: Any) -> list[Cell]:
    chosen = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    chosen.setdefault("backbone.attention", "softmax")
    return make(find_suite("enwik8"), Selection(encodings=encodings, lengths=[16], seeds=[0], changes=chosen)).cells


def loop(cell: Cell, folder: Path) -> Loop:
    return Loop(cell, CellTerms("test", folder), lambda: False)


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    record = training.train(cell, CellTerms("test", folder))
    assert record is not None
    return record


def numbers(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["scores"], record["best_step"], record["checkpoint"], record["baselines"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Record]:
    """The record of a cell that nothing disturbed, by its encoding: trained once."""
    return functools.cache(lambda encoding: train(cells(encoding)[0], tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize(("attention", "encoding"), [("softmax", "rope"), ("performer", "learned")])
def test_a_rerun_gives_the_same_numbers_to_the_bit(tmp_path: Path, attention: str, encoding: str) -> None:
    changes = {"backbone__attention": attention, "backbone__dropout": 0.1, "backbone__redraw": 2}
    (cell,) = cells(encoding, **changes)
    first, again = train(cell, tmp_path / "a"), train(cell, tmp_path / "b")
    assert first["status"] == "done", first["traceback"]
    assert numbers(first) == numbers(again)
    curves = [Store(tmp_path / name).curve(cell.id) for name in "ab"]
    assert [{**row, "seconds": 0} for row in curves[0]] == [{**row, "seconds": 0} for row in curves[1]]


@pytest.mark.parametrize(
    ("stop", "attention"),
    [(3, "softmax"), (5, "performer"),
     *(pytest.param(*one, marks=SLOW) for one in ((1, "softmax"), (5, "softmax"), (1, "performer"), (3, "performer")))],
)  # fmt: skip
def test_a_stopped_cell_goes_on_to_the_same_numbers_to_the_bit(tmp_path: Path, attention: str, stop: int) -> None:
    changes = {"backbone__attention": attention, "backbone__dropout": 0.1, "backbone__redraw": 2}
    cell = cells("learned", **changes)[0]
    whole = train(cell, tmp_path / "whole")
    store, calls = Store(tmp_path / "stopped"), itertools.count()
    with pytest.raises(StoppedError):
        training.train(cell, CellTerms("test", store.folder), lambda: next(calls) >= stop)
    assert store.read_record(cell.id) is None
    folder = store.cell_folder(cell.id)
    with (folder / "curve.jsonl").open("a") as file:  # steps that a killed process made after its checkpoint
        file.write('{"step":99}\n{"step":10')
    resumed = train(cell, tmp_path / "stopped")
    assert numbers(resumed) == numbers(whole)
    assert not (folder / "checkpoint.pt").exists()
    curves = [Store(tmp_path / name).curve(cell.id) for name in ("whole", "stopped")]
    assert [{**row, "seconds": 0} for row in curves[0]] == [{**row, "seconds": 0} for row in curves[1]]


def stopped_at(cell: Cell, folder: Path, *steps: int) -> Path:
    """Train a cell and stop it after each of these numbers of further steps; its checkpoint."""
    for step in steps:
        calls = itertools.count()
        with pytest.raises(StoppedError):
            training.train(cell, CellTerms("test", folder), lambda calls=calls, step=step: next(calls) > step)
    return Store(folder).cell_folder(cell.id) / "checkpoint.pt"


def outcome(record: Record) -> tuple[Any, ...]:
    return tuple(record[key] for key in ("status", "scores", "best_step", "checkpoint", "tokens_seen"))


@pytest.mark.parametrize(
    "damage", ["bits", *(pytest.param(one, marks=SLOW) for one in ("cut", "code", "other", "foreign"))]
)
def test_a_damaged_checkpoint_is_refused_and_said_and_the_numbers_are_those_of_an_undisturbed_run(
    tmp_path: Path, damage: str, fresh_seed: int, trained: Callable[[str], Record]
) -> None:
    """The one before is taken, or else the cell begins again: never other numbers (89 % of flipped bits gave some)."""
    cell, dice = cells("learned")[0], random.Random(fresh_seed)
    for before in (False, True):
        folder = tmp_path / f"{before}"
        path = stopped_at(cell, folder, 2, *([3] if before else []))
        raw = path.read_bytes()
        if damage == "cut":
            path.write_bytes(raw[: dice.randrange(len(raw))])
        elif damage == "code":
            torch.save({"cell": cell.id, "step": Path}, path)
        elif damage == "other":
            path.unlink()
            checkpoint.save(path, {"cell": "another", "step": 1})
        elif damage == "foreign":
            path.write_bytes(b"null")
        else:
            changed = bytearray(raw)
            changed[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
            path.write_bytes(bytes(changed))
        record = train(cell, folder)
        assert outcome(record) == outcome(trained("learned"))
        (remark,) = record["remarks"]
        assert "checkpoint.pt" in remark
        assert remark.endswith("the cell went on from step 2" if before else "the cell began again")
        assert not list(path.parent.glob("checkpoint*"))


def test_every_flipped_bit_of_a_checkpoint_is_seen(tmp_path: Path, fresh_seed: int) -> None:
    dice, path = random.Random(fresh_seed), tmp_path / "checkpoint.pt"
    state = {"cell": "a", "step": 3, "model": {"w": torch.randn(50)}}
    checkpoint.save(path, state)
    raw = path.read_bytes()
    for _ in range(300):
        changed = bytearray(raw)
        changed[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(changed))
        found, refused = checkpoint.load(path, "a")
        assert found is None
        assert len(refused) == 1


class Elsewhere(torch.Tensor):
    """Stands for a tensor of another device: only `cpu` gives plain numbers."""

    def cpu(self, *given: Any, **more: Any) -> torch.Tensor:
        return torch.Tensor(self.tolist())


def test_everything_in_a_checkpoint_lies_on_the_cpu() -> None:
    far = torch.ones(2).as_subclass(Elsewhere)
    moved = checkpoint.on_cpu({"a": [far], "b": ({"c": far},)})
    assert type(moved["a"][0]) is torch.Tensor
    assert type(moved["b"][0]["c"]) is torch.Tensor


def test_what_failed_keeps_its_checkpoint_and_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Callable[[str], Record]
) -> None:
    """As a cell whose averaging failed after its last step did, on a GPU."""
    cell, whole = cells("rope")[0], outcome(trained("rope"))
    path = stopped_at(cell, tmp_path / "cut", 5)
    with monkeypatch.context() as patch:
        patch.setattr(CausalLM, "loss", lambda *given: 1 / 0)
        assert train(cell, tmp_path / "cut")["status"] == "failed"
    assert path.is_file()
    store = Store(tmp_path / "cut")
    store.remove(cell.id, restart=False)  # as --rerun failed does
    steps: list[int] = []
    step = Loop.step
    monkeypatch.setattr(Loop, "step", lambda self, number: steps.append(number) or step(self, number))
    assert outcome(train(cell, tmp_path / "cut")) == whole
    assert steps[0] == 6


def test_one_lengths_failure_is_that_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Callable[[str], Record]
) -> None:
    score = CausalLM.score

    def fails_beyond(self: Any, model: torch.nn.Module, split: str, length: int) -> Scored:
        if length > 16:
            raise IndexError("index 200 is out of bounds")
        return score(self, model, split, length)

    whole = trained("rope")
    monkeypatch.setattr(CausalLM, "score", fails_beyond)
    record = train(cells("rope")[0], tmp_path / "failing")
    assert record["status"] == "done"
    ours, theirs = ({row["length"]: row for row in one["scores"] if row["split"] == "test"} for one in (record, whole))
    assert ours[16] == theirs[16]
    assert (ours[64]["value"], ours[64]["why"]) == (None, "failed at length 64: IndexError: index 200 is out of bounds")


@pytest.mark.parametrize("backend", ["reference", "sdpa", "auto"])
@pytest.mark.parametrize(
    "encoding", ["rope", *(pytest.param(one, marks=SLOW) for one in ("rope(fraction=0.5)", "rope+t5", "rope+shaw"))]
)
def test_rotations_train_in_bfloat16_by_every_backend(
    tmp_path: Path, encoding: str, backend: str, trained: Callable[[str], Record]
) -> None:
    (cell,) = cells(encoding, runtime__precision="bfloat16", runtime__backend=backend)
    if cell.why_not:
        pytest.skip(cell.why_not)
    scores = [row["value"] for row in train(cell, tmp_path)["scores"]]
    assert scores == pytest.approx([row["value"] for row in trained(encoding)["scores"]], rel=0.02)


def test_another_seed_gives_other_numbers(tmp_path: Path, trained: Callable[[str], Record]) -> None:
    one = cells("rope")[0]
    other = Cell.of({**one.config, "seed": 1}, one.name)
    assert other.id != one.id
    assert trained("rope")["checkpoint"] != train(other, tmp_path)["checkpoint"]


def log_of_two_steps(run: Loop) -> list[torch.Tensor]:
    """The non-positional start, and every batch and dropout mask, in their order."""
    log = [p.detach().clone() for n, p in run.model.named_parameters() if not is_positional(n)]
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, given, out: log.append(out == 0))
    batch = run.objective.batch

    def logged(*arguments: Any) -> tuple[torch.Tensor, ...]:
        log.extend(made := batch(*arguments))
        return made

    run.objective.batch = logged  # type: ignore[method-assign]
    run.step(1)
    run.step(2)
    return log


def test_every_encoding_sees_the_same_start_batches_and_dropout(tmp_path: Path) -> None:
    seen = {}
    for cell in cells("none", "sinusoidal", "learned", "t5", "shaw", "rope", backbone__dropout=0.2):
        seen[cell.config["encoding"]["name"]] = log_of_two_steps(loop(cell, tmp_path))
    for name, log in seen.items():
        assert len(log) == len(seen["none"]) > 10
        assert all(torch.equal(a, b) for a, b in zip(log, seen["none"], strict=True)), name


def test_batches_worked_off_in_parts_give_the_same_step(tmp_path: Path) -> None:
    whole, parts = (loop(cells("rope", training__accumulate=n)[0], tmp_path) for n in (1, 4))
    assert whole.step(1).item() == pytest.approx(parts.step(1).item(), abs=1e-6)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_the_best_model_by_validation_is_the_one_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation gets worse after step 2: the model of step 2 is tested, once at each length."""
    asked: list[tuple[str, int, str]] = []
    values = iter([3.0, 2.0, 5.0, 7.0, 7.0])

    def score(self: Any, model: torch.nn.Module, split: str, length: int) -> Scored:
        asked.append((split, length, str([p.sum().item() for p in model.parameters()])))
        return Scored({"bits_per_character": next(values)}, 1)

    monkeypatch.setattr(CausalLM, "score", score)
    record = train(cells("rope", training__steps=6)[0], tmp_path)
    assert [(split, length) for split, length, _ in asked[3:]] == [("test", 16), ("test", 64)]
    assert record["best_step"] == 4
    assert asked[3][2] == asked[1][2] != asked[2][2]


def test_learned_beyond_its_table_is_not_possible_for_that_length_alone(trained: Callable[[str], Record]) -> None:
    record = trained("learned")
    assert record["status"] == "done"
    rows = {row["length"]: row for row in record["scores"] if row["split"] == "test"}
    assert rows[16]["value"] > 0
    assert rows[64]["value"] is None
    assert "it has 16 positions, and 64 were asked for" in rows[64]["why"]


def test_it_learns(tmp_path: Path) -> None:
    record = train(cells("rope", training__steps=150, training__learning_rate=0.01)[0], tmp_path)
    test = next(row["value"] for row in record["scores"] if row["split"] == "test")
    assert test < record["baselines"]["unigram"] < 8


def test_divergence_is_a_failed_record_with_its_cause(tmp_path: Path) -> None:
    cell = cells("none", training__learning_rate=1e30, training__clip=0.0, training__warmup=0)[0]
    record = train(cell, tmp_path)
    assert record["status"] == "failed"
    assert record["reason"].startswith("diverged: the loss is nan at step")
    assert "DivergedError" in record["traceback"]
    assert Store(tmp_path).curve(cell.id)[-1]["loss"] is None


def test_an_error_in_a_cell_is_a_failed_record_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(CausalLM, "loss", broken)
    record = train(cells("none")[0], tmp_path)
    assert record["status"] == "failed"
    assert record["reason"] == "RuntimeError: broken on purpose"
    assert "in broken" in record["traceback"]


def test_data_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    cell = cells("none")[0]
    cell.config["data"]["digest"] = "0" * 64
    assert "has changed since the plan" in train(cell, tmp_path)["reason"]


def test_a_record_says_what_it_was_made_with(tmp_path: Path) -> None:
    record = train(cells("shaw")[0], tmp_path)
    assert record["backend"] == "blocks"
    assert record["parameters"]["positional"] == 2 * 1 * 33 * 8
    assert record["tokens_seen"] == 6 * 4 * 16
    assert record["flops_per_token"] > 2 * (record["parameters"]["total"] - 33 * 16)
    assert record["data"]["bytes"] > 1e6
    assert record["versions"]["torch"] == torch.__version__
    assert record["hardware"]["cores"] >= 1
    assert json.loads(json.dumps(record)) == {
        k: v for k, v in (Store(tmp_path).read_record(record["id"]) or {}).items() if k != "digest"
    }


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "inverse_square_root"])
def test_schedules(schedule: Any) -> None:
    config = TrainingConfig(steps=100, batch=1, learning_rate=2.0, schedule=schedule, warmup=10, validate_every=1)
    rates = [rate(config, step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    last = {"constant": 2.0, "cosine": 0.2, "linear": 0.0, "inverse_square_root": 2 * math.sqrt(0.1)}[schedule]
    assert rates[-1] == pytest.approx(last)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert 0 not in rates[:50]


def test_weight_decay_falls_on_the_backbones_matrices_alone(tmp_path: Path) -> None:
    run = loop(cells("learned", training__weight_decay=0.1)[0], tmp_path)
    names = {id(p): n for n, p in run.model.named_parameters()}
    decayed = {names[id(p)] for p in run.one_step.optimiser.param_groups[0]["params"]}
    assert len(decayed) == 6
    assert all(
        n.endswith("weight") and "norm" not in n and "embedding" not in n and "encoding" not in n for n in decayed
    )


def test_subnormals_count_as_nothing_in_a_cell_and_as_before_after_it(tmp_path: Path, monkeypatch: Any) -> None:
    smallest = torch.full((16,), 1e-39)

    def halved() -> bool:
        return bool((smallest * 0.5 == 0).all())

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot leave them out")
    torch.set_flush_denormal(False)
    seen, step = [], Loop.step
    monkeypatch.setattr(Loop, "step", lambda self, number: (seen.append(halved()), step(self, number))[1])
    (cell,) = cells("alibi", training__steps=2)
    assert train(cell, tmp_path)["status"] == "done"
    assert seen == [True, True] and not halved()
    with pytest.raises(RuntimeError), without_subnormals():
        raise RuntimeError
    assert not halved()
