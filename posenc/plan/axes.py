"""The axes of a grid: its values, or multiples of the task's own, and their combinations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from posenc.common.errors import ConfigError
from posenc.config.suite import Grid, Times
from posenc.config.task import Task


def lengths_of(grid: Grid, scale: str, task: Task, where: str) -> list[int]:
    """The training lengths that a grid names at a scale, in tokens."""
    asked = grid.lengths_at.get(scale, grid.lengths)  # type: ignore[call-overload]
    if not isinstance(asked, Times):
        return list(asked)
    lengths = [task.length * factor for factor in asked.times]
    for length in lengths:
        if length != int(length):
            raise ConfigError(f"{where}, lengths: {length:g} of task {task.name} is no whole number of tokens")
    return [int(length) for length in lengths]


def combinations(axes: Mapping[str, list[Any] | Times], own: Callable[[], Task], where: str) -> list[dict[str, Any]]:
    """The combinations of values that a grid varies or tunes over: one, of nothing, where it does not.

    Args:
        own: gives the task whose own values `times` multiply.
    """
    columns = [_multiples(own(), key, one, where) if isinstance(one, Times) else one for key, one in axes.items()]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*columns)]


def _multiples(task: Task, key: str, times: Times, where: str) -> list[int] | list[float]:
    """A number of the task's own, many times: a whole number stays one.

    Raises:
        ConfigError: it is no number, or a multiple is not whole.
    """
    own: Any = task
    for part in key.split("."):
        own = getattr(own, part, None)
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise ConfigError(f"{where}: {key} = {own!r} of task {task.name} has no multiples")
    values = [float(f"{own * factor:.12g}") for factor in times.times]
    if isinstance(own, float):
        return values
    for value in values:
        if value != int(value):
            raise ConfigError(f"{where}: {key} = {value:g} of task {task.name} is no whole number")
    return [int(value) for value in values]


def shown(value: Any) -> str:
    """A value in a cell's name."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict) else str(value)
