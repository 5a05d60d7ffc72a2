"""How a run is carried out: the options of `posenc run` that change no number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from posenc.common.errors import ConfigError, UnknownNameError
from posenc.training.cell_terms import CHECKPOINT_SECONDS

RERUN = ("missing", "failed", "stale", "all")
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Means:
    """How a run is carried out; none of it changes a number.

    Attributes:
        jobs: cells at once; by default as many as cores over threads a cell; on GPUs see posenc.running.sharing.
        rerun: which finished cells run again: missing (none), failed, stale, all.
        engine: local or ray. address: of the Ray cluster.
        time_limit: seconds that a cell may take; None for what the suite says.
        stop_after: seconds from its start after which the run stops, as by Ctrl-C; None for never.
        checkpoint_seconds: of training, between two checkpoints.
        keep: keep the trained weights of every cell.
    """

    jobs: int | None = None
    rerun: str = "missing"
    engine: str = "local"
    address: str | None = None
    time_limit: float | None = None
    stop_after: float | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    keep: bool = False

    def __post_init__(self) -> None:
        if self.rerun not in RERUN:
            raise UnknownNameError("choice", self.rerun, RERUN, "--rerun")
        if self.engine not in ENGINES:
            raise UnknownNameError("engine", self.engine, ENGINES, "--engine")
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs {self.jobs}: must be at least 1")
        if self.address is not None and self.engine != "ray":
            raise ConfigError(f"--address {self.address}: only --engine ray has one")


def seconds(text: str) -> float:
    """`90`, `90s`, `30m` or `2h` in seconds.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise ValueError(f"{text!r}: must be a time, such as 90s, 30m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
