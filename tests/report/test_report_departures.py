"""The departures that tasks' cards state stand in the report, each once, under the tasks that it is of."""

from __future__ import annotations

from pathlib import Path

from made import cell, make_store, pages, record, visible

from posenc.config.task import plain, task_at
from posenc.records.store import Store


def store_of(folder: Path, departures: dict[str, list[str]]) -> Store:
    cells = [cell("rope", seed) for seed in (0, 1)]
    store = make_store(folder, cells, [record(one, 3.0, 4.0) for one in cells])
    told = {task: {"title": task, "card": {"departures": those}} for task, those in departures.items()}
    store.write_manifest({**store.read_manifest(), "tasks": told})
    return store


def test_departures_stand_on_both_pages_once_under_their_tasks(tmp_path: Path) -> None:
    html, markdown = pages(
        store_of(tmp_path, {"enwik8": ["theirs has <b>one</b>; here two"], "mlm": ["shared; here none", "own; here 1"],
                            "sst2": ["shared; here none"]})
    )  # fmt: skip
    for page in (visible(html), markdown):
        assert page.count("Departures from the models named") >= 1
        assert page.count("shared; here none") == 1
        for text in ("mlm, sst2", "own; here 1", "enwik8"):
            assert text in page
    assert "theirs has <b>one</b>; here two" in visible(html)


def test_without_departures_there_is_no_such_section(tmp_path: Path) -> None:
    html, markdown = pages(store_of(tmp_path, {"theory": []}))
    assert "Departures" not in visible(html) and "Departures" not in markdown


def test_a_shipped_cards_departures_reach_the_report(tmp_path: Path) -> None:
    stated = plain(task_at("mlm", "smoke", {}).card)["departures"]
    html = visible(pages(store_of(tmp_path, {"mlm": stated}))[0])
    assert len(stated) >= 6
    assert all(one in html for one in stated)
