"""The arms of a suite's claims: by what the manifest knows the cells of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from posenc.common.errors import ConfigError
from posenc.config.claim import Arm, Claim, Comparison, SuiteOfClaims
from posenc.config.suite import Grid
from posenc.config.task import Task, plain
from posenc.plan.cell import Cell
from posenc.records.record import without_seed


class Wanted(Protocol):
    """What a plan says of a cell that it wants: the grid it stands in, its task, where both are written."""

    @property
    def grid(self) -> Grid: ...
    @property
    def task(self) -> Task: ...
    @property
    def where(self) -> str: ...


def told(suite: SuiteOfClaims, wanted: Sequence[Wanted], known: Mapping[int, Cell]) -> list[dict[str, Any]]:
    """The suite's claims with the cells of each arm, for the manifest.

    Args:
        known: the cell of each that was wanted, by its id in this process.
    """
    keys = ("name", "title", "who", "paper", "where", "says")
    return [
        {
            **{key: getattr(claim, key) for key in keys},
            "why_not": claim.why_not(suite.scale),
            "published": [plain(one) for one in claim.published],
            "compare": [_comparison(claim, one, suite.scale, wanted, known) for one in claim.compare],
        }
        for claim in suite.ledger
    ]


def _comparison(
    claim: Claim, one: Comparison, scale: str, wanted: Sequence[Wanted], known: Mapping[int, Cell]
) -> dict[str, Any]:
    mine, theirs = ({"key": "", "evaluated": None} for _ in range(2))
    if not claim.why_not(scale):
        mine, theirs = (_arm(claim, arm, wanted, known) for arm in one.arms())
    return {
        **{key: getattr(one, key) for key in ("encoding", "baseline", "metric", "split", "holds", "margin")},
        "metric_theirs": one.arms()[1].metric,
        "mine": mine["key"],
        "theirs": theirs["key"],
        "evaluated": mine["evaluated"],
        "evaluated_theirs": theirs["evaluated"],
        "published": [plain(figure) for figure in one.published],
    }


def _arm(claim: Claim, arm: Arm, wanted: Sequence[Wanted], known: Mapping[int, Cell]) -> dict[str, Any]:
    """By what an arm's cells are known, and the length at which they are scored; of cells left out, nothing.

    Raises:
        ConfigError: the task is not scored at that length.
    """
    grid = claim.arm_grid(arm)
    one = next((one for one in wanted if one.grid == grid), None)
    if one is None:
        return {"key": "", "evaluated": None}
    factors = one.task.evaluation.length_factors
    if arm.times not in factors:
        scored = ", ".join(f"{factor:g}" for factor in factors)
        raise ConfigError(f"{one.where}: times = {arm.times:g}: task {one.task.name} is scored at {scored} times")
    cell = known[id(one)]
    return {"key": without_seed(cell.config), "evaluated": round(cell.config["length"] * arm.times)}
