"""A cell: one training, with an identity that hashes all that can change its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from posenc.common.files import digest
from posenc.config.settings import Settings


@dataclass(frozen=True)
class Cell:
    """One training: a task at a scale, with an encoding, a length, a seed and what else the suite varies.

    Attributes:
        id: the first 16 hex digits of SHA-256 of `config`.
        name: for people: `enwik8/performer/rope/L64/s0`.
        config: everything that decides its numbers, as it stands in its record. settings: the same, in types.
        backend: the attention backend that will run.
        why_not: why it cannot run, where it cannot.
        parent: the id of the cell whose trained weights it starts from.
        tuned: the values under which it stands in its suite's `tune`: keys to values.
        label: its encoding's name in its suite's report, where it has one of its own.
        faulty: that it cannot run is the fault of its encoding's code: it counts as failed.
        folder: where its task's TOML lies, from which paths in it may start.
    """

    id: str
    name: str
    config: dict[str, Any]
    backend: str | None = None
    why_not: str | None = None
    parent: str | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    faulty: bool = False
    folder: str = ""

    @classmethod
    def of(cls, config: dict[str, Any], name: str, **more: Any) -> Cell:
        """The cell of a configuration; `more` are the other attributes."""
        return cls(digest(config)[:16], name, config, parent=config["parent"], **more)

    @cached_property
    def settings(self) -> Settings:
        return Settings.of(self.config)

    def manifest(self) -> dict[str, Any]:
        return {
            **{key: getattr(self, key) for key in ("id", "name", "config", "parent", "label", "folder")},
            "tuned": dict(self.tuned),
        }
