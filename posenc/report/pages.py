"""The report's two pages, HTML and Markdown, from sections; and the files that their figures and tables leave.

Each section is made, drawn on both pages and its files written out as text before the next: one of another package that
fails anywhere on that way costs itself alone, and is named among what could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, TypeVar

import pandas as pd

from posenc.api import sections
from posenc.api.blocks import Block, Details, Figure, Group, Note, Paragraph
from posenc.api.entry_points import Entry
from posenc.api.sections import ReportSection, Section
from posenc.common.errors import PosencError
from posenc.common.text import for_csv, harmless
from posenc.report import html
from posenc.report.figures import fonts
from posenc.report.html import Drawn, Html
from posenc.report.markdown import Markdown, github_anchor
from posenc.report.places import plain_name
from posenc.report.view import View
from posenc.report.words import last_line
from posenc.report.words import markdown as escaped

T = TypeVar("T")
LAST = "unread"
"""This section is made when all others have been: it names those that failed."""


@dataclass(frozen=True)
class _Page:
    """A section as it stands on both pages, and its files."""

    drawn: Drawn
    markdown: str
    files: Mapping[str, str]


class Report:
    """The pages of one view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._names: dict[Figure, str] = {}
        self._anchors: dict[str, str] = {}
        self._html = Html(self._file_of)
        self._markdown = Markdown(self._file_of, self._anchors)

    def files(self) -> dict[str, str]:
        """Every file of the report by its path, the HTML file last."""
        entries = sections.entries()
        self._view.unread += sections.taken()
        loaded = [
            (entry, part) for entry in entries.values() if (part := self._guarded(entry, sections.load, entry.name))
        ]
        loaded.sort(key=lambda pair: (pair[1].order, pair[1].name))
        made = {entry.name: self._guarded(entry, self._made, part) for entry, part in loaded if entry.name != LAST}
        pages = {name: self._guarded(entries[name], self._drawn, name, one) for name, one in made.items() if one}
        self._view.undrawn = fonts.undrawn("".join(map(_text_of, self._names)))
        self._view.unread += fonts.advice(self._view.undrawn)
        if last := self._made(sections.load(LAST)):
            pages[LAST] = self._drawn(LAST, last)
        shown = [page for entry, _ in loaded if (page := pages.get(entry.name))]
        title, head = self._head()
        result: dict[str, str] = {}
        for page in shown:
            result |= page.files
        body = "\n\n".join([f"# {escaped(title)}", self._markdown.blocks(head), *(page.markdown for page in shown)])
        result["report.md"] = re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"
        result["index.html"] = html.page(title, self._html.blocks(head), [page.drawn for page in shown])
        return result

    def _head(self) -> tuple[str, list[Block]]:
        suite, data = self._view.suite, self._view.captions
        said = "; ".join(f"{text} for {task} (scale {scale})" for (task, scale), text in data.items())
        lede: list[Block] = [Paragraph(suite["description"], "lede")] if suite["description"] else []
        return suite["title"] or suite["name"], [*lede, Note(f"Data: {said}. {self._view.counts}.")]

    def _guarded(self, entry: Entry, step: Callable[..., T], *given: Any) -> T | None:
        """A step of a section's way onto the pages; None where another package's code fails in it, which is named."""
        if entry.target == sections.BUILT_IN.get(entry.name):
            return step(*given)
        try:
            return step(*given)
        except Exception as error:  # it may fail in any way: it costs its own section
            cause = str(error) if isinstance(error, PosencError) else f"{type(error).__name__}: {last_line(error)}"
            self._view.unread.append(f"section {entry.name} of {entry.package} ({entry.target}): {cause}")
            return None

    def _made(self, part: ReportSection) -> Section | None:
        section = part.make(self._view)
        if section is None:
            return None
        if not isinstance(section, Section):
            raise TypeError(f"make() gave {type(section).__name__}: it must give a Section or None")
        found = {part.name: section.title}
        found |= {one.anchor: one.summary for one in _walk(section.blocks) if isinstance(one, Details) and one.anchor}
        self._anchors |= {f"#{anchor}": f"#{github_anchor(title)}" for anchor, title in found.items()}
        return section

    def _drawn(self, name: str, section: Section) -> _Page:
        drawn = Drawn(name, section.title, section.link or section.title, self._html.blocks(section.blocks))
        text = f"## {escaped(section.title)}\n\n{self._markdown.blocks(section.blocks)}"
        files = {}
        for file, content in section.files.items():
            own = plain_name([file])
            if not isinstance(content, str | pd.DataFrame):
                raise TypeError(f"tables/{own} is of {type(content).__name__}: a table or a text must be given")
            whole = isinstance(content, str)
            files[f"tables/{own}" if whole else f"tables/{own}.csv"] = content if whole else csv_of(content)
        for figure in (one for one in _walk(section.blocks) if isinstance(one, Figure)):
            own = self._file_of(figure)
            files |= {f"figures/{own}.svg": figure.svg, f"figures/{own}.csv": csv_of(figure.data)}
        return _Page(drawn, text, files)

    def _file_of(self, figure: Figure) -> str:
        """The name of a figure's files, its own: two may become one when what no file name can hold is left out."""
        if figure not in self._names:
            name, number = plain_name([figure.name]), 2
            while name in self._names.values():
                name, number = f"{plain_name([figure.name])}-{number}", number + 1
            self._names[figure] = name
        return self._names[figure]


def _walk(blocks: Iterable[Block]) -> Iterable[Block]:
    """Blocks, and those within them."""
    for block in blocks:
        yield block
        if isinstance(block, Group | Details):
            yield from _walk(block.blocks)


def _text_of(figure: Figure) -> str:
    """What can be read in a figure."""
    return unescape(re.sub(r"<[^>]*>", "", figure.svg))


def csv_of(table: pd.DataFrame) -> str:
    """A table as CSV in which no text is taken for a formula; numbers stay numbers."""
    shown = {}
    for name in table.columns:
        column = table[name]
        if not pd.api.types.is_numeric_dtype(column):
            texts = [for_csv(harmless(one)) if isinstance(one, str) else one for one in column]
            column = pd.Series(texts, table.index, object)
        shown[for_csv(str(name))] = column
    return str(pd.DataFrame(shown).to_csv(index=False, lineterminator="\n"))
