"""Where a task's examples come from, as its TOML says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from posenc.common.errors import ConfigError
from posenc.common.toml import STRICT

OWN = ("table", "parallel", "text")
"""The sources whose files a task's TOML names."""
NO_SOURCE = "none"
"""The source of data of an objective that reads none."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where examples come from.

    Attributes:
        source: a name that posenc.data.sources knows; "none" where nothing is learnt.
        splits: of a text that has none of its own: parts of the whole.
        options: of a source that is a generator of sequences: keywords of its class.
        tokeniser: bytes; one of posenc.data.tokens, trained on the task's own text to `backbone.vocabulary` tokens;
            symbols, as a generator of sequences gives them; or patches of images.
        vocabulary_of: the source on whose text it is trained, where that is not the task's own.
        held_out: of the training rows, the share on which choices are made where the test's labels are hidden (GLUE).
        released: the hub's repository of a released tokeniser, used in place of one trained here. revision: of it.
        files: of the sources that need no code (posenc.data.own_files): by split ("train", "validation", "test"; or
            "all", cut by `splits`) a path or several, of a parallel text one of each side. What begins with ./ or
            ../ starts where the task's TOML lies, any other relative path at --data DIR.
        format: of a table: tsv (never quoted), csv or jsonl; by default as its files' names end.
        header: whether a table's first line has its columns' names.
        columns: of a table, by the objective's names for them: a name, or a number counted from 1.
        labels: the names of the classes that a table's column "label" has, in their order; none where it is a score.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    source: str
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    options: dict[str, bool | int | float | str | list[int] | list[str]] = field(default_factory=dict)
    tokeniser: Literal["bytes", "bpe", "wordpiece", "characters", "words", "symbols", "patches"] = "bytes"
    vocabulary_of: str = ""
    held_out: float = 0.1
    released: str = ""
    revision: str = ""
    files: dict[str, str | list[str]] = field(default_factory=dict)
    format: Literal["", "tsv", "csv", "jsonl"] = ""
    header: bool = True
    columns: dict[str, str | int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    @property
    def own(self) -> bool:
        """Whether its files and columns are described here, and no code reads it."""
        return self.source in OWN

    def __post_init__(self) -> None:
        self._require_described()
        if min(self.splits) <= 0 or abs(sum(self.splits) - 1) > 1e-9:
            raise ConfigError(f"data.splits = {list(self.splits)}: must be three positive parts that sum to 1")

    def _require_described(self) -> None:
        """What describes files must stand where it is read, and nowhere else."""
        if self.own != bool(self.files):
            wanted = "must say where each split lies" if self.own else f"only {', '.join(OWN)} have files"
            raise ConfigError(f"data.files = {self.files}: data.source = {self.source!r}: {wanted}")
        if (self.columns or self.labels or self.format or not self.header) and self.source != "table":
            raise ConfigError(f"data.source = {self.source!r}: data.columns, labels, format and header are of 'table'")
        if not self.own:
            return
        if self.options:
            raise ConfigError(f"data.options = {self.options}: data.source = {self.source!r} has none")
        if "all" in self.files and len(self.files) > 1:
            raise ConfigError("data.files: all stands alone, and is cut by data.splits")
        for split, paths in self.files.items():
            if not re.fullmatch("all|train|test|validation(_[a-z0-9]+)?", split):
                raise ConfigError(f"data.files.{split}: allowed are train, validation and test, or all")
            if not paths or "" in list(paths):
                raise ConfigError(f"data.files.{split} = {paths!r}: a path must stand there")
            if self.source == "parallel" and (isinstance(paths, str) or len(paths) != 2):
                raise ConfigError(f"data.files.{split} = {paths!r}: a parallel text has two files, source and target")
        if self.source != "table" and set(self.files) not in ({"all"}, {"train", "validation", "test"}):
            raise ConfigError(f"data.files has {', '.join(self.files)}: train, validation and test, or all, must stand")
        if "all" not in self.files and "train" not in self.files:
            raise ConfigError(f"data.files has {', '.join(self.files)}: train is missing")
        if len(set(self.labels)) < len(self.labels) or len(self.labels) == 1:
            raise ConfigError(f"data.labels = {self.labels}: at least two, each once, or none for scores")
