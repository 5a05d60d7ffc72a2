"""A suite's records to its report: one HTML file, one Markdown file with figures, and tables as CSV and LaTeX."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from posenc.errors import StoreError
from posenc.report import (
    answer,
    facts,
    figures,
    forests,
    items,
    models,
    paper,
    speed,
    style,
    tables,
    tuning,
    view,
    walltime,
    words,
)
from posenc.report.canvas import Picture
from posenc.report.pages import html_page, latex, markdown_page
from posenc.report.places import key_of, slugs
from posenc.report.view import Grid
from posenc.store import Store, write_atomically

_OWN = ("answer", "curve-", "decay-", "forest-", "length-", "speed-")
"""How the names of a report's figures begin."""


def write_report(store: Store, output: Path) -> Path:
    """Write the report of a suite from its records alone, and return the HTML file's path.

    Every file is made before the first is written, each is written whole, and the HTML file last.

    Raises:
        StoreError: the records are missing or damaged, or the folder cannot be written.
    """
    output = Path(output)
    files = _files(store, output)
    try:
        for name, text in files.items():
            write_atomically(output / name, text)
        for path in (output / "figures").glob("*"):
            # A figure of an earlier run of the suite; beside this report it would only mislead.
            if path.name.startswith(_OWN) and f"figures/{path.name}" not in files:
                path.unlink()
    except OSError as error:
        raise StoreError(f"cannot write the report to {output}: {error}") from None
    return output / "index.html"


@dataclass(frozen=True)
class Found:
    """All that a report is made from, as tables; theory apart, since nothing is trained there."""

    manifest: dict[str, Any]
    records: list[dict[str, Any]]
    frame: pd.DataFrame
    summary: pd.DataFrame
    theory: pd.DataFrame
    cost: pd.DataFrame
    items: pd.DataFrame
    curves: pd.DataFrame
    times: pd.DataFrame
    stages: pd.DataFrame
    between: dict[str, Grid]
    references: pd.DataFrame
    differences: pd.DataFrame
    tried: pd.DataFrame
    bench: pd.DataFrame


def read(store: Store) -> Found:
    """A suite's records as tables."""
    manifest, records, tried = tuning.choose(store.read_manifest(), store.records())
    frame = tables.scores_frame(records, manifest)
    summary = tables.summary(frame, manifest)
    cells = [{"id": cell["id"], "config": cell["config"]} for cell in manifest["cells"]]
    baseline = manifest["suite"].get("baseline") or ""
    curves = _curves(store, manifest, records)
    trained = frame[frame["split"] != "theory"]
    return Found(
        manifest=manifest,
        records=records,
        frame=frame,
        summary=summary[summary["split"] != "theory"],
        theory=frame[frame["split"] == "theory"],
        cost=tables.cost_table(trained),
        items=items.item_table(store, records, manifest),
        curves=curves,
        times=walltime.equal_time(curves, baseline),
        stages=paper.stage_frame(records, manifest),
        between=models.between_models(store, records, manifest),
        references=tables.references(records, manifest),
        differences=tables.configuration_differences(cells, baseline),
        tried=tried,
        bench=speed.read(store.folder.parent / "bench.json"),
    )


def _files(store: Store, output: Path) -> dict[str, str]:
    """Every file of the report by its path, the HTML file last."""
    found = read(store)
    pictures = _pictures(found)
    result = {}
    for picture in pictures:
        result[f"figures/{picture.name}.svg"] = picture.svg
        result[f"figures/{picture.name}.csv"] = _csv(picture.data)
    csv = {"scores": found.frame, "summary": found.summary, "cost": found.cost, "configuration": found.differences}
    more = {"tuning": found.tried, "items": found.items, "time": found.times, "stages": found.stages,
            "speed": found.bench}  # fmt: skip
    for name, table in (csv | {name: table for name, table in more.items() if len(table)}).items():
        result[f"tables/{name}.csv"] = _csv(table)
    model = _model(found, pictures, _folder_of_cells(store, output))
    result["tables/summary.tex"] = "\n".join(latex(table) for table in model["results"])
    result["report.md"] = markdown_page(model)
    result["index.html"] = html_page(model)
    return result


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False, lineterminator="\n"))


def _folder_of_cells(store: Store, output: Path) -> str:
    """The way from the report to the records, where the report lies among them; else no links can be trusted."""
    folder = output.absolute()
    return os.path.relpath(store.folder / "cells", folder) if folder.is_relative_to(store.folder) else ""


def _pictures(found: Found) -> list[Picture]:
    names = [cell["config"]["encoding"]["name"] for cell in found.manifest["cells"]]
    styles = style.looks([*names, *found.bench["encoding"]])
    pictures = forests.overview(answer.chosen_rows(found.summary), styles)
    pictures += forests.differences(found.summary, found.items, styles)
    pictures += figures.learning_curves(found.curves, styles)
    pictures += figures.score_by_length(found.summary, found.references, styles)
    pictures += figures.decay_by_distance(paper.decays(found.records, found.manifest), styles)
    pictures += speed.pictures(found.bench, styles)
    taken: dict[str, int] = {}
    unique = []
    for picture in pictures:  # two names may become one when what no file name can hold is left out
        taken[picture.name] = number = taken.get(picture.name, 0) + 1
        unique.append(picture if number == 1 else replace(picture, name=f"{picture.name}-{number}"))
    return unique


def _curves(store: Store, manifest: dict[str, Any], records: list[dict[str, Any]]) -> pd.DataFrame:
    """The validation rows of the cells that finished, in their task's metric at the trained length."""
    by_id, named = tables.variants(manifest["cells"]), tables.labels(manifest["cells"])
    rows = []
    for record in records:
        metric = _curve_metric(record)
        if record["status"] != "done":
            continue
        try:
            curve = store.curve(record["id"])
        except ValueError as error:
            raise StoreError(f"curve.jsonl of cell {record['name']} is damaged ({error}): run the cell again") from None
        place = {**tables.coordinates(record["config"]), "variant": by_id.get(record["id"], "")}
        place |= {"label": named[record["id"]], "id": record["id"]}
        rows += [
            {**place, "tokens": row["tokens"], "seconds": row.get("seconds"), "value": float(row["value"]), **metric}
            for row in curve
            if row.get("split") == "validation"
            and row.get("metric") == metric.get("name")
            and row.get("length") in (None, place["length"])
            and words.is_number(row.get("value"))
            and words.is_number(row.get("tokens"))
        ]
    columns = (*tables.GROUP, "encoding", "label", "id", "seed", "tokens", "seconds", "value", "title", "better")
    return pd.DataFrame(rows, columns=list(columns))


def _curve_metric(record: dict[str, Any]) -> dict[str, Any]:
    """The metric by which validation chose the cell's model."""
    metrics = {metric["name"]: metric for metric in record.get("metrics") or []}
    return metrics.get(record.get("choice"), record.get("metric") or {})


def _model(found: Found, pictures: list[Picture], cells_folder: str) -> dict[str, Any]:
    """All that the templates show."""
    manifest, records = found.manifest, found.records
    suite = {
        key: str(manifest["suite"].get(key) or "") for key in ("name", "title", "description", "baseline", "scale")
    }
    data = facts.datasets(manifest, records)
    labels = facts.data_labels(data)
    ended = {record["id"]: record for record in records}
    by_id = tables.variants(manifest["cells"])
    places = [
        {**tables.coordinates(cell["config"]), "variant": by_id[cell["id"]], "cell": cell} for cell in manifest["cells"]
    ]
    known = slugs(places)
    papers = paper.sections(manifest, found.frame, found.stages, labels)
    return {
        "suite": suite,
        "answer": answer.answer(found.summary, found.items, found.cost, data, manifest["suite"], manifest["cells"]),
        "compared": facts.compared(manifest),
        "counts": facts.counts(manifest, records),
        "data": data,
        "data_said": [f"{text} for {task} (scale {scale})" for (task, scale), text in labels.items()],
        "results": view.result_tables(found.summary, found.references, labels),
        "pictures": pictures,
        "shown_apart": ("curve", "length") if papers else ("curve", "length", "decay"),
        "forests_of": lambda table: _forests_of(table, pictures),
        "slug_of": lambda place: known.get(key_of(place), ""),
        "finished": any(record["status"] == "done" for record in records),
        "time": view.time_grids(found.times, suite["baseline"]),
        "tuning": view.tuning_grids(found.tried),
        "paper": papers,
        "theory": paper.theory_grid(found.theory, records),
        "between": found.between,
        "cost": view.cost_grids(found.cost),
        "speed": speed.grids(found.bench),
        "differences": view.different_configurations(found.differences),
        "endings": facts.endings(records),
        "unscored": view.unscored(found.summary),
        "waiting": [cell["name"] for cell in manifest["cells"] if cell["id"] not in ended],
        "records": facts.record_lists(places, known, ended),
        "cells_folder": cells_folder,
        "provenance": facts.provenance(manifest, records),
    }


def _forests_of(table: view.ResultTable, pictures: list[Picture]) -> list[Picture]:
    """The figure of the differences that a table tells of."""
    return [
        one
        for one in pictures
        if table.main
        and one.kind == "forest"
        and key_of(one.place) == key_of(table.place)
        and str(one.place["split"]) == table.split
    ]
