"""The scores of a model on a split, as rows of a record; where there is none, why."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from posenc.api.blame import blamed
from posenc.api.objective import Objective, Scored
from posenc.attention.linear.division import counting
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError, PosencError
from posenc.config.task import RuntimeConfig
from posenc.records.record import POSITIONS
from posenc.training.cell_terms import DivergedError
from posenc.training.runtime import precision

Row = dict[str, Any]


def score(
    objective: Objective, model: Transformer, runtime: RuntimeConfig, split: str, length: int
) -> tuple[list[Row], dict[str, NDArray[Any]]]:
    """A row for each metric, and arrays over the items by name.

    Where a test score cannot be made at a length, that length has the reason in place of a value, and the others stand.

    Raises:
        DivergedError: a score on validation is no number. What else goes wrong on validation is raised as it is.
    """
    empty = {"split": split, "length": length, "value": None, "items": 0, "why": None}
    rows: list[Row] = [{**empty, "metric": metric.name} for metric in objective.metrics]
    model.eval()
    try:
        with precision(runtime), counting() as saturation:
            found = objective.score(model, split, length)
    except NotPossibleError as error:
        return [{**row, "why": str(error)} for row in rows], {}
    except PosencError:
        raise
    except Exception as error:  # a plug-in's hook may fail in any way beyond the length trained at
        if split == "validation":
            raise
        why = blamed(error) or f"{type(error).__name__}: {error}"
        return [{**row, "why": f"failed at length {length}: {why}"} for row in rows], {}
    rows = [row for row in rows if split != "validation" or row["metric"] in found.values]
    for row in rows:
        _fill(row, found, saturation.share)
    if split == "validation":
        return rows, {}
    arrays = dict(found.each) | {f"{POSITIONS}{name}": array for name, array in found.positions.items()}
    return rows, {f"{split}/{length}/{name}": array for name, array in arrays.items()}


def _fill(row: Row, found: Scored, lost: float | None) -> None:
    """The value of a row's metric, or why it has none; and the share of rows that linear attention has lost, if any."""
    name = str(row["metric"])
    details = dict(found.details) | ({} if lost is None else {"rows_lost": lost})
    row |= {"items": found.items, **({"details": details} if details else {})}
    if name in found.why:
        row["why"] = found.why[name]
    elif math.isfinite(value := found.values[name]):
        row["value"] = value
    elif row["split"] == "validation":
        raise DivergedError(f"diverged: {name} on {row['split']} is {value}")
    else:
        row["why"] = f"no number: {name} is {value}"
