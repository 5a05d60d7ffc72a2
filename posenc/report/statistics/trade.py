"""What an encoding costs beside what it brings: both as they stand to the baseline's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from posenc.records.record import is_number
from posenc.report.statistics.tables import GROUP

FIELDS = (*GROUP, "encoding", "label", "title", "better", "unit", "cost", "times", "pairs", "difference",
          "difference_low", "difference_high", "at_floor")  # fmt: skip


def trade(groups: Sequence[Sequence[dict[str, Any]]], cost: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each encoding of a group whose baseline has a score: its cost over the baseline's, and its difference.

    cost, unit: seconds of training a cell where `equal_cost.timed` says that times tell of the encodings, else FLOPs a
    token. times: over the baseline's. The baseline itself has a row, of 1 and 0. An encoding without a cost has none.

    Args:
        groups: `tables.at_trained`. cost: `tables.cost_table`. runs: curves that are `equal_cost.timed`.
    """
    flops = cost.set_index([*GROUP, "encoding"])["flops_per_token"].to_dict()
    in_time = runs[runs["unit"] == "s"]
    ends = in_time.groupby([*GROUP, "encoding", "seed"], dropna=False, sort=False)["cost"].max()
    seconds = ends.groupby([*GROUP, "encoding"], dropna=False, sort=False).mean().to_dict()
    rows: list[dict[str, Any]] = []
    for group in groups:
        place = tuple(group[0][key] for key in GROUP)
        baseline = group[0]["baseline"]
        unit, known = ("s", seconds) if (*place, baseline) in seconds else ("FLOPs a token", flops)
        theirs = known.get((*place, baseline), math.nan)
        if not (is_number(theirs) and theirs > 0):
            continue
        for row in group:
            mine = known.get((*place, row["encoding"]), math.nan)
            if not is_number(mine) or not (row["pairs"] or row["encoding"] == baseline):
                continue
            own = {key: row[key] for key in FIELDS if key in row}
            own |= {"unit": unit, "cost": float(mine), "times": float(mine / theirs)}
            own |= {"difference": 0.0} if row["encoding"] == baseline else {}
            rows.append(own)
    return pd.DataFrame(rows, columns=list(FIELDS))
