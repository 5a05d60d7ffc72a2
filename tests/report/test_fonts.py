"""Labels in any script: drawn in a font that is installed, or the font to install is named; nothing on stderr."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from made import cell, make_store, pages, record, visible
from matplotlib import font_manager

from posenc.cli import main
from posenc.records.store import Store
from posenc.report.figures import fonts
from posenc.report.figures.labels import width_of

NAME, SYMBOL = "\u4f4d\u7f6e", "\u1208"  # "position" in Chinese; a syllable of Ethiopic


def write_font(path: Path, family: str, letters: str, *, wide: int) -> None:
    """A font whose letters are boxes, `wide` thousandths of an em wide."""
    pen = TTGlyphPen(None)
    for index, corner in enumerate(((0, 0), (0, 700), (wide - 50, 700), (wide - 50, 0))):
        (pen.lineTo if index else pen.moveTo)(corner)
    pen.closePath()
    names = [".notdef", *(f"g{ord(letter):x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): f"g{ord(letter):x}" for letter in letters})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (wide, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine with matplotlib's own fonts alone; what is put into the list is found on it."""
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    assert own
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    found: list[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: list(found))
    fonts.forget()
    yield found
    fonts.forget()


def store_of(folder: Path, label: str) -> Store:
    cells = [{**cell(name, seed), "label": label if name == "rope" else ""} for name in ("sinusoidal", "rope")
             for seed in (0, 1)]  # fmt: skip
    records = [record(of, 3.0 + of["config"]["seed"], 4.0) for of in cells]
    return make_store(folder, cells, records, title=label)


@pytest.mark.filterwarnings("error")
def test_an_installed_font_is_taken(tmp_path: Path, only_ours: list[str]) -> None:
    write_font(tmp_path / "han.ttf", "Own Han Sans", NAME, wide=2000)
    only_ours.append(str(tmp_path / "han.ttf"))
    assert fonts.family(NAME) == ["DejaVu Sans", "Own Han Sans"]
    assert fonts.family("rope") == ["DejaVu Sans"]
    assert fonts.undrawn(NAME) == []
    # Both letters are two ems wide, in the font that draws them.
    assert width_of(NAME) * 72 == pytest.approx(2 * 2 * 8.5, rel=0.05)
    store = store_of(tmp_path, NAME)
    html, _ = pages(store)
    assert "What could not be read or drawn" not in html
    svg = next((store.folder / "report" / "figures").glob("curve-*.svg")).read_text()
    fallback = re.findall(r"<text[^>]*>[^<]*" + NAME, svg)
    assert fallback
    assert all("'DejaVu Sans', 'Own Han Sans'" in text for text in fallback)
    assert "Own Han Sans" not in re.sub(r"<text[^>]*>[^<]*" + NAME, "", svg)


def test_else_the_font_to_install_is_named(
    tmp_path: Path, only_ours: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, NAME + SYMBOL)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        html, page = pages(store)
    assert [str(one.message) for one in warned] == []
    assert "Glyph" not in capfd.readouterr().err
    for text in (visible(html), page):
        unread = text[text.index("What could not be read or drawn") :]
        assert f"no font here has {NAME}: install Noto Sans CJK (Debian: fonts-noto-cjk)" in unread
        assert f"no font here has {SYMBOL}: install Noto Sans Ethiopic" in unread
    assert NAME in html[html.index("<svg") :]  # a browser has fonts of its own
    told = CliRunner().invoke(main, ["report", str(store.folder)])
    assert told.exit_code == 0
    assert told.stdout.strip().endswith("index.html")
    assert f"not in the report: figures: no font here has {NAME}: install Noto Sans CJK" in told.stderr


def test_a_font_installed_later_makes_the_report_again(tmp_path: Path, only_ours: list[str]) -> None:
    store = store_of(tmp_path, NAME)
    assert "Noto Sans CJK" in pages(store)[1]
    write_font(tmp_path / "han.ttf", "Own Han Sans", NAME, wide=1000)
    only_ours.append(str(tmp_path / "han.ttf"))
    fonts.forget()
    assert "Noto Sans CJK" not in pages(store)[1]


def test_names_of_scripts() -> None:
    assert fonts.advice(["\U0001f600"])[0].startswith("figures: no font here has \U0001f600: install Noto Sans Symbols")
    assert "Noto Sans Devanagari" in fonts.advice(["\u0915"])[0]
    assert "Noto Sans CJK" in fonts.advice(["\u3042"])[0]
    assert len(fonts.advice(list(NAME))) == 1
    assert fonts.lacking("rope \n\t\u03b1\u200b") == frozenset()
