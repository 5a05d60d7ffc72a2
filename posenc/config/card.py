"""What a task is, where it comes from, and what the paper reported of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from posenc.common.errors import ConfigError
from posenc.common.toml import STRICT


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One figure of the paper, in our metric and its unit (fractions, not per cent).

    Attributes:
        where: "Table 2" or "Figure 3, left". says: what a figure shows, in words.
        row: the model's name there, which a suite's `names` give to its rows.
        metric: our name for what was measured. value: None where the paper shows a curve alone.
        split: of ours that it stands beside. times: trained at this multiple of the task's length, 0 for any.
        stage: of a training in stages, counted from 1; 0 for none.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    where: str
    row: str = ""
    metric: str = ""
    value: float | None = None
    says: str = ""
    split: str = "test"
    times: float = 0.0
    stage: int = 0

    def __post_init__(self) -> None:
        if (self.value is None) == (not self.says):
            raise ConfigError(f"card.reported: {self.where} {self.row}: must have either a value or what it says")
        if self.value is not None and not (self.row and self.metric):
            raise ConfigError(f"card.reported: {self.where}: a value wants its row and its metric")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a task is and where it comes from: `paper_says` and `we_chose` keep the two apart. posenc's own say all.

    Attributes:
        summary: what it is, in a sentence. paper: the paper, with its address. section: of the paper.
        paper_says: what the paper tells of data, model and training. we_chose: what it leaves open, and we decided.
        data: where the data come from. licence: of the data. revision: which files they are. citation: of the data.
        departures: where model and training are not those of the model that the task is named after, each with what
            stands there and what stands here: [] where there is none.
        caveats: what a reader must know before our figures are set beside the paper's.
        reported: the paper's figures.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    summary: str = ""
    paper: str = ""
    section: str = ""
    paper_says: list[str] = field(default_factory=list)
    we_chose: list[str] = field(default_factory=list)
    data: str = ""
    licence: str = ""
    revision: str = ""
    citation: str = ""
    departures: list[str] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    reported: list[Reported] = field(default_factory=list)
