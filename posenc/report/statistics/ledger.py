"""What became of the claims that a suite tests: one family of comparisons, by the rule of `claims`.

A comparison is of two arms, paired by seed. "better" and "worse" are tested by the paired t-test. "same" says that the
arms differ by less than a margin: two one-sided tests (Schuirmann 1987) against the margin from within, and the
one-sided test of a larger difference from without, each at half of the level, so that at most 5 % of either kind of
error is made wherever the true difference lies. Holm's family has as many members as the suite tests at this scale,
whether or not their seeds are there: one that is added later changes nobody's family.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
from scipy import stats

from posenc.records.record import MACHINE, NOT_RUN_YET, Record, ending, is_number, without_seed
from posenc.report.statistics import claims
from posenc.report.statistics.claims import FIRST, LATER, LEVEL
from posenc.report.statistics.intervals import POWER, SEEDS_FOR_A_CLAIM, holm, interval, power
from posenc.report.words import listed, plural

HOLDS, OPPOSITE, CANNOT_TELL = "holds here", "opposite here", "cannot tell"
NOT_AT_SCALE, NOT_YET = "not at this scale", "not yet"
VERDICTS = (HOLDS, OPPOSITE, CANNOT_TELL, NOT_YET, NOT_AT_SCALE)
FIELDS = (
    *("claim", "title", "who", "paper", "where", "says", "published", "encoding", "baseline", "holds", "margin"),
    *("metric", "split", "metric_title", "better", "task", "trained", "evaluated", "evaluated_theirs"),
    *("n", "n_theirs", "mean", "mean_theirs", "pairs", "seeds", "differences", "difference", "difference_sd"),
    *("difference_low", "difference_high", "p", "p_flips", "p_skewed", "p_holm", "level", "looks", "lacking"),
    *("to_come", "at_floor", "smallest", "verdict", "why"),
)  # fmt: skip

PLACE = ("task", "attention", "variant", "length", "encoding", "split", "metric", "evaluated")
"""What tells one score of a suite's summary from the others."""


def ledger(
    manifest: Mapping[str, Any], records: Iterable[Record], scores: pd.DataFrame, summary: pd.DataFrame
) -> pd.DataFrame:
    """A row for each comparison, and one for each claim that is not tested at this scale.

    published: as the manifest has them. mean, mean_theirs: over the seeds of each arm. difference: over the `pairs`.
    to_come: seeds of either arm that have not run yet. level: at which p was held, after Holm and looks. smallest: the
    difference that so many seeds would find in four runs of five at that level, if it spreads as observed.

    Args:
        scores: of `tables.scores_frame`. summary: of `floors.mark`.
    """
    arms = _Arms(manifest, records, scores, summary)
    rows = []
    for claim in manifest.get("claims") or ():
        told = {"claim": claim["name"], **{key: claim[key] for key in ("title", "who", "paper", "where", "says")}}
        if claim["why_not"]:
            untested: list[Mapping[str, Any]] = claim["compare"] or [{}]
            for one in untested:
                named = {key: one.get(key) for key in ("encoding", "baseline", "holds", "margin", "metric")}
                published = one.get("published") or claim["published"]
                rows.append({**told, **named, "published": published, "verdict": NOT_AT_SCALE, "why": claim["why_not"]})
            continue
        for one in claim["compare"]:
            published = one["published"] or claim["published"]
            rows.append({**told, "published": published, **_compared(one, arms), "verdict": "", "why": ""})
    return judged(pd.DataFrame(rows, columns=list(FIELDS)), claims.looks(manifest))


def judged(rows: pd.DataFrame, looks: int) -> pd.DataFrame:
    """Rows of comparisons with what holds of them together: p_holm, level, verdict, why."""
    result = rows.assign(looks=looks)
    tested = result["verdict"] != NOT_AT_SCALE
    ready = tested & (result["pairs"] >= SEEDS_FOR_A_CLAIM) & result["p"].notna() & (result["to_come"] == 0)
    family = [float(p) if now else 1.0 for p, now in zip(result["p"], ready, strict=True)]
    members = [index for index, now in zip(result.index, tested, strict=True) if now]
    adjusted = holm([family[list(result.index).index(index)] for index in members])
    found = dict(zip(members, adjusted, strict=True))
    result["p_holm"] = [
        claims.at_look(found[index], looks) if now else math.nan for index, now in zip(result.index, ready, strict=True)
    ]
    # Holm stops at the first that is not rejected: all that are left were held against this.
    left = sum(tested) - int((result["p_holm"] < LEVEL).sum())
    level = LEVEL * FIRST * LATER ** (looks - 1) / max(1, left)
    result["level"] = [level if now else math.nan for now in ready]
    said = [_verdict(row) for row in result.to_dict("records")]
    result["verdict"] = [verdict for verdict, _ in said]
    result["why"] = [why for _, why in said]
    result["smallest"] = [
        smallest_found(row["difference_sd"], int(row["pairs"]), level)
        if row["verdict"] == CANNOT_TELL and now
        else math.nan
        for row, now in zip(result.to_dict("records"), ready, strict=True)
    ]
    return result


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """One of VERDICTS, by what `claims.verdict` says of the row; and why, where it is none of the first two."""
    if row["verdict"] == NOT_AT_SCALE:
        return NOT_AT_SCALE, str(row["why"])
    found = claims.verdict({**row, "named": True})
    if row["to_come"] and found not in ("at the floor", "seeds missing"):
        # Whoever stops where the first of the planned seeds please has more chances than the level allows for.
        planned = max(SEEDS_FOR_A_CLAIM, int(row["pairs"] + row["to_come"]))
        return NOT_YET, f"{int(row['pairs'])} of {planned} seeds"
    if found in ("better", "worse"):
        same = abs(row["difference"]) < row["margin"]
        return (HOLDS if (same if row["holds"] == "same" else found == row["holds"]) else OPPOSITE), ""
    if found == "at the floor":
        return NOT_AT_SCALE, str(row["at_floor"])
    if row["lacking"]:
        return CANNOT_TELL, f"seeds are missing: {row['lacking']}"
    if found in ("too few seeds", "no comparison"):
        return NOT_YET, f"{int(row['pairs'])} of {SEEDS_FOR_A_CLAIM} seeds"
    if found == "no spread, no test":
        return CANNOT_TELL, "the differences are the same in every seed: without a spread there is no test"
    against = claims.disagrees(row) if found == "tests disagree" else ""
    return CANNOT_TELL, f"the paired t-test finds it, but not {against}" if against else ""


def paired(mine: Sequence[float], theirs: Sequence[float], margin: float = 0.0) -> dict[str, float]:
    """p, p_flips and p_skewed of paired scores: whether they differ; with a margin, on which side of it they lie.

    With a margin the arm is moved by it, towards or away from the other: a test of no difference is then one of the
    margin. From within both ends must be left behind, so the larger p counts.
    """
    differences = [a - b for a, b in zip(mine, theirs, strict=True)]
    found = interval(differences)
    if not margin:
        moved = [0.0]
        p = found.p
    else:
        inside = abs(found.mean) < margin
        moved = [margin, -margin] if inside else [-math.copysign(margin, found.mean)]
        p = math.nan
        if is_number(found.p) and found.sd > 0:
            error = found.sd / math.sqrt(len(differences))
            gap = margin - abs(found.mean) if inside else abs(found.mean) - margin
            p = min(1.0, 2 * float(stats.t.sf(gap / error, len(differences) - 1)))
    skewed = [claims.skewed_p([a + by for a in mine], theirs) for by in moved]
    return {
        "p": p,
        "p_flips": max(claims.sign_flips([one + by for one in differences]) for by in moved),
        "p_skewed": math.nan if any(math.isnan(one) for one in skewed) else max(skewed),
    }


def smallest_found(sd: float, seeds: int, level: float) -> float:
    """The true difference that a paired t-test at a level finds in four runs of five, by the observed spread."""
    return _effect_found(seeds, level) * sd if is_number(sd) and sd > 0 and seeds > 1 else math.nan


@lru_cache
def _effect_found(seeds: int, level: float) -> float:
    """The same in standard deviations of the differences: power grows with the effect, so its range is halved."""
    low, high = 0.0, 1.0
    while power(high, seeds, level) < POWER:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, seeds, level) >= POWER else (middle, high)
    return high


class _Arms:
    """The scores of each arm's cells, by seed."""

    def __init__(
        self, manifest: Mapping[str, Any], records: Iterable[Record], scores: pd.DataFrame, summary: pd.DataFrame
    ) -> None:
        self.cells: dict[str, list[dict[str, Any]]] = {}
        for cell in manifest["cells"]:
            self.cells.setdefault(without_seed(cell["config"]), []).append(cell)
        self.ended = {record["id"]: record for record in records}
        tests_alone = scores[~scores["split"].isin(["validation", "theory"])]
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for row in tests_alone.to_dict("records"):
            self.rows.setdefault(row["id"], []).append(row)
        self.floors = {tuple(row[name] for name in PLACE): row for row in summary.to_dict("records")}

    def read(self, key: str, metric: str, evaluated: int | None, split: str) -> dict[str, Any]:
        """values: by seed. gone: (seed, why, cause) of the others. row: one of its scores, {} where it has none."""
        values: dict[int, float] = {}
        gone: list[tuple[int, str, Any]] = []
        row: dict[str, Any] = {}
        for cell in self.cells.get(key, []) if key else []:
            seed, record = cell["config"]["seed"], self.ended.get(cell["id"])
            fitting = [
                one
                for one in self.rows.get(cell["id"], [])
                if one["evaluated"] == evaluated
                and (one["metric"] == metric if metric else one["main"])
                and split in ("", one["split"])
            ]
            if fitting and is_number(fitting[0]["value"]):
                row = row or fitting[0]
                values[seed] = fitting[0]["value"]
            elif record is None:
                gone.append((seed, NOT_RUN_YET, NOT_RUN_YET))
            elif record["status"] == "done":
                why = str(fitting[0]["why"]) if fitting else f"no {metric or 'score'} at {evaluated:,}"
                gone.append((seed, why, record.get("cause")))
            else:
                gone.append((seed, ending(record), record.get("cause") or record["status"]))
        return {"values": values, "gone": gone, "row": row}

    def floor(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return self.floors.get(tuple(row.get(name) for name in PLACE), {})


def _compared(one: Mapping[str, Any], arms: _Arms) -> dict[str, Any]:
    """Both arms of a comparison, and the paired tests of their difference."""
    split = one.get("split") or ""
    mine = arms.read(one["mine"], one["metric"], one["evaluated"], split)
    theirs = arms.read(one["theirs"], one["metric_theirs"], one["evaluated_theirs"], split)
    seeds = sorted(mine["values"].keys() & theirs["values"].keys())
    pairs = [[arm["values"][seed] for seed in seeds] for arm in (mine, theirs)]
    differences = [a - b for a, b in zip(*pairs, strict=True)]
    found = interval(differences)
    row = mine["row"] or theirs["row"]
    means = [interval(list(arm["values"].values())).mean for arm in (mine, theirs)]
    tested = (
        paired(pairs[0], pairs[1], one["margin"]) if seeds else dict.fromkeys(("p", "p_flips", "p_skewed"), math.nan)
    )
    return {
        **{key: one[key] for key in ("encoding", "baseline", "holds", "margin", "evaluated", "evaluated_theirs")},
        "metric": row.get("metric") or one["metric"],
        "split": row.get("split") or split,
        "metric_title": row.get("title") or one["metric"],
        "better": row.get("better"),
        "task": row.get("task"),
        "trained": row.get("length"),
        "n": len(mine["values"]),
        "n_theirs": len(theirs["values"]),
        "mean": means[0],
        "mean_theirs": means[1],
        "pairs": len(seeds),
        "seeds": listed(seeds),
        "differences": " ".join(map(repr, differences)),
        "difference": found.mean,
        "difference_sd": found.sd,
        "difference_low": found.low,
        "difference_high": found.high,
        **tested,
        "lacking": _lacking(one, mine, theirs),
        "to_come": len({seed for arm in (mine, theirs) for seed, _, cause in arm["gone"] if cause == NOT_RUN_YET}),
        "at_floor": _at_floor(arms, mine, theirs),
    }


def _lacking(one: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The seeds of either arm that have no score for a cause that lies in training; "" where there are none."""
    parts = []
    for name, arm in ((one["encoding"], mine), (one["baseline"], theirs)):
        gone = [(seed, why) for seed, why, cause in arm["gone"] if cause not in (MACHINE, NOT_RUN_YET)]
        if gone:
            seeds = listed(sorted(seed for seed, _ in gone))
            parts.append(f"{name}, {plural(len(gone), 'seed')} ({seeds}: {listed(why for _, why in gone)})")
    return "; ".join(parts)


def _at_floor(arms: _Arms, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The score without a model above which neither arm lies, in words; "" where one does, or there is none."""
    found = [arms.floor(arm["row"]) for arm in (mine, theirs) if arm["row"]]
    if len(found) < 2 or not all(one.get("above") is False for one in found):
        return ""
    return f"at the floor: neither is above {found[0]['floor_name']} ({found[0]['floor']:.4g})"
