"""Both pages draw every kind of block, with the same words, and take nothing in them for markup."""

from __future__ import annotations

import re
import typing
from typing import Any

import pandas as pd
import pytest
from made import cell, make_store, pages, record, visible
from markdown_it import MarkdownIt

from posenc.api import blocks
from posenc.api.blocks import (
    Aside,
    Badge,
    Block,
    Card,
    Cell,
    Code,
    Column,
    Details,
    Facts,
    Figure,
    Group,
    Heading,
    Link,
    List,
    Note,
    Paragraph,
    Sources,
    Strong,
    Table,
)
from posenc.report.html import Html
from posenc.report.markdown import Markdown

EVIL = "<b>x</b>|`*_[y](z)$~#!&amp;\"'"
WORDS = (f"plain {EVIL} ", Link(f"link {EVIL}", "tables/scores.csv"), " ", Code(f"code {EVIL}"), " ",
         Strong(f"strong {EVIL}"), " ", Aside(f"aside {EVIL}"), " ", Badge(f"badge {EVIL}"))  # fmt: skip
SVG = '<svg width="1" height="1"><g id="a"/></svg>'


def figure(name: str = "mine") -> Figure:
    return Figure(name, f"figure {EVIL}", f"alt {EVIL}", SVG, pd.DataFrame({"x": [1]}), (f"note {EVIL}",), "records-a")


def table() -> Table:
    head = ("name", Column(f"at 64 {EVIL}", "(trained)", "difference"), "seeds")
    rows = (
        (f"row {EVIL}", Cell("3.0", "-0.1", strong=True, key=3.0), "5"),
        ("other", Cell(f"why {EVIL}", key=""), Cell("4", strong=True)),
        ("reference", Cell("4.7", "no model"), ""),
    )
    return Table(head, rows, ("baseline", "", "reference"), "a title that is heard", "results")


SAMPLES: list[Block] = [
    Heading(("heading ", Aside(f"(aside {EVIL})"))),
    Paragraph(WORDS),
    Paragraph(f"1. no list {EVIL}", "headline"),
    Paragraph("- no list", "claim"),
    Paragraph("+ no list", "warned"),
    Note(WORDS),
    List((f"item {EVIL}", WORDS, "2. no list in a list"), "notes"),
    Facts((("name", f"value {EVIL}"), ("other", WORDS))),
    Sources((Link("CSV", "figures/a.csv"), Link("records", "#records-a"))),
    table(),
    figure(),
    Card(f"card {EVIL}", (Paragraph("said"), Note(WORDS)), (f"badge {EVIL}", "two"), "finding", "better"),
    Card("data", (Paragraph("said"),), ("warned",)),
    Card("failed", (Paragraph(("last: ", Code("x")), "digest"),), look="ending"),
    Group((figure("a"), figure("b"))),
    Group((Card("one", ()), Card("two", ())), "findings"),
    Details(f"more {EVIL}", (Paragraph("inside"), List(("deep",))), "records-a"),
]


def file_of(one: Figure) -> str:
    return one.name


def words_of(rendered: str) -> list[str]:
    """The letters, figures and signs that a reader sees, without what sets them apart."""
    text = visible(re.sub(r"(?s)<svg.*?</svg>", "", rendered))
    return re.findall(r"\w+|[<>|`*\[\]$~#!&\"'=/-]+", text)


@pytest.mark.parametrize("block", SAMPLES, ids=lambda block: type(block).__name__)
def test_both_pages_say_the_same(block: Block) -> None:
    html = Html(file_of).blocks([block])
    page = Markdown(file_of, {"#records-a": "#more"}).blocks([block])
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    rendered = re.sub("<img[^>]*>", "", rendered)
    assert words_of(str(html)) == words_of(rendered)
    for text in (str(html), rendered):
        assert "<b>" not in text
        assert "<em>" not in text
    links = [re.findall('<a href="([^"#]+)', text) for text in (str(html), rendered)]
    assert links[0] == links[1]
    lists = [re.findall(r"<(?:ol|h1)", text) for text in (str(html), rendered)]
    assert lists == [[], []]


def test_every_kind_is_among_the_samples() -> None:
    assert {type(block) for block in SAMPLES} == set(typing.get_args(blocks.Block))
    assert {type(part) for part in WORDS} - {str} == set(typing.get_args(blocks.Inline))


def test_a_figure_that_stands_twice_has_ids_of_its_own() -> None:
    one = figure()
    html = str(Html(file_of).blocks([one, Group((one,))]))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert ids == ["figure-mine", "mine--a", "figure-2-mine", "2-mine--a"]


@pytest.mark.parametrize("to", ["javascript:alert(1)", " JavaScript:alert(1)", "data:text/html,x", "vbscript:x"])
def test_a_link_leads_to_a_file_an_anchor_or_the_web(to: str) -> None:
    for drawer in (Html(file_of), Markdown(file_of, {})):
        with pytest.raises(ValueError, match="a file beside the page"):
            drawer.blocks([Paragraph((Link("x", to),))])


@pytest.mark.parametrize("wrong", ["text", Paragraph((3,)), Paragraph(7), List((None,))])  # type: ignore[arg-type]
def test_what_is_no_block_is_refused(wrong: Any) -> None:
    for drawer in (Html(file_of), Markdown(file_of, {})):
        with pytest.raises(TypeError):
            drawer.blocks([wrong])


def test_nothing_in_a_block_acts_on_a_terminal() -> None:
    evil = "a\x1b[31m\u202e"
    said = [Paragraph((evil, Strong(evil))), Table((evil,), ((evil,),)), Card(evil, (Note(evil),), (evil,))]
    for drawer in (Html(file_of), Markdown(file_of, {})):
        drawn = str(drawer.blocks([*said, Details(evil, (List((evil,)), Facts(((evil, evil),))))]))
        assert not set(drawn) & set("\x1b\u202e")
        assert drawn.count("x1b") == 11


def test_every_link_in_markdown_leads_to_a_heading(tmp_path: Any) -> None:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
    _, page = pages(make_store(tmp_path, cells, [record(of, 3.0 + of["config"]["seed"], 4.0) for of in cells]))
    heads = re.findall(r"(?m)^#+ (.*)$", page)
    anchors = {re.sub(r"[^\w\- ]", "", head.replace("\\", "").lower()).replace(" ", "-") for head in heads}
    inside = set(re.findall(r"\]\(#([^)]+)\)", page))
    assert inside == {"enwik8-softmax-attention-trained-at-length-64-4-cells"}
    assert inside <= anchors
