"""Blocks as HTML, by the templates in `reports/templates/`. Whatever they print is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from posenc.api.blocks import Aside, Badge, Block, Code, Figure, Inline, Link, Strong, Table, Words
from posenc.common.colours import PALETTE
from posenc.common.paths import content
from posenc.common.text import harmless
from posenc.records.record import is_number
from posenc.report import words
from posenc.report.figures import style
from posenc.report.links import checked
from posenc.report.markdown import sources_of

_THEME = {style.INK: "--ink", style.MUTED: "--muted", style.GRID: "--line", style.PAPER: "--paper"} | {
    light: f"--hue-{index}" for index, (light, _) in enumerate(PALETTE)
}
_PARTS = {
    Link: '<a href="{to}">{text}</a>', Code: "<code>{text}</code>", Strong: "<strong>{text}</strong>",
    Aside: "<small>{text}</small>", Badge: '<span class="badge">{text}</span>',
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A section as it stands on the page."""

    name: str
    title: str
    link: str
    body: Markup


def page(title: str, head: Markup, sections: Sequence[Drawn]) -> str:
    """The page: one file, which asks nobody for anything and runs nothing but the script that sorts its tables."""
    folder = content("reports")
    sheet, script = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", "sort.js"))
    # A policy by the script's hash: whatever finds its way into a name, no other script can run.
    allowed = base64.b64encode(sha256(script.encode()).digest()).decode()
    text = _environment().get_template("report.html.j2").render(
        title=title, head=head, sections=sections, style=Markup(sheet), script=Markup(script), script_hash=allowed,
        palette=PALETTE,
    )  # fmt: skip
    return text + "\n"


class Html:
    """Draws blocks.

    Args:
        file_of: the name under which a figure's files lie.
    """

    def __init__(self, file_of: Callable[[Figure], str]) -> None:
        self._file_of = file_of
        self._shown: dict[str, int] = {}

    def blocks(self, blocks: Iterable[Block]) -> Markup:
        """Blocks, one after the other."""
        template = _environment().get_template("blocks.html.j2")
        return Markup(
            template.render(
                blocks=tuple(blocks), kind_of=_kind, words=inline, wordy=words.is_wordy,
                texts_of=_texts, number=is_number, inlined=self._inlined, sources_of=self._sources,
            )
        )  # fmt: skip

    def _inlined(self, figure: Figure) -> dict[str, Any]:
        """A figure's id, its SVG and, if wider than others, how wide; where it stands again, with ids of its own."""
        name = self._file_of(figure)
        self._shown[name] = number = self._shown.get(name, 0) + 1
        own = name if number == 1 else f"{number}-{name}"
        found = re.search(r'<svg[^>]*? width="([\d.]+)pt"', figure.svg)
        inches = float(found[1]) / 72 if found else style.WIDTH
        wide = f"{inches:.2f}in" if inches > style.WIDTH + 0.01 else ""
        return {"id": f"figure-{own}", "svg": inlined(figure.svg, figure.alt, own), "wide": wide}

    def _sources(self, figure: Figure) -> Any:
        return sources_of(figure, self._file_of(figure))


def _kind(block: Any) -> str:
    if not isinstance(block, Block):
        raise TypeError(f"{type(block).__name__} is no block of a report")
    return type(block).__name__


def inline(words: Words) -> Markup:
    """Words with their marked parts."""
    return Markup("").join(map(_part, (words,) if isinstance(words, str) else words))


def _part(part: str | Inline) -> Markup:
    if isinstance(part, str):
        return escape(harmless(part))
    if type(part) not in _PARTS:
        raise TypeError(f"{type(part).__name__} is no part of a text")
    if isinstance(part, Link):
        checked(part.to)
    return Markup(_PARTS[type(part)]).format(**{key: harmless(value) for key, value in vars(part).items()})


def _texts(table: Table) -> tuple[bool, ...]:
    """Which columns hold words, mostly: those stand to the left, figures to the right."""
    return tuple(
        sum(words.is_wordy(row[index].text) for row in table.cells) * 2 > len(table.rows)
        for index in range(len(table.head))
    )


def inlined(svg: str, alt: str, name: str) -> Markup:
    """An SVG for an HTML page: no prologue, ids that begin with a name, the page's colours and letters.

    Raises:
        ValueError: the text holds no SVG.
    """
    if "<svg" not in svg:
        raise ValueError(f"figure {name}: its text holds no SVG")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)
    svg = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
    )
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{escape(name)}--\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{escape(name)}--", svg)
    svg = re.sub(r"(font:[^;\"]*?px)[^;\"]*", r"\1 var(--sans)", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: f"var({_THEME[found[0]]})" if found[0] in _THEME else found[0], svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))


@cache
def _environment() -> Environment:
    """Whatever a template prints is escaped, unless it says that it is markup already."""
    return Environment(
        loader=FileSystemLoader(content("reports") / "templates"),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, "__html__") or not isinstance(value, str) else harmless(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
