"""What a longer window gives beside one cut to the trained length: the same targets, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from posenc.objectives.windows import CUT, SLIDING
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP

PLACE = [*GROUP, "split", "evaluated", "encoding", "label"]
FIELDS = (*PLACE, "metric", "better", "n", "sliding", "cut", "difference", "low", "high")


def beside_cut(scores: pd.DataFrame) -> pd.DataFrame:
    """A row for each encoding and length beyond the trained one: its score by windows that slide, less that of the cut.

    n: seeds that have both. sliding, cut: means over them. difference, low, high: Student's interval of the paired
    differences, 95 %: below nought the longer windows are the better, where lower is better.
    """
    rows: list[dict[str, Any]] = []
    main = scores[scores["main"].astype(bool) & (scores["evaluated"] > scores["length"])]
    for values, group in main.groupby([*PLACE, "metric"], dropna=False, sort=False):
        place: Mapping[str, Any] = dict(zip([*PLACE, "metric"], values, strict=True))
        same = scores[scores["id"].isin(set(group["id"])) & (scores["evaluated"] == place["evaluated"])]
        same = same[(same["split"] == place["split"]) & same["value"].notna()]
        by_seed = {
            suffix: same[same["metric"] == f"{place['metric']}{suffix}"].set_index("seed")["value"]
            for suffix in (SLIDING, CUT)
        }
        if by_seed[CUT].empty:
            continue
        seeds = [seed for seed in by_seed[SLIDING].index if seed in by_seed[CUT].index]
        long, cut = ([float(by_seed[suffix][seed]) for seed in seeds] for suffix in (SLIDING, CUT))
        apart = interval([a - b for a, b in zip(long, cut, strict=True)])
        means = {"sliding": interval(long).mean, "cut": interval(cut).mean, "better": group["better"].iloc[0]}
        rows.append({**place, **means, "n": len(seeds), "difference": apart.mean, "low": apart.low, "high": apart.high})
    return pd.DataFrame(rows, columns=list(FIELDS))
