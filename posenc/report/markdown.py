"""Blocks as Markdown: the same words as on the HTML page, in the same order. Whatever is drawn is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from posenc.api.blocks import (
    Aside,
    Badge,
    Block,
    Card,
    Code,
    Details,
    Facts,
    Figure,
    Group,
    Heading,
    Inline,
    Link,
    List,
    Note,
    Paragraph,
    Sources,
    Strong,
    Table,
    Words,
)
from posenc.report.links import checked
from posenc.report.words import markdown as escaped


def github_anchor(text: str) -> str:
    """What GitHub, and most that show Markdown, call a heading in an address."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: names to the left, numbers to the right."""
    return _table([escaped(text) for text in head], [[escaped(text) for text in row] for row in rows])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Markdown:
    """Draws blocks.

    Args:
        file_of: the name under which a figure's files lie. anchors: those of the HTML page to the headings here.
    """

    def __init__(self, file_of: Callable[[Figure], str], anchors: Mapping[str, str]) -> None:
        self._file_of, self._anchors = file_of, anchors

    def blocks(self, blocks: Iterable[Block]) -> str:
        """Blocks, a blank line between any two; "" for none."""
        text, before = "", None
        for block in blocks:
            if drawn := self._block(block):
                together = isinstance(before, Card) and isinstance(block, Card)  # items of one list
                text += ("\n" if together else "\n\n" if text else "") + drawn
                before = block
        return text

    def _block(self, block: Block) -> str:
        match block:
            case Heading():
                return f"{'#' * block.level} {self._words(block.text)}"
            case Paragraph() | Note():
                return _at_start(self._words(block.text))
            case List():
                return "\n".join(f"- {_at_start(self._words(item))}" for item in block.items)
            case Facts():
                return "\n".join(f"- {escaped(name)}: {self._words(value)}" for name, value in block.pairs)
            case Sources():
                return " \u00b7 ".join(self._part(link) for link in block.links)
            case Table():
                return self._rows(block)
            case Figure():
                return self._figure(block)
            case Card():
                return self._card(block)
            case Group():
                return self.blocks(block.blocks)
            case Details():
                return f"### {escaped(block.summary)}\n\n{self.blocks(block.blocks)}"
        raise TypeError(f"{type(block).__name__} is no block of a report")

    def _words(self, words: Words) -> str:
        return "".join(map(self._part, (words,) if isinstance(words, str) else words))

    def _part(self, part: str | Inline) -> str:
        match part:
            case Link():
                to = self._anchors.get(part.to, checked(part.to)).replace(" ", "%20").replace(")", "%29")
                return f"[{escaped(part.text)}]({to.replace('(', '%28')})"
            case Code() | Aside():
                return escaped(part.text)
            case Strong() | Badge():
                return f"**{escaped(part.text)}**"
            case str():
                return escaped(part)
        raise TypeError(f"{type(part).__name__} is no part of a text")

    def _rows(self, block: Table) -> str:
        head: list[str] = []
        for column in block.columns:
            head.append(escaped(f"{column.text} {column.aside}".strip()))
            head += [escaped(column.beside)] if column.beside else []
        rows = []
        for row in block.cells:
            line: list[str] = []
            for column, cell in zip(block.columns, row, strict=True):
                text = escaped(cell.text)
                line.append(f"**{text}**" if cell.strong else text)
                line += [escaped(cell.beside)] if column.beside else []
            rows.append(line)
        return _table(head, rows)

    def _figure(self, figure: Figure) -> str:
        name = self._file_of(figure)
        lines = [f"**{escaped(figure.title)}**", f"![{escaped(figure.alt)}](figures/{name}.svg)"]
        if figure.notes:
            lines.append(self._block(List(figure.notes)))
        lines.append(self._block(sources_of(figure, name)))
        return "\n\n".join(lines)

    def _card(self, card: Card) -> str:
        title = "".join(escaped(getattr(part, "text", part)) for part in _parts(card.title))
        badges = ", ".join(map(escaped, card.badges))
        head = f"**{title}: {badges}.**" if card.look == "finding" else f"**{title}**"
        head += f" (**{badges}**)" if badges and card.look != "finding" else ""
        said = [_sentence(text) for text in (self._words(block.text) for block in card.blocks) if text]
        return " ".join([f"- {head}", *said])


def _parts(words: Words) -> Sequence[Any]:
    return (words,) if isinstance(words, str) else words


def sources_of(figure: Figure, name: str) -> Sources:
    """Links to what a figure shows, and to the records behind it."""
    more = [Link("records", f"#{figure.records}")] if figure.records else []
    return Sources((Link("CSV", f"figures/{name}.csv"), Link("SVG", f"figures/{name}.svg"), *more))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


def _at_start(text: str) -> str:
    """Text that begins a line, and is neither a list nor a heading."""
    return re.sub(r"^(\d+)([.)])", r"\1\\\2", re.sub(r"^([-+=])", r"\\\1", text))
