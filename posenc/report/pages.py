"""The report's two pages, HTML and Markdown, from one model; and the tables as LaTeX."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from posenc.paths import content
from posenc.report import style, view, words
from posenc.report.canvas import Picture

_THEME = {style.INK: "--ink", style.MUTED: "--muted", style.GRID: "--line", style.PAPER: "--paper"} | {
    light: f"--hue-{index}" for index, (light, _) in enumerate(style.PALETTE)
}


def html_page(model: dict[str, Any]) -> str:
    """The page: one file, which asks nobody for anything and runs nothing but the script that sorts its tables."""
    folder = content("reports")
    environment = _environment(folder / "templates", autoescape=True)
    sheet, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    # A policy by the script's hash: whatever finds its way into a name, no other script can run.
    allowed = base64.b64encode(sha256(script.encode()).digest()).decode()
    return (
        environment.get_template("report.html.j2").render(
            **model,
            svg_of=inlined,
            style=Markup(sheet),
            script=Markup(script),
            script_hash=allowed,
            palette=style.PALETTE,
            number=words.is_number,
            wordy=words.is_wordy,
        )
        + "\n"
    )


def markdown_page(model: dict[str, Any]) -> str:
    """The same in Markdown, its figures beside it."""
    environment = _environment(content("reports") / "templates", finalize=words.markdown)
    page = environment.get_template("report.md.j2").render(
        **model,
        table_of=_markdown_results,
        grid_of=lambda grid: markdown_table(grid.head, grid.rows),
        image_of=lambda picture: words.Markdown(f"![{words.markdown(picture.alt)}](figures/{picture.name}.svg)"),
        csv_of=lambda picture: words.Markdown(f"[CSV](figures/{picture.name}.csv)"),
    )
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> words.Markdown:
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
    return markdown_table([*head, "seeds"], rows)


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


def inlined(picture: Picture, prefix: str = "") -> Markup:
    """A figure's SVG for an HTML page: no prologue, ids of its own, the page's colours and letters.

    Args:
        prefix: of its ids, where a figure stands on the page a second time.
    """
    name = f"{prefix}{picture.name}"
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{escape(name)}--\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{escape(name)}--", svg)
    svg = re.sub(r"(font:[^;\"]*?px)[^;\"]*", r"\1 var(--sans)", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(picture.alt)}"', 1))


def latex(table: view.ResultTable) -> str:
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
