"""`posenc ui` in a real browser: the page that it names has a bar for every encoding, in the report's colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import WHY_NOT, Browser, browser
from made import cell, make_store, pages, record
from runs import start, stop, wait_until

from posenc.api.looks import colours
from posenc.tracking.mirror import sync
from posenc.tracking.place import default_uri

pytest.importorskip("mlflow")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

FEW = ["sinusoidal", "rope", "mine"]
MANY = [*FEW, "none", "learned", "t5", "shaw", "alibi", "kerple", "fire", "cope", "nezha"]  # more than ten
CHARTS = """
[...document.querySelectorAll(".js-plotly-plot")].filter(chart => chart.querySelector(".barlayer .point path")).map(
  chart => [...chart.querySelectorAll(".barlayer .point path")].map(bar => bar.style.fill))
"""


def make_suite(folder: Path, name: str, encodings: list[str], day: int) -> None:
    cells = [cell(encoding, seed) for seed in range(2) for encoding in encodings]
    records = []
    for index, of in enumerate(cells):
        times = {"started": f"2026-11-{day}T09:{index:02}:00+00:00", "ended": f"2026-11-{day}T09:{index:02}:50+00:00"}
        records.append(record(of, 3.0 + index / 10, 4.0, times=times))
    store = make_store(folder, cells, records, name=name)
    pages(store)
    sync(store, default_uri(folder))
    store.folder.rename(folder / name)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The lines of `posenc ui` on a folder with two suites, by the suite's name."""
    folder = tmp_path_factory.mktemp("ui")
    make_suite(folder / "results", "few", FEW, day=23)
    make_suite(folder / "results", "many", MANY, day=22)
    process = start(folder, "ui", "--port", "0", "--no-open")
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if " shows " in line)
        yield dict(process.stdout.readline().rstrip("\n").split(": ", 1) for _ in range(2))
    finally:
        stop(process)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        opened.look(width=1400, height=1000)
        yield opened


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[start : start + 2], 16)) for start in (1, 3, 5))})"


@pytest.mark.parametrize(("suite", "encodings"), [("few", FEW), ("many", MANY)])
def test_the_first_page_has_a_bar_for_every_encoding(
    named: dict[str, str], page: Browser, suite: str, encodings: list[str], tmp_path: Path
) -> None:
    assert list(named) == ["few", "many"], "the one that ran last comes first"
    page.open(named[suite])
    charts: list[list[str]] = []

    def drawn() -> bool:
        charts[:] = page.run(CHARTS)
        return bool(charts)

    wait_until(drawn)
    wait_until(lambda: len(page.run(CHARTS)[0]) >= len(encodings))
    hues = [rgb(colour) for colour in colours(encodings).values()]
    shown: Any = page.run(CHARTS)[0]
    assert set(shown) == set(hues)
    assert len(shown) >= len(encodings)
    if suite == "many":  # the mean of each, in the suite's order from the top
        assert sorted(shown) == sorted(hues)
    names = page.run("document.body.innerText")
    assert all(f"summary {name}" in names or f"{name}/L64/s1" in names for name in encodings)
    page.picture(tmp_path / "page.png", whole=False)
