"""The paper's tables and figures, each with its own figures beside ours, and what to know before they are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from posenc.api.blocks import Aside, Block, Group, Heading, List, Note, Paragraph, Sources, Table
from posenc.api.sections import ReportSection, Section
from posenc.records.record import Record, coordinates, is_number, labels, variants
from posenc.report import words
from posenc.report.places import group_title
from posenc.report.statistics.intervals import interval
from posenc.report.statistics.models import between_models
from posenc.report.statistics.tables import GROUP
from posenc.report.view import View

NOT_RUN = "not run here"
SAID = (
    "The paper's figures as it printed them, without seeds or intervals; ours: mean over seeds \u00b1 half of the 95 %"
    " interval, at the trained length."
)


class BesideThePaper(ReportSection):
    name = "paper"
    order = 40

    def make(self, view: View) -> Section | None:
        """Each table and figure of a paper that a task's card tells of, then what was measured of the encodings."""
        stages = stage_frame(view.records, view.manifest)
        parts = reported_parts(view.manifest, view.scores, stages, view.captions)
        between = between_models(view.store, view.records, view.manifest, view.unread) if parts else {}
        blocks: list[Block] = [Note(SAID)] if parts else []
        for part in parts:
            blocks += _blocks(view, part, between)
        theory = theory_grid(view.theory, view.records)
        if theory.rows:
            blocks += [
                Heading("The encodings' own properties, measured"),
                Note("Nothing is trained here; the largest of what the seeds gave."),
                replace(theory, title="Properties"),
                Sources(view.sources("tables/scores.csv")),
            ]
        files = {"stages": stages} if len(stages) else {}
        return Section("Beside the paper", tuple(blocks), link="Paper", files=files) if blocks else None


def _blocks(view: View, part: Reported, between: Mapping[str, Table]) -> Iterable[Block]:
    yield Heading((part.where, " ", Aside(f"({part.paper})")) if part.paper else part.where)
    if part.caveats:
        yield List(part.caveats, "cautions")
    yield from (Paragraph(f"The paper: {text}.") for text in part.says)
    if part.grid.rows:
        yield replace(part.grid, title=part.where)
    if part.stages.rows:
        yield replace(part.stages, title=f"{part.where}, by stage")
        yield Sources(view.sources("tables/stages.csv"))
    if part.figure:
        drawn = [*view.curve_pictures, *view.decay_pictures]
        if mine := [view.figure(one) for one in drawn if one.place["task"] in part.tasks]:
            yield Group(tuple(mine))
        return
    for task in part.tasks:
        if task in between:
            yield replace(between[task], title=f"{part.where}: {task}, the same test items")


@dataclass(frozen=True)
class Reported:
    """One table or figure of a paper.

    Attributes:
        where: "Table 2". paper: which paper. tasks: those of ours that stand for it.
        says: what the paper says of the whole of it. grid: its figures beside ours.
        stages: the same by stage, where a model was trained in stages.
        caveats: what a reader must know before setting the one beside the other.
        figure: whether the paper shows curves there, so that ours belong beside it.
    """

    where: str
    paper: str
    tasks: tuple[str, ...]
    says: tuple[str, ...]
    grid: Table
    stages: Table
    caveats: tuple[str, ...]
    figure: bool


STAGE_FIELDS = (*GROUP, "encoding", "label", "row", "seed", "stage", "stage_length", "batch", "steps", "items",
                "metric", "title", "value")  # fmt: skip


def stage_frame(records: Iterable[Record], manifest: Mapping[str, Any]) -> pd.DataFrame:
    """One row a score after each stage of a training in stages (on validation)."""
    by_id, named = variants(manifest["cells"]), labels(manifest["cells"])
    rows_of = {cell["id"]: cell.get("label") or cell["config"]["encoding"]["name"] for cell in manifest["cells"]}
    rows = []
    for record in records:
        titles = {metric["name"]: metric["title"] for metric in record.get("metrics") or []}
        place = {**coordinates(record["config"]), "variant": by_id.get(record["id"], "")}
        for stage in record.get("stages") or []:
            for metric, value in stage["scores"].items():
                rows.append(
                    {
                        **place,
                        "label": named.get(record["id"]),
                        "row": rows_of.get(record["id"]),
                        "stage_length": stage["length"],
                        **{key: stage[key] for key in ("stage", "batch", "steps", "items")},
                        "metric": metric,
                        "title": titles.get(metric, metric),
                        "value": value,
                    }
                )
    return pd.DataFrame(rows, columns=list(STAGE_FIELDS))


def reported_parts(
    manifest: Mapping[str, Any], frame: pd.DataFrame, stages: pd.DataFrame, data: Mapping[Any, str]
) -> list[Reported]:
    """For each table and figure that the tasks' cards tell of, in the order in which they stand there.

    Args:
        frame: the scores, a row each. data: by (task, scale) what they are of, generated or not.
    """
    found: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    caveats: dict[tuple[str, str], list[str]] = {}
    for task, told in (manifest.get("tasks") or {}).items():
        card = told.get("card") or {}
        for one in card.get("reported") or []:
            key = (str(card.get("paper") or ""), str(one["where"]))
            found.setdefault(key, []).append((task, one))
            caveats.setdefault(key, []).extend(card.get("caveats") or [])
    result = []
    for (paper, where), reported in sorted(found.items(), key=lambda item: _order(item[0][1])):
        plain = [(task, one) for task, one in reported if one.get("row") and not one.get("stage")]
        in_stages = [(task, one) for task, one in reported if one.get("stage")]
        result.append(
            Reported(
                where=where,
                paper=paper,
                tasks=tuple(dict.fromkeys(task for task, _ in reported)),
                says=tuple(str(one["says"]) for _, one in reported if not one.get("row")),
                grid=_grid(plain, manifest, frame, data),
                stages=_stages(in_stages, stages, data),
                caveats=tuple(dict.fromkeys(caveats[paper, where])),
                figure=where.lower().startswith("fig"),
            )
        )
    return result


def _order(where: str) -> tuple[bool, str]:
    """Tables before figures, each by number."""
    return where.lower().startswith("fig"), where


def _cells(manifest: Mapping[str, Any], task: str, row: str) -> set[str]:
    """The ids of the cells that stand for a row of the paper: those to which the suite gave its name."""
    return {
        str(cell["id"])
        for cell in manifest["cells"]
        if cell["config"]["task"] == task and row and row in (cell.get("label"), cell["config"]["encoding"]["name"])
    }


Told = list[tuple[str, Mapping[str, Any]]]
"""What a paper reported, each under the task of ours that stands for it."""


def _grid(reported: Told, manifest: Mapping[str, Any], frame: pd.DataFrame, data: Mapping[Any, str]) -> Table:
    rows = []
    for task, one in reported:
        mine = frame[
            (frame["task"] == task)
            & frame["id"].isin(_cells(manifest, task, one["row"]))
            & (frame["metric"] == one["metric"])
            & (frame["split"] == (one.get("split") or "test"))
            & (frame["evaluated"] == frame["length"])
        ]
        if one.get("length") and (mine["length"] == one["length"]).any():
            mine = mine[mine["length"] == one["length"]]
        titles = frame.loc[(frame["task"] == task) & (frame["metric"] == one["metric"]), "title"]
        metric = str(titles.iloc[0]) if len(titles) else str(one["metric"])
        head = (str(one["row"]), _task(task, one), metric, _said(one))
        ours = [
            _ours(dict(zip(GROUP, place, strict=True)), group, data, one)
            for place, group in mine.groupby(GROUP, dropna=False, sort=False)
        ]
        rows += [(*head, *texts) for texts in ours] or [(*head, NOT_RUN, "", "", "")]
    return Table(("model", "task", "metric", "the paper", "ours", "seeds", "ours trained at", "our data"), tuple(rows))


def _task(task: str, one: Mapping[str, Any]) -> str:
    parts = [task, "" if one.get("split") in (None, "", "test") else str(one["split"])]
    parts.append(f"length {one['length']:,}" if one.get("length") else "")
    return ", ".join(part for part in parts if part)


def _said(one: Mapping[str, Any]) -> str:
    if one.get("value") is None:
        return str(one.get("says") or "a curve, no figure")
    return f"{one['value']:g}" + (f" ({one['says']})" if one.get("says") else "")


def _ours(
    place: dict[str, Any], group: pd.DataFrame, data: Mapping[Any, str], one: Mapping[str, Any]
) -> tuple[str, str, str, str]:
    values = [value for value in group["value"] if is_number(value)]
    found = interval(values)
    decimals = words.decimals_for([*values, one.get("value")])
    score = words.with_half_width(found.mean, found.half, decimals) if values else words.listed(group["why"].dropna())
    if values and abs(found.mean) < 1e-3:  # an error of rounding, say
        score = f"{found.mean:.2g}"
    where = group_title({**place, "task": ""}, task=False).replace("trained at length ", "")
    return score or NOT_RUN, str(len(values)), where, data.get((place["task"], place["scale"]), "")


def _stages(reported: Told, stages: pd.DataFrame, data: Mapping[Any, str]) -> Table:
    """A row for each stage and model: ours, and the paper's beside it."""
    tasks = list(dict.fromkeys(task for task, _ in reported))
    told = {(one["row"], one["stage"], one["metric"]): one for _, one in reported}
    metrics = list(dict.fromkeys(one["metric"] for _, one in reported))
    mine = stages[stages["task"].isin(tasks)]
    titles = {row.metric: row.title for row in mine.itertuples()}
    head = ["stage", "model", "length", "batch", "steps", "seeds"]
    for metric in metrics:
        head += [f"{titles.get(metric, metric)}: ours", "the paper's"]
    head.append("our data")
    rows, shown = [], set()
    for (stage, row, label), group in mine.groupby(["stage", "row", "label"], sort=False):
        texts = [str(stage), str(label), f"{group['stage_length'].iloc[0]:,}", f"{group['batch'].iloc[0]:,}"]
        texts += [f"{group['steps'].iloc[0]:,}", str(group["seed"].nunique())]
        for metric in metrics:
            found = interval([v for v in group.loc[group["metric"] == metric, "value"] if is_number(v)])
            texts.append(words.with_half_width(found.mean, found.half, words.decimals_for([found.mean])))
            one = told.get((row, stage, metric))
            texts.append(_said(one) if one else "\u2013")
            shown.add((row, stage, metric))
        texts.append(data.get((group["task"].iloc[0], group["scale"].iloc[0]), ""))
        rows.append((stage, tuple(texts)))
    for row, stage in dict.fromkeys(key[:2] for key in told if key not in shown):
        given = {metric: _said(told[row, stage, metric]) for metric in metrics if (row, stage, metric) in told}
        cells = [text for metric in metrics for text in (NOT_RUN, given.get(metric, "\u2013"))]
        rows.append((stage, (str(stage), str(row), "", "", "", "0", *cells, "")))
    return (
        Table(tuple(head), tuple(texts for _, texts in sorted(rows, key=lambda pair: pair[0]))) if rows else Table(())
    )


def theory_grid(scores: pd.DataFrame, records: Iterable[Record]) -> Table:
    """What was measured of the encodings themselves, nothing trained: encodings down, properties across.

    Args:
        scores: the rows of scores_frame whose split is "theory". records: which say whether a claim holds.
    """
    holds = {
        (record["id"], metric): held
        for record in records
        for score in (record.get("scores") or [])[:1]
        for metric, held in ((score.get("details") or {}).get("holds") or {}).items()
    }
    titles = {row.metric: str(row.title) for row in scores.itertuples()}
    rows = []
    for label, group in scores.groupby("label", sort=False):
        texts = []
        for metric in titles:
            mine = group[group["metric"] == metric]
            values = [value for value in mine["value"] if is_number(value)]
            why = words.listed(mine["why"].dropna())
            claims = {holds[one, metric] for one in mine["id"] if (one, metric) in holds}
            verdict = f" ({'holds' if all(claims) else 'not so'})" if claims else ""
            texts.append(f"{max(values, key=abs):.3g}{verdict}" if values else why or "\u2013")
        rows.append((str(label), *texts))
    return Table(("encoding", *titles.values()), tuple(rows))
