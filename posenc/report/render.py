"""A suite's records to its report: one HTML file, one Markdown file with figures, and tables as CSV and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from posenc.errors import StoreError
from posenc.paths import content
from posenc.report import facts, figures, style, tables, tuning, view, words
from posenc.report.figures import Picture
from posenc.store import Store, write_atomically

_THEME = {style.INK: "--ink", style.MUTED: "--muted", style.GRID: "--line", style.PAPER: "--paper"} | {
    light: f"--hue-{index}" for index, (light, _) in enumerate(style.PALETTE)
}


def write_report(store: Store, output: Path) -> Path:
    """Write the report of a suite from its records alone, and return the HTML file's path.

    Every file is made before the first is written, each is written whole, and the HTML file last.

    Raises:
        StoreError: the records are missing or damaged, or the folder cannot be written.
    """
    files = _files(store)
    output = Path(output)
    try:
        for name, text in files.items():
            write_atomically(output / name, text)
        for path in (output / "figures").glob("*.svg"):
            # A figure of an earlier run of the suite; beside this report it would only mislead.
            if path.name.startswith(("curve-", "length-")) and f"figures/{path.name}" not in files:
                path.unlink()
    except OSError as error:
        raise StoreError(f"cannot write the report to {output}: {error}") from None
    return output / "index.html"


def _files(store: Store) -> dict[str, str]:
    """Every file of the report by its path, the HTML file last."""
    manifest, records, tried = tuning.choose(store.read_manifest(), store.records())
    frame = tables.scores_frame(records, manifest)
    summary = tables.summary(frame, manifest)
    cost = tables.cost_table(frame)
    cells = [{"id": cell["id"], "config": cell["config"]} for cell in manifest["cells"]]
    differences = tables.configuration_differences(cells, manifest["suite"].get("baseline") or "")
    references = tables.references(records, manifest)
    pictures = _pictures(store, manifest, records, summary, references)
    model = _model(manifest, records, summary, references, cost, differences)
    model["tuning"] = view.tuning_grids(tried)
    result = {f"figures/{picture.name}.svg": picture.svg for picture in pictures}
    csv = {"scores": frame, "summary": summary, "cost": cost, "configuration": differences}
    for name, table in (csv | {"tuning": tried} if len(tried) else csv).items():
        result[f"tables/{name}.csv"] = table.to_csv(index=False, lineterminator="\n")
    result["tables/summary.tex"] = "\n".join(_latex(table) for table in model["results"])
    result["report.md"] = _markdown_page(model, pictures)
    result["index.html"] = _html_page(model, pictures)
    return result


def _pictures(
    store: Store, manifest: dict[str, Any], records: list[dict[str, Any]], summary: pd.DataFrame, refs: pd.DataFrame
) -> list[Picture]:
    styles = style.looks(cell["config"]["encoding"]["name"] for cell in manifest["cells"])
    pictures = figures.learning_curves(_curves(store, manifest, records), styles)
    pictures += figures.score_by_length(summary, refs, styles)
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
        place["label"] = named[record["id"]]
        rows += [
            {**place, "tokens": row["tokens"], "value": float(row["value"]), **metric}
            for row in curve
            if row.get("split") == "validation"
            and row.get("metric") == metric.get("name")
            and row.get("length") in (None, place["length"])
            and words.is_number(row.get("value"))
            and words.is_number(row.get("tokens"))
        ]
    return pd.DataFrame(
        rows, columns=[*tables.GROUP, "encoding", "label", "seed", "tokens", "value", "title", "better"]
    )


def _curve_metric(record: dict[str, Any]) -> dict[str, Any]:
    """The metric by which validation chose the cell's model."""
    metrics = {metric["name"]: metric for metric in record.get("metrics") or []}
    return metrics.get(record.get("choice"), record.get("metric") or {})


def _model(
    manifest: dict[str, Any],
    records: list[dict[str, Any]],
    summary: pd.DataFrame,
    references: pd.DataFrame,
    cost: pd.DataFrame,
    differences: pd.DataFrame,
) -> dict[str, Any]:
    """All that the templates show."""
    suite = manifest["suite"]
    data = facts.datasets(manifest, records)
    ended = {record["id"] for record in records}
    return {
        "suite": {key: str(suite.get(key) or "") for key in ("name", "title", "description", "baseline", "scale")},
        "compared": facts.compared(manifest),
        "counts": facts.counts(manifest, records),
        "data": data,
        "results": view.result_tables(summary, references, facts.data_labels(data)),
        "finished": any(record["status"] == "done" for record in records),
        "cost": view.cost_grids(cost),
        "differences": view.different_configurations(differences),
        "endings": facts.endings(records),
        "unscored": view.unscored(summary),
        "waiting": [cell["name"] for cell in manifest["cells"] if cell["id"] not in ended],
        "provenance": facts.provenance(manifest, records),
    }


def _html_page(model: dict[str, Any], pictures: list[Picture]) -> str:
    folder = content("reports")
    environment = _environment(folder / "templates", autoescape=True)
    sheet = (folder / "style.css").read_text(encoding="utf-8")
    shown = [(picture, inlined(picture)) for picture in pictures]
    page = environment.get_template("report.html.j2").render(
        **model, pictures=shown, group_title=view.group_title, style=Markup(sheet), palette=style.PALETTE
    )
    return page + "\n"


def _markdown_page(model: dict[str, Any], pictures: list[Picture]) -> str:
    environment = _environment(content("reports") / "templates", finalize=words.markdown)
    page = environment.get_template("report.md.j2").render(
        **model,
        pictures=pictures,
        group_title=view.group_title,
        table_of=_markdown_results,
        grid_of=lambda grid: _markdown_table(grid.head, grid.rows),
        image_of=lambda picture: words.Markdown(f"![{words.markdown(picture.alt)}](figures/{picture.name}.svg)"),
    )
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> words.Markdown:
    """A Markdown table: names to the left, numbers to the right."""
    lines = [list(map(words.markdown, head)), ["---"] + ["---:"] * (len(head) - 1)]
    lines += [list(map(words.markdown, row)) for row in rows]
    return words.Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _markdown_results(table: view.ResultTable) -> words.Markdown:
    head = ["encoding"]
    for length in table.lengths:
        head += [f"at {length:,}" + (" (trained)" if length == table.trained else ""), "difference"]
    rows: list[list[str]] = []
    for row in table.rows:
        texts = [row.label]
        for entry in row.entries:
            score = words.Markdown(f"**{words.markdown(entry.score)}**") if entry.best else entry.score
            texts += [score or entry.why, entry.difference]
        rows.append([*texts, row.seeds])
    rows += [[f"{name} (no model)", score] + [""] * (len(head) - 1) for name, score in table.references]
    return _markdown_table([*head, "seeds"], rows)


def _environment(
    templates: Path, *, autoescape: bool = False, finalize: Callable[[Any], Any] | None = None
) -> Environment:
    """Either way whatever a template prints is escaped, unless it says that it is markup already."""
    return Environment(
        loader=FileSystemLoader(templates),
        autoescape=autoescape,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def inlined(picture: Picture) -> Markup:
    """A figure's SVG for an HTML page: no prologue, ids of its own, the page's colours and letters."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{escape(picture.name)}--\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{escape(picture.name)}--", svg)
    svg = re.sub(r"(font:[^;\"]*?px)[^;\"]*", r"\1 var(--sans)", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(picture.alt)}"', 1))


def _latex(table: view.ResultTable) -> str:
    """One result table as a LaTeX tabular (booktabs)."""
    head = ["encoding", "seeds"]
    for length in table.lengths:
        head += [f"{length}: mean", f"{length}: difference"]
    rows = []
    for row in table.rows:
        texts = [row.label, row.seeds]
        for entry in row.entries:
            texts += [entry.score or entry.why, entry.difference]
        rows.append(texts)
    caption = f"{table.title}; {table.metric}; data: {table.data}"
    comment = "% " + " ".join(caption.split())
    text = str(pd.DataFrame(rows, columns=head).to_latex(index=False, escape=True))
    return comment + "\n" + text.replace("\u00b1", r"$\pm$").replace(words.MINUS, "$-$").replace("\u2013", "--")
