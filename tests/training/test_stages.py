"""A training that goes through lengths and batch sizes: its steps, its scores after each stage, going on exactly."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from runs import STAGED, STAGES

from posenc.common.errors import ConfigError
from posenc.config.task import Stage, TrainingConfig, task_at
from posenc.objectives.work import fixed
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms, StoppedError
from posenc.training.loop import Loop


def cell_of(encoding: str = "learned", **changes: Any) -> Cell:
    settings = {**STAGED, **{key.replace("__", "."): value for key, value in changes.items()}}
    (cell,) = make(find_suite("zh-mlm"), Selection(encodings=[encoding], lengths=[16], changes=settings)).cells
    return cell


def train(cell: Cell, folder: Path) -> Record:
    record = training.train(cell, CellTerms("test", folder))
    assert record is not None
    assert record["status"] == "done", record["traceback"]
    return record


def test_each_step_falls_into_its_stage() -> None:
    config = TrainingConfig(
        steps=7, batch=1, learning_rate=1.0, validate_every=1, stages=[Stage(**stage) for stage in STAGES]
    )
    assert [config.stage(step, 99).length for step in range(1, 8)] == [16, 16, 16, 48, 48, 8, 8]
    assert [config.ended(step) for step in range(1, 8)] == [None, None, 1, None, 2, None, 3]
    plain = TrainingConfig(steps=7, batch=5, learning_rate=1.0, validate_every=1)
    assert [plain.stage(step, 99) for step in (1, 7)] == [Stage(length=99, batch=5, steps=7)] * 2
    assert {plain.ended(step) for step in range(1, 8)} == {None}


def test_batches_are_as_long_and_as_many_as_their_stage_has_them(tmp_path: Path) -> None:
    loop, shapes = Loop(cell_of(), CellTerms("test", tmp_path), lambda: False), []
    made = loop.objective.batch

    def seen(*given: Any) -> Any:
        batch = made(*given)
        shapes.append(tuple(batch[0].shape))
        return batch

    loop.objective.batch = seen  # type: ignore[method-assign]
    for step in range(1, 8):
        loop.step(step)
    assert shapes == [(4, 16)] * 3 + [(2, 48)] * 2 + [(8, 8)] * 2
    assert loop.seen == sum(rows * length for rows, length in shapes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Store]:
    """Trained without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    return train(cell_of(), folder), Store(folder)


def test_a_record_has_the_scores_after_each_stage_at_its_length(whole: tuple[Record, Store]) -> None:
    record, store = whole
    assert [(stage["stage"], stage["length"], stage["batch"], stage["steps"]) for stage in record["stages"]] == [
        (1, 16, 4, 3), (2, 48, 2, 2), (3, 8, 8, 2)
    ]  # fmt: skip
    for stage in record["stages"]:
        assert set(stage["scores"]) == {"masked_loss", "masked_accuracy"}
        assert 0 < stage["scores"]["masked_loss"] < 10 and stage["items"] > 0
    # The first stage ends where validation stands too, at the same length: the same model, the same number.
    curve = store.curve(record["id"])
    third = {row["split"]: row["value"] for row in curve if row["step"] == 3 and row.get("metric") == "masked_loss"}
    assert third["validation"] == third["stage"] == record["stages"][0]["scores"]["masked_loss"]
    tests = {row["length"] for row in record["scores"] if row["split"] == "test"}
    assert tests == {8, 16, 48}
    assert all(row["value"] is not None for row in record["scores"]), "learned has room for the longest stage"


@pytest.mark.parametrize("stop", [3, 4, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 5, 6))])
def test_stopped_within_or_between_stages_it_goes_on_to_the_same_numbers_to_the_bit(
    tmp_path: Path, stop: int, whole: tuple[Record, Store]
) -> None:
    cell, (record, undisturbed) = cell_of(), whole
    calls = itertools.count()
    with pytest.raises(StoppedError):
        training.train(cell, CellTerms("test", tmp_path), lambda: next(calls) > stop)
    resumed = train(cell, tmp_path)
    for key in ("scores", "stages", "checkpoint", "tokens_seen", "best_step", "items"):
        assert resumed[key] == record[key], key
    curves = [store.curve(cell.id) for store in (undisturbed, Store(tmp_path))]
    assert [{**row, "seconds": 0} for row in curves[0]] == [{**row, "seconds": 0} for row in curves[1]]


def test_a_cell_is_made_for_its_longest_stage_and_counts_the_tokens_of_all() -> None:
    cell = cell_of()
    assert cell.config["max_length"] == 48
    work = fixed(cell.settings)
    assert (work.rows * work.times).tolist() == [192 / 16, 192 / 48, 128 / 8]
    assert work.widths.tolist() == [[16], [48], [8]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.steps": 8}, r"--set training.steps: training.steps = 8: the stages have 7"),
        ({"training.stages": [{**STAGES[0], "accumulate": 3, "steps": 7}]}, "training.batch = 4 is no multiple of"),
        ({"training.stages": [{**STAGES[0], "length": 0, "steps": 7}]}, "length = 0: must be at least 1"),
        ({"training.stages": [{"length": 3, "steps": 7}]}, r"training.stages.0.batch: .*required"),
    ],
)
def test_stages_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(find_suite("zh-mlm"), Selection(encodings=["rope"], changes={**STAGED, **changes}))


def test_only_masked_language_modelling_has_stages() -> None:
    with pytest.raises(ConfigError, match=r"training.stages: objective 'causal_lm' has none"):
        task_at("enwik8", "smoke", {"training.stages": ([{**STAGES[0], "steps": 350}], "here")})


def test_the_papers_six_stages() -> None:
    task = task_at("zh-mlm", "paper", {})
    stages = [(stage.length, stage.batch, stage.steps) for stage in task.training.stages]
    assert stages == [
        (512, 256, 200_000), (1536, 256, 12_500), (256, 256, 120_000), (128, 512, 80_000), (1536, 256, 10_000),
        (512, 512, 30_000),
    ]  # fmt: skip
    shape = (task.backbone.layers, task.backbone.width, task.backbone.heads, task.backbone.feedforward)
    assert shape == (12, 768, 12, 3072)
    assert (task.training.warmup, task.training.weight_decay, task.training.schedule) == (20_000, 0.01, "constant")
    losses = {one.stage: one.value for one in task.card.reported if one.metric == "masked_loss"}
    accuracies = {one.stage: one.value for one in task.card.reported if one.metric == "masked_accuracy"}
    assert losses == {1: 1.73, 2: 1.61, 3: 1.75, 4: 1.83, 5: 1.58, 6: 1.66}
    assert accuracies == {1: 0.650, 2: 0.668, 3: 0.646, 4: 0.634, 5: 0.674, 6: 0.662}
