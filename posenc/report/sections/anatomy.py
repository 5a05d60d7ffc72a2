"""What the heads of models do with position, before training and after."""

from __future__ import annotations

from typing import Any

import pandas as pd

from posenc.api.blocks import Block, Heading, List, Note, Sources, Table
from posenc.api.sections import ReportSection, Section
from posenc.records.record import is_number, variants
from posenc.report import words
from posenc.report.figures import anatomy as figures
from posenc.report.places import group_title
from posenc.report.statistics.anatomy import AFTER, BEFORE, SPLIT, gather, place_of, state_of
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.tables import GROUP
from posenc.report.view import View

SAID = (
    "What heads attend to, and how much of it is the encoding's: measured on the first windows of the test, the same"
    " for every encoding. It describes models: no figure here is better or worse, and none is tested."
)
ATTENDED = ("mean_distance", "entropy", "evenness", "first_token")


class AnatomySection(ReportSection):
    name = "anatomy"
    order = 55

    def make(self, view: View) -> Section | None:
        """Nothing where no model was measured."""
        scores = measured(view)
        if scores.empty:
            return None
        found = gather(view.store, view.records, view.manifest, view.unread)
        drawn = {draw.__name__: draw(found, view.looks) for draw in figures.ALL} if len(found.heads) else {}
        pictures = [
            *drawn.get("by_distance", []), *drawn.get("beyond", []), *drawn.get("by_layer", []),
            *figures.bars(scores, view.looks), *drawn.get("gallery", []),
        ]  # fmt: skip
        blocks: list[Block] = [Note(SAID)]
        for values, group in scores.groupby(GROUP, dropna=False, sort=False):
            place = dict(zip(GROUP, values, strict=True))
            title = f"Means over layers and heads: {group_title(place)}"
            attended = group["metric"].isin(ATTENDED)
            blocks.append(Heading(title))
            blocks.append(means(group[attended], f"{title}: where heads look"))
            blocks.append(means(group[~attended], f"{title}: order, and what the encoding adds"))
            if reasons := _reasons(group):
                blocks.append(List(tuple(reasons), "notes"))
        blocks.append(Sources(view.sources("tables/anatomy-heads.csv")))
        blocks += [Heading("Heads, drawn"), *map(view.figure, pictures)] if pictures else []
        return Section("Anatomy: what heads do with position", tuple(blocks), "Anatomy", {"anatomy-heads": found.heads})


def measured(view: View) -> pd.DataFrame:
    """The scores of cells that measured a model, a row each, with `state`; the start is no variant."""
    mine = view.scores[view.scores["split"] == SPLIT]
    by_id = variants(view.manifest["cells"])
    records = {record["id"]: record for record in view.records}
    kept = mine[mine["id"].isin(records)]
    places = [place_of(records[one], by_id.get(one, "")) for one in kept["id"]]
    states = [state_of(records[one]["config"]) for one in kept["id"]]
    return kept.assign(state=states, variant=[place["variant"] for place in places])


def means(group: pd.DataFrame, title: str) -> Table:
    """Encodings before and after training down, metrics across, at the trained length."""
    trained = group[group["evaluated"] == group["length"]]
    titles = {row.metric: str(row.title) for row in trained.itertuples()}
    decimals = {
        metric: words.decimals_for(trained.loc[trained["metric"] == metric, "value"].dropna()) for metric in titles
    }
    rows = []
    for label, mine in trained.groupby("label", sort=False):
        for state in (BEFORE, AFTER):
            at = mine[mine["state"] == state]
            if len(at):
                rows.append((f"{label}, {state}", *(_mean(at, metric, decimals[metric]) for metric in titles)))
    return Table(("encoding", *titles.values()), tuple(rows), title=title)


def _mean(group: pd.DataFrame, metric: str, decimals: int) -> str:
    found = interval([value for value in group.loc[group["metric"] == metric, "value"] if is_number(value)])
    return words.with_half_width(found.mean, found.half, decimals)


def _reasons(group: pd.DataFrame) -> list[str]:
    """Why something was not measured, once for each encoding and length."""
    missing: dict[tuple[Any, str], set[int]] = {}
    for row in group[group["why"].notna()].itertuples():
        missing.setdefault((row.label, str(row.why)), set()).add(int(row.evaluated))
    return [f"{label} at {words.listed(sorted(at))}: {why}." for (label, why), at in missing.items()]
