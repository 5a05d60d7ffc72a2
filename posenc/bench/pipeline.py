"""Whether data keep up with training: tokens made ready in a second over tokens trained in a second."""

from __future__ import annotations

from dataclasses import dataclass

from posenc.bench.timing import Interval, in_turns, synchroniser
from posenc.objectives import factory
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.training.runtime import make_model, without_subnormals

TASK = "enwik8"


@dataclass(frozen=True)
class Pipeline:
    """A task at its smoke scale, whose data every machine has. `ratio` is of times, training over making a batch."""

    task: str
    tokens_ready: float
    tokens_trained: float
    ratio: Interval

    def said(self) -> str:
        """In a line."""
        return (
            f"data: {self.tokens_ready:.3g} tokens ready a second, {self.tokens_trained:.3g} trained ({self.task}):"
            f" {self.ratio.median:.0f} times [{self.ratio.low:.0f}, {self.ratio.high:.0f}]"
        )


def measure(rounds: int, device: str) -> Pipeline:
    """Batches made, and steps trained on them (forward and backward), in turns, with the task's `none`.

    Both handle the same tokens, so the ratio of their times is the ratio of tokens per second.
    """
    cell = make(find_suite(TASK), Selection(encodings=["none"], changes={"runtime.device": device})).cells[0]
    objective, model = factory.make(cell.settings, None), make_model(cell.settings)
    rows = cell.settings.training.batch
    batch = objective.batch(0, 1, rows)
    on_device = tuple(part.to(device) for part in batch)

    def train() -> None:
        model.zero_grad(set_to_none=True)
        objective.loss(model, on_device).backward()

    runs = {"batch": lambda: objective.batch(0, 1, rows), "train": train}
    with without_subnormals():  # as in training
        timed = in_turns(runs, {"batch": "batch", "train": "batch"}, rounds, synchroniser(device))
    tokens = objective.seen(batch)
    ready, trained = (tokens / timed[name].seconds.median for name in ("batch", "train"))
    ratio = timed["train"].ratio
    assert ratio is not None  # both ran
    return Pipeline(cell.name, ready, trained, ratio)
