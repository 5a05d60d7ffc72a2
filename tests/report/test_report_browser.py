"""The report in a real browser: it runs clean, asks nobody, fits a phone, sorts, and shows names as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import WHY_NOT, Browser, browser
from made import cell, make_store, measured, record

from posenc.report import write_report

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;`*_[x](y)"


OUTSIDE = """[...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll, svg") &&
    e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((e) => e.outerHTML)"""
"""What lies outside the page, and cannot be scrolled to."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with everything in it, and long names: encodings by score are rope, sinusoidal, EVIL, learned."""
    folder = tmp_path_factory.mktemp("results")
    scores = {"sinusoidal": 3.25, "learned": 10.5, EVIL: 3.5, "rope": 3.0}
    cells, records = [], []
    for name, value in scores.items():
        for seed in range(3):
            for attention in ("softmax", "performer"):
                of = cell(name, seed, attention=attention)
                cells.append(of)
                later = "not possible: it has 64 positions, and 256 were asked for" if name == "learned" else value + 1
                records.append(record(of, value + 0.01 * seed, later))
    failed = cell(EVIL, 9)
    records.append(record(failed, status="failed", reason=EVIL))
    store = make_store(folder, [*cells, failed], records, title=EVIL)
    card = {"paper": EVIL, "caveats": [EVIL], "reported": [
        {"where": where, "row": EVIL, "metric": "bits_per_character", "value": 1.0, "says": EVIL}
        for where in ("Table 2", "Figure 3, left")]}  # fmt: skip
    manifest = store.read_manifest()
    store.write_manifest({**manifest, "tasks": {"enwik8": {"title": EVIL, "card": card}}})
    rows = [measured(name, length, length * 1e-5, subject=EVIL) for name in ("none", EVIL) for length in (256, 512)]
    (folder / "bench.json").write_text(json.dumps(rows))
    return write_report(store, store.folder / "report").as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_it_fits_runs_clean_and_asks_nobody(page: Browser, report: str, width: int, dark: bool) -> None:
    page.requests.clear()
    page.errors.clear()
    page.look(width=width, dark=dark)
    page.open(report)
    assert page.errors == []
    assert [address for address in page.requests if not address.startswith("data:")] == [report]
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(OUTSIDE) == []
    background = page.run("getComputedStyle(document.documentElement).backgroundColor")
    assert background == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of many encodings and tasks: every figure of all at once, wider than a phone; one task has not run."""
    names = ("sinusoidal", "rope", "t5", "fox", "rope(base=500000)", "mine")
    cells, records = [], []
    for task in (f"a task with a long name {number}" for number in range(10)):
        for place, name in enumerate(names):
            for seed in range(2):
                of = cell(name, seed)
                of = {**of, "config": {**of["config"], "task": task}, "id": f"{len(cells):016x}"}
                cells.append(of)
                value = 3 + 0.1 * place + 0.01 * seed * (1 + place)
                records.append(record(of, value, flops_per_token=1e6 * (1 + place % 3)))
    store = make_store(tmp_path_factory.mktemp("wide"), cells, records[:-12])
    return write_report(store, store.folder / "report").as_uri()


def test_all_at_once_fits_stays_in_view_and_tells_its_values(page: Browser, wide: str) -> None:
    for width, dark in ((1280, False), (390, True), (320, False)):
        page.requests.clear()
        page.errors.clear()
        page.look(width=width, dark=dark)
        page.open(wide)
        assert page.errors == []
        assert [address for address in page.requests if not address.startswith("data:")] == [wide]
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run(OUTSIDE) == []
        page.run("document.querySelector('#results').scrollIntoView()")
        top = "document.querySelector({!r}).getBoundingClientRect()"
        shown = "getComputedStyle(document.querySelector('nav')).display"
        if width > 640:
            assert page.run(f"{top.format('nav')}.top") == 0
            under = page.run(f"{top.format('#results h2')}.top - {top.format('nav')}.bottom")
            assert under >= 0, "a heading that a link leads to is not hidden"
        else:
            assert 0 <= page.run(f"{top.format('.contents')}.top") < 20
            assert page.run(shown) == "none"
            page.run("document.querySelector('.contents').click()")
            assert page.run(shown) == "block"
            assert page.run(f"{top.format('nav')}.right") <= width
    told = page.run("[...document.querySelectorAll('#answer svg title')].map((one) => one.textContent)")
    assert "rope: mean rank 2.00 over 9 tasks" in told
    assert any(one.startswith("fox: +0.3150 ± ") and "2 seeds; 1 M FLOPs a token" in one for one in told)
    assert any(one.startswith("t5, a task with a long name 3: +0.210 ± ") and "standard dev" in one for one in told)
    waiting = "Nothing has run yet of: a task with a long name 9, softmax attention, trained at length 64."
    assert waiting in page.run("document.querySelector('#results').textContent")
    assert page.run("document.querySelectorAll('#results table').length") == 9


def test_names_are_text(page: Browser, report: str) -> None:
    page.look(width=1280)
    page.open(report)
    assert page.run("document.title") == EVIL
    assert page.run("document.querySelector('h1').textContent") == EVIL
    assert page.run("document.querySelectorAll('script').length") == 1
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.body.innerText").count(EVIL) > 10
    assert (
        page.run("[...document.querySelectorAll('svg text')].filter((t) => t.textContent.includes('<scr')).length") > 0
    )


def column(page: Browser, table: int = 0) -> list[str]:
    return list(
        page.run(
            f"""[...document.querySelectorAll("table.results")[{table}].tBodies[0].rows].map(
            (row) => row.cells[0].textContent)"""
        )
    )


def press(page: Browser, head: int) -> None:
    page.run(
        f"document.querySelectorAll('table.results')[0].tHead.rows[0].cells[{head}].querySelector('button').click()"
    )


def test_tables_sort(page: Browser, report: str) -> None:
    page.look(width=1280)
    page.open(report)
    page.errors.clear()
    before = column(page, 1)
    assert column(page) == ["sinusoidal", "learned", EVIL, "rope", "unigram"]
    press(page, 1)
    assert column(page) == ["rope", "sinusoidal", EVIL, "learned", "unigram"]  # as numbers: 10.5 comes after 3.5
    press(page, 1)
    assert column(page) == ["learned", EVIL, "sinusoidal", "rope", "unigram"]
    press(page, 2)
    assert column(page) == ["rope", "sinusoidal", EVIL, "learned", "unigram"]  # what has no score there comes last
    press(page, 2)
    assert column(page) == [EVIL, "sinusoidal", "rope", "learned", "unigram"]
    assert column(page, 1) == before  # another table stays as it was
    assert page.run("document.querySelectorAll('[aria-sort]').length") == 1
    assert page.errors == []


def test_every_link_of_the_page_leads_somewhere(page: Browser, report: str) -> None:
    page.open(report)
    targets = page.run("[...document.querySelectorAll('a')].map((a) => a.href)")
    assert len(targets) > 20
    for target in targets:
        address, _, anchor = target.partition("#")
        if anchor:
            assert page.run(f"document.getElementById(decodeURIComponent({anchor!r})) !== null"), target
        else:
            assert Path(address.removeprefix("file://")).is_file(), target


def test_another_script_cannot_run(page: Browser, report: str, tmp_path: Path) -> None:
    # The same page with a script written into it: the policy names the report's own alone.
    text = Path(report.removeprefix("file://")).read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    changed.write_text(text.replace("</main>", "<script>document.title = 'owned'</script></main>"), encoding="utf-8")
    page.open(changed.as_uri())
    assert page.run("document.title") == EVIL
    assert any("Content Security Policy" in error for error in page.errors)
    page.errors.clear()
