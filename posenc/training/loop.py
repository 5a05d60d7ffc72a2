"""The training loop of one cell: steps, checkpoints, validation, and the test at the end.

Every random number of a step is derived from (seed, purpose, step), so nothing depends on what was drawn before:
batches, dropout and random features are the same for every encoding, and a step can be run again as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from posenc.backbone import cost
from posenc.backbone.transformer import is_head
from posenc.backbone.uncompiled import uncompiled
from posenc.common.errors import StoreError
from posenc.common.seeds import derive
from posenc.objectives import factory
from posenc.plan.cell import Cell
from posenc.records.provenance import reset_peak_memory
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.training import checkpoint, evaluation
from posenc.training.batches import Batches, Loss
from posenc.training.cell_terms import CellTerms, DivergedError, StoppedError, TimedOutError
from posenc.training.curve import Curve
from posenc.training.graphs import Recorder
from posenc.training.group import Group
from posenc.training.losses import Losses
from posenc.training.optimiser import rate
from posenc.training.runtime import forget_compiled, make_model, set_up
from posenc.training.selection import Best, ModelSelection, mean_of
from posenc.training.step import Step

GO_ON, SAVE, STOP, TIME_OUT = range(4)


class Loop:
    """The training of one cell, by one process or, together, by a group of them.

    Attributes:
        remarks: what a reader of the record must know of how the training went on.
        started_at: the step of its parent's training whose weights are measured, where nothing is learnt.
    """

    def __init__(self, cell: Cell, terms: CellTerms, stopped: Callable[[], bool], group: Group = Group()) -> None:  # noqa: B008
        self.start = time.perf_counter()
        self.config, self.cell_id, self.terms, self.stopped, self.group = cell.config, cell.id, terms, stopped, group
        settings, self.store = cell.settings, Store(terms.store)
        self.seed, self.length = settings.seed, settings.length
        folder = self.store.cell_folder(cell.id)
        self.curve, self.path = Curve(folder / "curve.jsonl"), folder / "checkpoint.pt"
        self.training, self.runtime = settings.training, settings.runtime
        set_up(self.runtime)
        forget_compiled()
        self.objective = factory.make(settings, terms.data, Path(cell.folder))
        self.parameters = cost.parameters(settings.backbone, settings.encoding_name, settings.max_length)
        self.model = make_model(settings)
        if self.runtime.compile == "inductor":
            self.model.compile_training()
        self.batches = Batches(self.objective, self.training, self.runtime, self.length, group.rank, group.size)
        recorder = Recorder() if self.runtime.compile == "cudagraphs" else None
        loss = group.wrap(Loss(self.model, self.objective))
        self.one_step = Step(self.model, loss, self.training, self.runtime, group, recorder)
        self.losses = Losses(min(self.training.log_every, max(1, self.training.steps)), self.runtime.device, group)
        self.selection = ModelSelection(self.objective.choice, self.training.average)
        self.scores: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []
        self.items: dict[str, NDArray[Any]] = {}
        self.remarks: list[str] = []
        self.seen = self.started_at = 0
        self.training_seconds = self.evaluation_seconds = self.spent = self.compile_seconds = 0.0

    @property
    def chosen(self) -> Best:
        """The weights that are tested, once training has ended."""
        assert self.selection.best is not None
        return self.selection.best

    def warm_up(self, first: int) -> None:
        """Compile, load or record what the steps from `first` on will run, before their clock starts."""
        start = time.perf_counter()
        for step in self.batches.first_of_stages(first):
            self.model.train().begin_step(self.seed, step)
            self.one_step.warm_up(self.batches.make(self.seed, step).parts)
        if self.runtime.device == "cuda":
            torch.cuda.synchronize()
        self.compile_seconds += time.perf_counter() - start
        reset_peak_memory(self.runtime.device)  # a compiler takes more than small models do

    def step(self, step: int) -> Tensor:
        """One optimiser step, counted from 1. Returns the mean loss of this process's rows in nats, on the device."""
        self.model.train().begin_step(self.seed, step)
        seen, parts = self.batches.of(self.seed, step)
        self.seen += seen
        own = [self.group.rank] if self.group.size > 1 else []  # each process has rows, and so masks, of its own
        return self.one_step(
            parts, rate(self.training, step), lambda index: derive(self.seed, "dropout", step, index, *own)
        )

    def run(self) -> None:
        """Train, keep the best model by validation or the mean of the last, and score it on test once.

        In a group the first process alone scores.

        Raises:
            StoppedError, TimedOutError: before the end, with a checkpoint to go on from.
        """
        first = self.resume() + 1
        steps = range(first, self.training.steps + 1)
        if steps and (self.runtime.compile != "none" or self.runtime.device == "cuda"):
            self.warm_up(first)
        with self.batches.ahead(self.seed, steps):
            self._train(steps)
        if self.group.first:
            self._test()

    def _train(self, steps: range) -> None:
        """Make these steps: what they came to is read where it is logged or scored, and where a checkpoint is made."""
        saved = self.training_seconds
        for step in steps:
            if self._between_steps(step - 1, self.training_seconds - saved):
                saved = self.training_seconds
            start = time.perf_counter()
            self._guarded_step(step)
            last = step == self.training.steps
            logs = step == 1 or step % self.training.log_every == 0 or last
            scores = step % self.training.validate_every == 0 or last
            number = self.training.ended(step)
            loss = self.read() if logs or scores or number else None  # in every process: they read together
            self.training_seconds += time.perf_counter() - start
            at = {"step": step, "tokens": self.seen, "seconds": round(self.training_seconds, 4)}
            if logs:
                self.note({**at, "loss": loss, "learning_rate": rate(self.training, step)})
            if self.group.first and scores:
                self.validate(step, at)
            if self.group.first and number:
                self.end_stage(number, step, at)

    def _guarded_step(self, step: int) -> None:
        """A step, its loss noted. Where it fails after one whose loss was no number, that is the reason."""
        try:
            loss = self.step(step)
        except Exception:
            with suppress(RuntimeError):  # a GPU that has failed answers nothing more
                self.read(alone=True)
            raise
        self.losses.add({"step": step, "tokens": self.seen}, loss)

    def read(self, *, alone: bool = False) -> float | None:
        """The loss of the last step; see Losses.read. One that is no number ends the curve."""
        try:
            return self.losses.read(alone=alone)
        except DivergedError as error:
            self.note({**(error.at or {}), "seconds": self.training_seconds, "loss": None})
            raise

    def _test(self) -> None:
        """Score the chosen weights on every split and length of the test, once."""
        if not self.training.steps:  # nothing is learnt: the model is what it started as
            self.selection.best = Best(math.nan, self.started_at, self.model.state_dict())
        if self.training.average:
            self.take_average()
        self.model.load_state_dict(self.chosen.state)
        self.model.begin_step(self.seed, self.chosen.step)
        self.scores = [*self.chosen.rows]
        for split, length in self.objective.tests:
            self.scores += self.score(split, length)

    def note(self, row: dict[str, Any]) -> None:
        """A row of the curve, written once however many processes train."""
        if self.group.first:
            self.curve.append(row)

    def elapsed(self) -> float:
        """Seconds that the cell has taken, in this attempt and those before."""
        return self.spent + time.perf_counter() - self.start

    def _between_steps(self, done: int, since: float) -> bool:
        """Stop, end, save or go on after step `done`, `since` seconds after the last checkpoint. Whether it saved."""
        limit = self.terms.time_limit
        choice = GO_ON
        if self.stopped():
            choice = STOP
        elif limit is not None and self.elapsed() > limit:
            choice = TIME_OUT
        elif since > self.terms.checkpoint_seconds:
            choice = SAVE
        choice = self.group.decide(choice)
        if choice == GO_ON:
            return False
        self.read()  # no checkpoint holds what has diverged
        if self.group.first:
            self.save(done)
        if choice == STOP:
            raise StoppedError
        if choice == TIME_OUT:
            raise TimedOutError(
                f"took {self.elapsed():.0f} s and may take {limit:g}: stopped after step {done} of"
                f" {self.training.steps}; with a longer --time-limit, --rerun failed goes on from there"
            )
        return True

    def save(self, step: int) -> None:
        """Write all that the steps after this one depend on; what is random follows from the seed and the step."""
        with uncompiled():
            optimiser = self.one_step.optimiser.state_dict()
        state = {
            "cell": self.cell_id,
            "step": step,
            "model": self.model.state_dict(),
            "optimiser": optimiser,
            **self.selection.state(),
            "seen": self.seen,
            "stages": self.stages,
            "seconds": [self.training_seconds, self.evaluation_seconds, self.elapsed(), self.compile_seconds],
            "remarks": self.remarks,
        }
        checkpoint.save(self.path, state)

    def resume(self) -> int:
        """Take up the cell's checkpoint, or its parent's weights, where there are any. Returns the last step done."""
        state, refused = checkpoint.load(self.path, self.cell_id)
        step = state["step"] if state else 0
        lost = self.curve.rewind(step) if self.group.first else 0
        if state:
            self.model.load_state_dict(state["model"])
            with uncompiled():
                self.one_step.optimiser.load_state_dict(state["optimiser"])
            self.selection.load(state)
            self.seen, self.stages, self.remarks = state["seen"], state["stages"], state["remarks"]
            self.training_seconds, self.evaluation_seconds, self.spent, self.compile_seconds = state["seconds"]
        elif parent := self.config["parent"]:
            record, weights = self.parent_weights(parent)
            if self.training.steps:
                weights = {name: value for name, value in weights.items() if not is_head(name)}
            else:  # its very model is measured, with the random features that it was tested with
                self.started_at = record["best_step"] or 0
            missing, unknown = self.model.load_state_dict(weights, strict=False)
            if unknown or not all(map(is_head, missing)):  # the plan has compared all shapes
                raise StoreError(f"the weights of {parent} do not fit: {[*missing, *unknown]}")
        went_on = f"went on from step {step}" if step else "began again"
        self.remarks += [f"{reason}; the cell {went_on}" for reason in refused]
        if lost and step:  # else they are all written anew
            self.remarks.append(f"curve.jsonl was damaged: {lost} of its rows were lost; scores do not hang on them")
        return step

    def parent_weights(self, parent: str) -> tuple[Record, dict[str, Tensor]]:
        """The record of the cell that this one starts from, and the trained weights that it tells of."""
        record = self.store.read_record(parent)
        if record is None or record["status"] != "done":
            raise StoreError(f"its parent {parent} has not ended well: {record['reason'] if record else 'no record'}")
        return record, checkpoint.load_weights(self.store.weights_path(parent), record["checkpoint"]["digest"])

    def validate(self, step: int, at: dict[str, Any]) -> None:
        """Score the model on validation, into the curve; it may be the one that is tested."""
        rows = self.score("validation", self.length)
        for row in rows:
            self.note({**at, **{key: row[key] for key in ("split", "length", "metric", "value")}})
        self.selection.validated(self.model, step, rows)

    def end_stage(self, number: int, step: int, at: dict[str, Any]) -> None:
        """Score the model as a stage leaves it, on validation, at the length of the stage."""
        stage = self.training.stages[number - 1]
        rows = self.score("validation", stage.length)
        for row in rows:
            self.note({**at, "split": "stage", **{key: row[key] for key in ("length", "metric", "value")}})
        ended = {"stage": number, **{key: getattr(stage, key) for key in ("length", "batch", "steps")}}
        scores = {row["metric"]: row["value"] for row in rows}
        self.stages.append({**ended, "items": rows[0]["items"], "scores": scores, "ended_at": step})

    def take_average(self) -> None:
        """The mean of the weights at the last validations is the model, and has its own score on validation."""
        state = mean_of(self.selection.recent)
        self.model.load_state_dict(state)
        rows = self.score("validation", self.length)
        self.selection.best = Best(self.selection.value_of(rows), self.training.steps, state, rows)

    def score(self, split: str, length: int) -> list[dict[str, Any]]:
        """A row for each metric; where there is no score, the reason in place of the value."""
        start = time.perf_counter()
        rows, items = evaluation.score(self.objective, self.model, self.runtime, split, length)
        self.items |= items
        self.evaluation_seconds += time.perf_counter() - start
        return rows
