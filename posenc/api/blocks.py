"""What a section of the report is made of: text, tables, figures as data. Both pages draw all of it in the same way.

Words are plain text, or a tuple of text and marked parts: `("see ", Link("the scores", "tables/scores.csv"))`. Nothing
given here is taken for markup: pages escape it. Addresses are relative to the report's folder, or `#anchor`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Link:
    text: str
    to: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Strong:
    text: str


@dataclass(frozen=True)
class Aside:
    """Set small, beside what it follows."""

    text: str


@dataclass(frozen=True)
class Badge:
    """A word or two that must be seen."""

    text: str


Inline = Link | Code | Strong | Aside | Badge
Words = str | tuple[str | Inline, ...]


@dataclass(frozen=True)
class Heading:
    """Below the section's own title; `level` 3, or 4 under a heading of 3."""

    text: Words
    level: int = 3


@dataclass(frozen=True)
class Paragraph:
    """`look`: "", or what it is: "headline", "claim", "big" (a figure) or "digest"."""

    text: Words
    look: str = ""


@dataclass(frozen=True)
class Note:
    """What a reader must know of what stands beside it, set smaller."""

    text: Words


@dataclass(frozen=True)
class List:
    """`look`: "", "notes" (under a table), "cautions", or "records" (many short lines)."""

    items: tuple[Words, ...]
    look: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    pairs: tuple[tuple[str, Words], ...]


@dataclass(frozen=True)
class Sources:
    """Where the numbers of what stands above are: files, records."""

    links: tuple[Link, ...]


@dataclass(frozen=True)
class Column:
    """A table's column: its head, a word about it, and the head of what stands beside each figure, if anything does."""

    text: str
    aside: str = ""
    beside: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell. `key`: what its column sorts by, where the text's first number does not tell."""

    text: str
    beside: str = ""
    strong: bool = False
    key: Any = None


@dataclass(frozen=True)
class Table:
    """Rows under heads; the first column names them.

    Attributes:
        head: names, or Columns. rows: of texts or Cells, each as long as the head.
        kinds: for each row "", "baseline", or "reference" (which stays below when a reader sorts).
        title: what the table is of, for those who hear the page; a heading above it is a Heading of its own.
    """

    head: tuple[str | Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...] = ()
    kinds: tuple[str, ...] = ()
    title: str = ""
    look: str = "plain"

    @property
    def columns(self) -> tuple[Column, ...]:
        """The heads, each as a Column."""
        return tuple(one if isinstance(one, Column) else Column(one) for one in self.head)

    @property
    def cells(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows, each text as a Cell."""
        return tuple(tuple(one if isinstance(one, Cell) else Cell(one) for one in row) for row in self.rows)


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure with what it shows as a table. One object may stand at several places: its files are written once.

    Attributes:
        name: of its files, without ending: letters, digits and `._=-`.
        svg: an SVG's text. data: a pandas DataFrame of what is drawn, a row a point.
        records: the anchor of the records behind it, where it is of one group of cells.
    """

    name: str
    title: str
    alt: str
    svg: str
    data: Any
    notes: tuple[str, ...] = ()
    records: str = ""


@dataclass(frozen=True)
class Card:
    """A finding, a set of data, a kind of failure: framed, its text below a title and badges.

    Attributes:
        look: "finding", "data" or "ending". kind: of it, which colours it: "warned", "failed", "better", ...
    """

    title: Words
    blocks: tuple[Paragraph | Note, ...]
    badges: tuple[str, ...] = ()
    look: str = "data"
    kind: str = ""


@dataclass(frozen=True)
class Group:
    """Blocks that stand together: `look` "figures", "multiples" (smaller ones) and "findings" side by side as there is
    room, "beside" a pair.
    """

    blocks: tuple[Block, ...]
    look: str = "figures"


@dataclass(frozen=True)
class Details:
    """What is shown when a reader asks for it (in Markdown: below a heading)."""

    summary: str
    blocks: tuple[Block, ...]
    anchor: str = ""


Block = Heading | Paragraph | Note | List | Facts | Sources | Table | Figure | Card | Group | Details


def keyed(texts: tuple[str, ...], keys: tuple[Any, ...]) -> tuple[Cell, ...]:
    """A row whose columns sort by these keys."""
    return tuple(Cell(text, key=key) for text, key in zip(texts, keys, strict=True))


def titled(tables: Iterable[tuple[str, Table]]) -> tuple[Block, ...]:
    """Tables, each below its heading."""
    return tuple(block for title, table in tables for block in (Heading(title), replace(table, title=title)))
