"""One cell, from its configuration to its record: model, loop, scores.

Every random number of a step is derived from (seed, purpose, step), so nothing depends on what was drawn before:
batches, dropout and random features are the same for every encoding, and a step can be run again as it was.
"""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posenc import checkpoint, cost, provenance
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer, is_positional
from posenc.config import EvaluationConfig, RuntimeConfig, TrainingConfig, validate
from posenc.data import text
from posenc.errors import DataError, NotPossibleError, PosencError
from posenc.objectives.causal_lm import CausalLM
from posenc.plan import Cell
from posenc.seeds import derive
from posenc.store import SCHEMA, Record, Store, canonical, write_atomically


class DivergedError(PosencError):
    """The loss is no number any more."""


class StoppedError(Exception):
    """The run was asked to stop; the cell has no record and goes on from its checkpoint next time."""


def rate(training: TrainingConfig, step: int) -> float:
    """The learning rate of a step, counted from 1."""
    if step <= training.warmup:
        return training.learning_rate * step / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    factor = {
        "constant": 1.0,
        "cosine": 0.55 + 0.45 * math.cos(math.pi * done),
        "linear": 1.0 - done,
        "inverse_square_root": math.sqrt(max(1, training.warmup) / step),
    }[training.schedule]
    return training.learning_rate * factor


def make_optimiser(model: Transformer, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; decay on the backbone's matrices alone (see TrainingConfig)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.dim() == 2 and not is_positional(name) and name != "embedding.weight"
        (decayed if matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas, eps=training.epsilon)


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
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with this
    # On CUDA some kernels (attention's backward with a bias) have no repeatable form: there a warning must do.
    torch.use_deterministic_algorithms(True, warn_only=runtime.device == "cuda")


def make_model(config: dict[str, Any]) -> Transformer:
    """The cell's model as it starts, on its device."""
    backbone = validate(BackboneConfig, config["backbone"], {}, "cell")
    runtime = validate(RuntimeConfig, config["runtime"], {}, "cell")
    model = Transformer(backbone, config["encoding"]["name"], config["length"], runtime.backend)
    return model.to(runtime.device).initialise(config["seed"])


class Curve:
    """The cell's curve file: a row an event, each whole line written at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def rewind(self, step: int) -> None:
        """Forget what was written after a step: the cell goes on from there."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_atomically(self.path, "".join(line + "\n" for line in kept))

    def append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(canonical(row) + "\n")


class Loop:
    """The training loop of one cell."""

    def __init__(self, cell: Cell, data: Path | None, folder: Path, stopped: Callable[[], bool]) -> None:
        self.config, self.cell_id, self.stopped = cell.config, cell.id, stopped
        config = cell.config
        self.curve, self.path = Curve(folder / "curve.jsonl"), folder / "checkpoint.pt"
        self.training = validate(TrainingConfig, config["training"], {}, "cell")
        self.runtime = validate(RuntimeConfig, config["runtime"], {}, "cell")
        self.evaluation = validate(EvaluationConfig, config["evaluation"], {}, "cell")
        set_up(self.runtime)
        self.text = text.load(config["data"]["source"], data)
        if self.text.digest != config["data"]["digest"]:
            raise DataError(f"{self.text.name} has changed since the plan was made: run the suite again")
        self.objective = CausalLM(self.text, tuple(config["data"]["splits"]), config["length"], self.evaluation)
        backbone = validate(BackboneConfig, config["backbone"], {}, "cell")
        self.parameters, self.flops = cost.count(backbone, config["encoding"]["name"], config["length"])
        self.model = make_model(config)
        self.optimiser = make_optimiser(self.model, self.training)
        self.best: tuple[float, int, dict[str, Tensor]] | None = None
        self.scores: list[dict[str, Any]] = []
        self.training_seconds = self.evaluation_seconds = 0.0

    @contextmanager
    def precision(self) -> Iterator[None]:
        with torch.autocast(self.runtime.device, torch.bfloat16, enabled=self.runtime.precision == "bfloat16"):
            yield

    def step(self, step: int) -> float:
        """One optimiser step, counted from 1. Returns the mean loss in nats."""
        training, seed = self.training, self.config["seed"]
        self.model.train().begin_step(seed, step)
        batch = self.objective.batch(seed, step, training.batch).to(self.runtime.device)
        for group in self.optimiser.param_groups:
            group["lr"] = rate(training, step)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for index, part in enumerate(batch.chunk(training.accumulate)):
            torch.manual_seed(derive(seed, "dropout", step, index))
            with self.precision():
                loss = self.objective.loss(self.model, part) / training.accumulate
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise DivergedError(f"diverged: the loss is {total} at step {step}")
        if training.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
        self.optimiser.step()
        return total

    def run(self) -> None:
        """Train, keep the best model by validation, and score it on test once."""
        per_step = self.training.batch * self.config["length"]
        first = self.resume() + 1
        seen, saved = (first - 1) * per_step, self.training_seconds
        for step in range(first, self.training.steps + 1):
            if self.stopped():
                self.save(step - 1)
                raise StoppedError
            if self.training_seconds - saved > checkpoint.SECONDS:
                self.save(step - 1)
                saved = self.training_seconds
            start = time.perf_counter()
            try:
                loss = self.step(step)
            except DivergedError:
                self.curve.append({"step": step, "tokens": seen, "seconds": self.training_seconds, "loss": None})
                raise
            seen += per_step
            self.training_seconds += time.perf_counter() - start
            at = {"step": step, "tokens": seen, "seconds": round(self.training_seconds, 4)}
            if step == 1 or step % self.training.log_every == 0 or step == self.training.steps:
                self.curve.append({**at, "loss": loss, "learning_rate": rate(self.training, step)})
            if step % self.training.validate_every == 0 or step == self.training.steps:
                self.validate(step, at)
        assert self.best is not None
        _, best_step, state = self.best
        self.model.load_state_dict(state)
        self.model.begin_step(self.config["seed"], best_step)
        for length in self.objective.lengths:
            self.scores.append(self.score("test", length))

    def save(self, step: int) -> None:
        """Write all that the steps after this one depend on; what is random follows from the seed and the step."""
        best = None if self.best is None else {"value": self.best[0], "step": self.best[1], "state": self.best[2]}
        state = {
            "cell": self.cell_id,
            "step": step,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best": best,
            "scores": self.scores,
            "seconds": [self.training_seconds, self.evaluation_seconds],
        }
        checkpoint.save(self.path, state)

    def resume(self) -> int:
        """Take up the cell's checkpoint, where there is one. Returns the last step done, 0 at the start."""
        state = checkpoint.load(self.path, self.cell_id)
        step = state["step"] if state else 0
        self.curve.rewind(step)
        if state:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            best = state["best"]
            self.best = best and (best["value"], best["step"], best["state"])
            self.scores = state["scores"]
            self.training_seconds, self.evaluation_seconds = state["seconds"]
        return step

    def validate(self, step: int, at: dict[str, Any]) -> None:
        row = self.score("validation", self.config["length"])
        kept = {key: row[key] for key in ("split", "length", "metric", "value")}
        self.curve.append({**at, **kept})
        better = self.best is None or row["value"] < self.best[0]
        if better:
            state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.best = (row["value"], step, state)
            self.scores = [row]

    def score(self, split: str, length: int) -> dict[str, Any]:
        """A row of scores; where the encoding has no answer at this length, the reason in place of the value."""
        start = time.perf_counter()
        metric = self.objective.metric.name
        row: dict[str, Any] = {
            "split": split,
            "length": length,
            "metric": metric,
            "value": None,
            "items": 0,
            "why": None,
        }
        self.model.eval()
        try:
            with self.precision():
                value, row["items"] = self.objective.score(self.model, split, length)
            if math.isfinite(value):
                row["value"] = value
            elif split == "test":
                row["why"] = f"no number: {metric} is {value}"
            else:
                raise DivergedError(f"diverged: {metric} on {split} is {value}")
        except NotPossibleError as error:
            row["why"] = str(error)
        self.evaluation_seconds += time.perf_counter() - start
        return row


def train(
    cell: Cell, suite: str, store: Store, data: Path | None, stopped: Callable[[], bool] = lambda: False
) -> Record:
    """Run one cell and write its record. Whatever goes wrong in it is a failed record, with cause and traceback.

    Raises:
        StoppedError: it was asked to stop; there is no record, and a checkpoint to go on from.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    device = cell.config["runtime"]["device"]
    record = _frame(cell, suite)
    provenance.reset_peak_memory(device)
    try:
        loop = Loop(cell, data, store.cell_folder(cell.id), stopped)
        loop.run()
        record |= _finished(cell, loop, device)
    except (StoppedError, KeyboardInterrupt):
        raise
    except Exception as error:  # one cell's failure never stops the others
        reason = str(error) if isinstance(error, PosencError) else f"{type(error).__name__}: {error}"
        record |= {
            "status": "failed",
            "reason": reason.strip() or type(error).__name__,
            "traceback": traceback.format_exc(),
        }
    seconds = round(time.perf_counter() - clock, 3)
    times = {"started": started.isoformat(timespec="seconds"), "ended": datetime.now(UTC).isoformat(timespec="seconds")}
    record["times"] = {**times, "seconds": seconds, **record.get("times", {})}
    store.write_record(record)
    if record["status"] == "done":
        loop.path.unlink(missing_ok=True)  # only now: a process killed before it goes on from there
    return record


def not_run(cell: Cell, suite: str, store: Store, status: str, reason: str) -> Record:
    """Write the record of a cell that was not trained to its end: "not_possible", or "failed" with its worker."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    times = {"started": now, "ended": now, "seconds": 0.0}
    record = {**_frame(cell, suite), "status": status, "reason": reason, "times": times}
    store.write_record(record)
    return record


def _frame(cell: Cell, suite: str) -> Record:
    return {
        "schema": SCHEMA,
        "id": cell.id,
        "name": cell.name,
        "suite": suite,
        "status": "done",
        "reason": None,
        "traceback": None,
        "config": cell.config,
        "scores": [],
        "backend": cell.backend,
        "code": provenance.code(),
        "versions": provenance.versions(),
    }


def _finished(cell: Cell, loop: Loop, device: str) -> Record:
    assert loop.best is not None
    config, training, metric = cell.config, loop.training, loop.objective.metric
    tokens = training.steps * training.batch * config["length"]
    weights = sha256()
    for name, value in sorted(loop.best[2].items()):
        weights.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "metric": {"name": metric.name, "title": metric.title, "better": metric.better},
        "scores": loop.scores,
        "baselines": loop.objective.baselines(),
        "best_step": loop.best[1],
        "parameters": loop.parameters,
        "flops_per_token": loop.flops,
        "tokens_seen": tokens,
        "tokens_per_second": tokens / loop.training_seconds,
        "data": loop.text.describe(),
        "checkpoint": {"digest": weights.hexdigest(), "kept": False},
        "peak_memory_bytes": provenance.peak_memory(device),
        "hardware": provenance.hardware(device),
        "times": {
            "training_seconds": round(loop.training_seconds, 3),
            "evaluation_seconds": round(loop.evaluation_seconds, 3),
        },
    }
