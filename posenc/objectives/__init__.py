"""What is learnt and how it is scored, by the name that a task's TOML gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score: `better` is "lower" or "higher"."""

    name: str
    title: str
    better: str
