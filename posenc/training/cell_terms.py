"""What the cells of a run share, and how a cell may end before its last step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posenc.common.errors import PosencError

CHECKPOINT_SECONDS = 60.0
"""Seconds of training between two checkpoints, by default: what a killed cell loses at most."""


class DivergedError(PosencError):
    """The loss is no number any more.

    Attributes:
        at: where in the curve that was, of a loss in training.
    """

    def __init__(self, said: str, at: dict[str, Any] | None = None) -> None:
        super().__init__(said)
        self.at = at


class TimedOutError(PosencError):
    """The cell has taken longer than it may; its checkpoint is there."""


class StoppedError(Exception):
    """The run was asked to stop; the cell has no record and goes on from its checkpoint next time."""


@dataclass(frozen=True)
class CellTerms:
    """What the cells of a run share and what changes none of their numbers.

    Attributes:
        suite: its name. store: the folder of its results. data: where official files lie.
        checkpoint_seconds: of training, between two checkpoints.
        time_limit: seconds that a cell may take, all its attempts together; None for any.
        keep: ids of the cells whose trained weights are kept: for cells that start from them, or for their owner.
        for_owner: keep beside them what makes the models again.
    """

    suite: str
    store: Path
    data: Path | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    time_limit: float | None = None
    keep: frozenset[str] = frozenset()
    for_owner: bool = False
