"""The training loop of one cell: model, steps, checkpoints, scores.

Every random number of a step is derived from (seed, purpose, step), so nothing depends on what was drawn before:
batches, dropout and random features are the same for every encoding, and a step can be run again as it was.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posenc import checkpoint, cost
from posenc.allocator import keep_freed_memory
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer, is_head
from posenc.checked import validate
from posenc.config import EvaluationConfig, RuntimeConfig, TrainingConfig
from posenc.errors import NotPossibleError, PosencError, StorageError, StoreError
from posenc.group import Group
from posenc.objectives import Batch, Objective, cut, factory
from posenc.optimiser import make_optimiser, rate
from posenc.plan import Cell
from posenc.provenance import reset_peak_memory
from posenc.seeds import derive
from posenc.store import Store, canonical, write_atomically

GO_ON, SAVE, STOP, TIME_OUT = range(4)


class DivergedError(PosencError):
    """The loss is no number any more."""


class TimedOutError(PosencError):
    """The cell has taken longer than it may; its checkpoint is there."""


class StoppedError(Exception):
    """The run was asked to stop; the cell has no record and goes on from its checkpoint next time."""


@dataclass(frozen=True)
class Terms:
    """What the cells of a run share and what changes none of their numbers.

    Attributes:
        suite: its name. store: the folder of its results. data: where official files lie.
        checkpoint_seconds: of training, between two checkpoints.
        time_limit: seconds that a cell may take, all its attempts together; None for any.
        keep: ids of the cells whose trained weights are kept.
    """

    suite: str
    store: Path
    data: Path | None = None
    checkpoint_seconds: float = checkpoint.SECONDS
    time_limit: float | None = None
    keep: frozenset[str] = frozenset()


def require_device(device: str) -> None:
    """Raise NotPossibleError where the device is not there; no other is taken in its place."""
    if device == "cuda" and not torch.cuda.is_available():
        raise NotPossibleError("device 'cuda': torch finds no GPU on this machine")


def set_up(runtime: RuntimeConfig) -> None:
    """Threads, and results that repeat to the bit.

    Raises:
        NotPossibleError: the device is not there; no other is taken in its place.
    """
    require_device(runtime.device)
    torch.set_num_threads(runtime.threads)
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with this
    # On CUDA some kernels (attention's backward with a bias) have no repeatable form: there a warning must do.
    torch.use_deterministic_algorithms(True, warn_only=runtime.device == "cuda")


def make_model(config: dict[str, Any]) -> Transformer:
    """The cell's model as it starts, on its device."""
    backbone = validate(BackboneConfig, config["backbone"], {}, "cell")
    runtime = validate(RuntimeConfig, config["runtime"], {}, "cell")
    model = Transformer(backbone, config["encoding"]["name"], config["max_length"], runtime.backend)
    return model.to(runtime.device).initialise(config["seed"])


class Curve:
    """The cell's curve file: a row an event, each whole line written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Forget what was written after a step: the cell goes on from there."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_atomically(self.path, "".join(line + "\n" for line in kept))

    def append(self, row: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(canonical(row) + "\n")
        except OSError as error:
            raise StorageError(self.path, error) from None


class _Loss(nn.Module):
    """The objective as a module, since DDP averages the gradients of what passes through a module's forward."""

    def __init__(self, model: Transformer, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, *part: Tensor) -> Tensor:
        return self.objective.loss(self.model, part)


class Loop:
    """The training of one cell, by one process or, together, by a group of them."""

    def __init__(self, cell: Cell, terms: Terms, stopped: Callable[[], bool], group: Group = Group()) -> None:  # noqa: B008
        self.start = time.perf_counter()
        self.config, self.cell_id, self.terms, self.stopped, self.group = cell.config, cell.id, terms, stopped, group
        config, self.store = cell.config, Store(terms.store)
        folder = self.store.cell_folder(cell.id)
        self.curve, self.path = Curve(folder / "curve.jsonl"), folder / "checkpoint.pt"
        self.training = validate(TrainingConfig, config["training"], {}, "cell")
        self.runtime = validate(RuntimeConfig, config["runtime"], {}, "cell")
        self.evaluation = validate(EvaluationConfig, config["evaluation"], {}, "cell")
        set_up(self.runtime)
        self.objective = factory.make(config, terms.data)
        backbone = validate(BackboneConfig, config["backbone"], {}, "cell")
        self.parameters, self.flops = cost.count(
            backbone, config["encoding"]["name"], config["length"], config["max_length"]
        )
        self.model = make_model(config)
        if self.runtime.compile != "none":
            self.model.compile_training(graphs=self.runtime.compile == "cudagraphs")
        self.optimiser = make_optimiser(self.model, self.training)
        self.loss = group.wrap(_Loss(self.model, self.objective))
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.recent: list[dict[str, Tensor]] = []
        self.scores: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []
        self.items: dict[str, NDArray[Any]] = {}
        self.seen = 0
        self.training_seconds = self.evaluation_seconds = self.spent = self.compile_seconds = 0.0

    @contextmanager
    def precision(self) -> Iterator[None]:
        with torch.autocast(self.runtime.device, torch.bfloat16, enabled=self.runtime.precision == "bfloat16"):
            yield

    def compile(self, first: int) -> None:
        """Compile what the steps from `first` on will run, before their clock starts: nothing else comes of it."""
        start, last = time.perf_counter(), self.training.steps
        for step in dict.fromkeys((first, *(end + 1 for end in self.training.ends() if first <= end < last))):
            self.model.train().begin_step(self.config["seed"], step)
            stage = self.training.stage(step, self.config["length"])
            batch = self.objective.batch(self.config["seed"], step, stage.batch)
            with self.group.without_averaging(self.loss):
                self.part_loss(cut(batch, stage.accumulate * self.group.size)[0]).backward()
        self.optimiser.zero_grad(set_to_none=True)
        self.compile_seconds += time.perf_counter() - start
        reset_peak_memory(self.runtime.device)  # a compiler takes more than small models do

    def part_loss(self, rows: Batch) -> Tensor:
        """The mean loss of a part of a batch."""
        made = self.objective.pack(rows) if self.training.packed else rows
        part = tuple(tensor.to(self.runtime.device) for tensor in made)
        if self.runtime.compile == "cudagraphs":
            torch.compiler.cudagraph_mark_step_begin()  # what the graphs gave for the part before is read no more
        with self.precision():
            loss: Tensor = self.loss(*part)
        return loss

    def step(self, step: int) -> float:
        """One optimiser step, counted from 1. Returns the mean loss in nats."""
        training, seed, group = self.training, self.config["seed"], self.group
        stage = training.stage(step, self.config["length"])
        self.model.train().begin_step(seed, step)
        batch = self.objective.batch(seed, step, stage.batch)
        whole = self.objective.targets(batch)
        self.seen += self.objective.seen(batch)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate(training, step)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        mine = cut(batch, stage.accumulate * group.size)[group.rank :: group.size]
        for index, rows in enumerate(mine):
            # Each target counts alike, in whichever part it stands; DDP takes the mean over the group.
            share = self.objective.targets(rows) / whole * group.size
            own = [group.rank] if group.size > 1 else []  # each process has rows, and so masks, of its own
            torch.manual_seed(derive(seed, "dropout", step, index, *own))
            last = index == len(mine) - 1
            with nullcontext() if last else group.without_averaging(self.loss):
                loss = self.part_loss(rows) * share
                loss.backward()
            if self.runtime.compile == "cudagraphs" and index == 0 and not last:
                for parameter in self.model.parameters():  # the next part's graphs write where these gradients stand
                    parameter.grad = None if parameter.grad is None else parameter.grad.clone()
            total += loss.item()
        total = group.mean(total)
        if not math.isfinite(total):
            raise DivergedError(f"diverged: the loss is {total} at step {step}")
        if training.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
        self.optimiser.step()
        return total

    def run(self) -> None:
        """Train, keep the best model by validation or the mean of the last, and score it on test once.

        In a group the first process alone scores.

        Raises:
            StoppedError, TimedOutError: before the end, with a checkpoint to go on from.
        """
        first = self.resume() + 1
        saved = self.training_seconds
        if self.runtime.compile != "none" and first <= self.training.steps:
            self.compile(first)
        for step in range(first, self.training.steps + 1):
            if self._between_steps(step - 1, self.training_seconds - saved):
                saved = self.training_seconds
            start = time.perf_counter()
            try:
                loss = self.step(step)
            except DivergedError:
                self.note({"step": step, "tokens": self.seen, "seconds": self.training_seconds, "loss": None})
                raise
            self.training_seconds += time.perf_counter() - start
            at = {"step": step, "tokens": self.seen, "seconds": round(self.training_seconds, 4)}
            if step == 1 or step % self.training.log_every == 0 or step == self.training.steps:
                self.note({**at, "loss": loss, "learning_rate": rate(self.training, step)})
            if self.group.first and (step % self.training.validate_every == 0 or step == self.training.steps):
                self.validate(step, at)
            if self.group.first and (number := self.training.ended(step)):
                self.end_stage(number, step, at)
        if self.group.first:
            if not self.training.steps:  # nothing is learnt: the model is what it started as
                self.best = (math.nan, 0, self.model.state_dict())
            if self.training.average:
                self.take_average()
            assert self.best is not None
            _, best_step, state = self.best
            self.model.load_state_dict(state)
            self.model.begin_step(self.config["seed"], best_step)
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
        best = None if self.best is None else {"value": self.best[0], "step": self.best[1], "state": self.best[2]}
        state = {
            "cell": self.cell_id,
            "step": step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": best,
            "recent": self.recent,
            "seen": self.seen,
            "scores": self.scores,
            "stages": self.stages,
            "seconds": [self.training_seconds, self.evaluation_seconds, self.elapsed(), self.compile_seconds],
        }
        checkpoint.save(self.path, state)

    def resume(self) -> int:
        """Take up the cell's checkpoint, or its parent's weights, where there are any. Returns the last step done."""
        state = checkpoint.load(self.path, self.cell_id)
        step = state["step"] if state else 0
        if self.group.first:
            self.curve.rewind(step)
        if state:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            best = state["best"]
            self.best = best and (best["value"], best["step"], best["state"])
            self.recent, self.scores, self.seen = state["recent"], state["scores"], state["seen"]
            self.stages = state["stages"]
            self.training_seconds, self.evaluation_seconds, self.spent, self.compile_seconds = state["seconds"]
        elif parent := self.config["parent"]:
            weights = {name: value for name, value in self.parent_weights(parent).items() if not is_head(name)}
            missing, unknown = self.model.load_state_dict(weights, strict=False)
            if unknown or not all(map(is_head, missing)):  # the plan has compared all shapes
                raise StoreError(f"the weights of {parent} do not fit: {[*missing, *unknown]}")
        return step

    def parent_weights(self, parent: str) -> dict[str, Tensor]:
        """The trained weights of the cell that this one starts from, as that cell's record tells of them."""
        record = self.store.read_record(parent)
        if record is None or record["status"] != "done":
            raise StoreError(f"its parent {parent} has not ended well: {record['reason'] if record else 'no record'}")
        return checkpoint.load_weights(self.store.weights_path(parent), record["checkpoint"]["digest"])

    def validate(self, step: int, at: dict[str, Any]) -> None:
        rows = self.score("validation", self.config["length"])
        for row in rows:
            self.note({**at, **{key: row[key] for key in ("split", "length", "metric", "value")}})
        value = next(row["value"] for row in rows if row["metric"] == self.objective.choice.name)
        state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.training.average:
            self.recent = [*self.recent, state][-self.training.average :]
        elif self.best is None or self.objective.choice.beats(value, self.best[0]):
            self.best, self.scores = (value, step, state), rows

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
        state = {
            name: torch.stack([weights[name] for weights in self.recent]).mean(0) if last.is_floating_point() else last
            for name, last in self.recent[-1].items()
        }
        self.model.load_state_dict(state)
        self.scores = self.score("validation", self.config["length"])
        value = next(row["value"] for row in self.scores if row["metric"] == self.objective.choice.name)
        self.best = (value, self.training.steps, state)

    def score(self, split: str, length: int) -> list[dict[str, Any]]:
        """A row for each metric; where the encoding has no answer at this length, the reason in place of the value."""
        start = time.perf_counter()
        empty = {"split": split, "length": length, "value": None, "items": 0, "why": None}
        rows = [{**empty, "metric": metric.name} for metric in self.objective.metrics]
        self.model.eval()
        try:
            with self.precision():
                found = self.objective.score(self.model, split, length)
            rows = [row for row in rows if split != "validation" or row["metric"] in found.values]
            if split != "validation":
                self.items |= {f"{split}/{length}/{name}": each for name, each in found.each.items()}
            for row in rows:
                row |= {"items": found.items, **({"details": dict(found.details)} if found.details else {})}
                if str(row["metric"]) in found.why:
                    row["why"] = found.why[str(row["metric"])]
                    continue
                value = found.values[str(row["metric"])]
                if math.isfinite(value):
                    row["value"] = value
                elif split == "validation":
                    raise DivergedError(f"diverged: {row['metric']} on {split} is {value}")
                else:
                    row["why"] = f"no number: {row['metric']} is {value}"
        except NotPossibleError as error:
            for row in rows:
                row["why"] = str(error)
        self.evaluation_seconds += time.perf_counter() - start
        return rows
