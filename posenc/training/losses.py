"""The losses of the last steps, on the device until they are read together: no step waits to be read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from posenc.training.cell_terms import DivergedError
from posenc.training.group import Group

At = dict[str, Any]
"""Where a step stands in the curve: {"step": ..., "tokens": ...}."""


class Losses:
    """What the steps since the last read came to.

    Args:
        size: steps between two reads, at most.
    """

    def __init__(self, size: int, device: str, group: Group) -> None:
        self._values = torch.zeros(size, dtype=torch.float64, device=device)
        self._at: list[At] = []
        self._group = group

    def add(self, at: At, loss: Tensor) -> None:
        """Note a step's loss (), of this process's rows; nothing waits for it."""
        self._values[len(self._at)].copy_(loss)
        self._at.append(at)

    def read(self, *, alone: bool = False) -> float | None:
        """The loss of the last step, over the group's processes, all of which read at the same steps.

        None where no step has been made since the last read.

        Args:
            alone: of this process alone, where the others may be elsewhere.

        Raises:
            DivergedError: of the first step whose loss is no number; `at` says where it stands.
        """
        at, self._at = self._at, []
        if not at:
            return None
        values = self._values[: len(at)]
        found: list[float] = (values if alone else self._group.mean(values)).tolist()
        for place, value in zip(at, found, strict=True):
            if not math.isfinite(value):
                raise DivergedError(f"diverged: the loss is {value} at step {place['step']}", place)
        return found[-1]
