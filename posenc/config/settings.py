"""A cell's configuration, parsed: all that decides its numbers, each part of its own type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from posenc.backbone.config import BackboneConfig
from posenc.common.toml import STRICT, validate
from posenc.config.data import DataConfig
from posenc.config.task import EvaluationConfig, RuntimeConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class CellData(DataConfig):
    """A task's data, and what they held when the plan was made.

    Attributes:
        digest: of all that is read.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    digest: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a cell is told: its configuration as the plan writes and hashes it, in types.

    Attributes:
        schema: of the record. task, task_version, scale: where it stands.
        encoding: its name with options, its version and its package.
        task_source: digest of the task's TOML, where it was named by its path. objective_package: that brings it, where
            it is not posenc.
        length: of the rows, in tokens. max_length: the longest that the model is built for.
        start: "scratch", or the task that its parent trains. parent: the id of that cell.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    schema: int
    task: str
    task_version: int
    scale: str
    encoding: dict[str, Any]
    length: int
    max_length: int
    seed: int
    data: CellData
    objective: str
    start: str
    backbone: BackboneConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    runtime: RuntimeConfig
    parent: str | None
    task_source: str = ""
    objective_package: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """The configuration of a cell, parsed.

        Raises:
            ConfigError: a key is unknown, missing or of another type.
        """
        return validate(cls, config, {}, "a cell's configuration")

    @property
    def encoding_name(self) -> str:
        """The encoding with its options."""
        return str(self.encoding["name"])
