"""How long cells will take: by what cells of their kind took, and before that by their FLOPs.

What a cell takes is its expected seconds, by its FLOPs, times a rate. The rate is taken from cells that are like it:
first all, then those of its task, of its task and attention, and its own under other seeds. Each of these kinds moves
the rate of the wider one the more, the longer its cells have trained: what took a second says little of hours.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posenc.plan.overview import DEFAULT_SPEED
from posenc.records.record import is_number

CELL_SECONDS = 1.0
"""What a cell takes that computes nothing: reading its data, making its model, writing its record."""
STEP_SECONDS = 0.004
"""What a step takes that computes nothing."""
SETTLED = 20.0
"""After so many seconds of training a kind counts as much as the wider one that it belongs to."""


@dataclass(frozen=True)
class Expected:
    """Seconds that a cell takes by its FLOPs: its training, and all of it."""

    training: float
    whole: float


def expected(config: Mapping[str, Any]) -> Expected:
    """By a cell's configuration, as a manifest has it; what an older one does not say is taken to be small."""
    training, evaluation, runtime = (table_of(config, key) for key in ("training", "evaluation", "runtime"))
    length, steps = number_of(config, "length", 1), number_of(training, "steps", 0)
    train = 0.0
    for part in parts_of(training):
        tokens = number_of(part, "steps", 0) * number_of(part, "batch", 1) * number_of(part, "length", length)
        train += 3 * tokens * flops_per_token(config, number_of(part, "length", length))
    factors = evaluation.get("length_factors") or [1]
    scored, every = number_of(evaluation, "tokens", 0), max(1.0, number_of(training, "validate_every", 1))
    score = scored * flops_per_token(config, length) * steps / every
    score += sum(scored * flops_per_token(config, length * factor) for factor in factors if is_number(factor))
    device = runtime.get("device")
    speed = 1e12 * DEFAULT_SPEED.get(str(device), DEFAULT_SPEED["cpu"]) * max(1.0, number_of(runtime, "processes", 1))
    speed *= max(1.0, number_of(runtime, "threads", 1)) if device != "cuda" else 1.0
    training_seconds = train / speed + STEP_SECONDS * steps
    return Expected(training_seconds, CELL_SECONDS + training_seconds + score / speed)


def flops_per_token(config: Mapping[str, Any], length: float) -> float:
    """Of a forward pass over rows of `length`, whatever the encoding: matrix products and attention, in closed form."""
    backbone = table_of(config, "backbone")
    width, layers = number_of(backbone, "width", 64), number_of(backbone, "layers", 1)
    seen = length if backbone.get("attention") != "performer" else 2 * number_of(backbone, "features", 256)
    layer = 8 * width**2 + 4 * width * number_of(backbone, "feedforward", 4 * width) + 4 * seen * width
    return layers * layer + 2 * width * (number_of(backbone, "outputs", 0) or number_of(backbone, "vocabulary", 256))


def table_of(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table of a configuration; an empty one where it has none."""
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def parts_of(training: Mapping[str, Any]) -> list[Any]:
    """The stages of a training, or the whole of it."""
    stages = training.get("stages")
    return stages if isinstance(stages, list) and stages else [training]


def number_of(table: Any, key: str, default: float) -> float:
    """A number of a table, which a file may hold anything in."""
    found = table.get(key) if isinstance(table, Mapping) else None
    return float(found) if found is not None and is_number(found) and found >= 0 else default


@dataclass
class _Seen:
    """Of cells of one kind: the seconds they took, and those that were expected; whether one has ended."""

    seconds: float = 0.0
    expected: float = 0.0
    ended: int = 0


class Forecast:
    """What the cells of a run will take.

    Args:
        cells: as a manifest has them, by id.
    """

    def __init__(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        self._expected = {cell_id: expected(table_of(cell, "config")) for cell_id, cell in cells.items()}
        self._kinds = {cell_id: _kinds(cell) for cell_id, cell in cells.items()}
        self._seen: dict[tuple[str, ...], _Seen] = {}
        self._told: dict[str, tuple[float, float, bool]] = {}

    def ended(self, cell_id: str, seconds: float) -> None:
        """A cell has ended well, after so many seconds."""
        if cell_id in self._expected:
            self._note(cell_id, (seconds, self._expected[cell_id].whole, True))

    def running(self, cell_id: str, seconds: float, part: float) -> None:
        """A cell has done a part of its training, in so many seconds."""
        if cell_id in self._expected:
            self._note(cell_id, (seconds, part * self._expected[cell_id].training, False))

    def forget(self, cell_id: str) -> None:
        """A cell starts again, or has failed: what it took says nothing of others."""
        self._note(cell_id, (0.0, 0.0, False))

    def _note(self, cell_id: str, told: tuple[float, float, bool]) -> None:
        before = self._told.pop(cell_id, (0.0, 0.0, False))
        if told[0] <= 0 or told[1] <= 0:
            told = (0.0, 0.0, False)
        self._told[cell_id] = told
        for kind in self._kinds.get(cell_id, ()):
            seen = self._seen.setdefault(kind, _Seen())
            seen.seconds += told[0] - before[0]
            seen.expected += told[1] - before[1]
            seen.ended += told[2] - before[2]

    def seconds(self, cell_id: str) -> float:
        """What the whole of a cell takes."""
        rate, kinds = 1.0, self._kinds[cell_id]
        for kind in kinds:
            seen = self._seen.get(kind)
            if seen is None or seen.seconds <= 1e-9 or seen.expected <= 1e-9:  # rounding may leave a little
                continue
            weight = 1.0 if kind == kinds[-1] and seen.ended else seen.seconds / (seen.seconds + SETTLED)
            rate = (seen.seconds / seen.expected) ** weight * rate ** (1 - weight)
        return rate * self._expected[cell_id].whole

    def untold(self, cells: Iterable[str]) -> list[str]:
        """The tasks of these cells of which none has ended: what they take is a guess, and is not told."""
        tasks = dict.fromkeys(self._kinds[one][1] for one in cells if one in self._kinds)
        return [kind[0] for kind in tasks if not (kind in self._seen and self._seen[kind].ended)]

    def left(self, running: Mapping[str, float], waiting: Iterable[str], at_once: int) -> float:
        """Seconds to the end of the last cell.

        Args:
            running: the part of its training that each has done. waiting: in their order. at_once: how many run.
        """
        ends = []
        for cell_id, part in running.items():
            if cell_id in self._expected:
                cell = self._expected[cell_id]
                ends.append(self.seconds(cell_id) * (1 - part * cell.training / cell.whole))
        ends += [0.0] * max(0, max(1, at_once) - len(ends))
        heapq.heapify(ends)
        for cell_id in waiting:
            heapq.heapreplace(ends, ends[0] + self.seconds(cell_id))
        return max(ends)


def _kinds(cell: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The kinds that a cell is of, the widest first; the last is itself under whatever seed."""
    config = table_of(cell, "config")
    task, attention = str(config.get("task")), str(table_of(config, "backbone").get("attention"))
    itself = str(cell.get("name")).removesuffix(f"/s{config.get('seed')}")
    return (), (task,), (task, attention), (task, attention, itself)
