"""Which page of MLflow `posenc ui` names and opens, and where a browser is opened at all."""

from __future__ import annotations

import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from posenc.cli import main
from posenc.tracking import pages, ui
from posenc.tracking.run import CELL, ENCODING

VIEW = "mlflow.sharedViewState.posenc"


class Server:
    """What MLflow's server answers, of suites given as (name, start, the encodings of their runs from the newest on).

    A run of an encoding with an exclamation mark has failed.
    """

    def __init__(self, *suites: tuple[str, int, list[str]], view: bool = True) -> None:
        self.suites = suites
        self.view = view

    def __call__(self, server: str, what: str, **asked: Any) -> dict[str, Any]:
        assert server == "http://here"
        if what == "experiments/search":
            tags = [{"key": VIEW, "value": "{}"}] if self.view else []
            numbers = range(len(self.suites))
            return {
                "experiments": [{"experiment_id": str(n), "name": self.suites[n][0], "tags": tags} for n in numbers]
            }
        name, start, encodings = self.suites[int(asked["experiment_ids"][0])]
        assert name
        if CELL in asked["filter"]:
            assert asked["order_by"] == ["start_time DESC"]
            some = encodings[: asked["max_results"]]
            runs = [{"info": {"start_time": start - n}, "data": self.data(one)} for n, one in enumerate(some)]
        else:
            summed = sorted({one.removesuffix("!") for one in encodings})
            runs = [{"info": {}, "data": {"tags": [{"key": ENCODING, "value": one}]}} for one in summed]
        return {"runs": runs} if runs else {}

    @staticmethod
    def data(encoding: str) -> dict[str, Any]:
        name = encoding.removesuffix("!")
        metrics = [{"key": "seconds", "value": 1.0}]
        if name == encoding:
            metrics.append({"key": "test/bits_per_character/L64", "value": 3.0})
        return {"params": [{"key": "seed", "value": "0"}, {"key": "encoding", "value": name}], "metrics": metrics}


def page(number: int) -> str:
    return f"#/experiments/{number}/runs?workflowType=machine_learning&compareRunsMode=CHART"


def test_the_suite_that_ran_last_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Server(("Default", 9, []), ("old", 5, ["rope"]), ("new", 8, ["rope"]), ("older", 2, ["rope"]))
    monkeypatch.setattr(pages, "_ask", made)
    assert pages.suites("http://here") == [("new", page(2)), ("old", page(1)), ("older", page(3))]
    monkeypatch.setattr(pages, "_ask", Server())
    assert pages.suites("http://here") == []


def test_where_the_newest_runs_leave_encodings_out_the_page_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"e{index}" for index in range(11)]
    three = ["a", "b", "c"] * 5
    last = ["a"] * 10 + ["b"]
    failed = ["a", "b!"] * 5 + ["b"]
    suites = [(str(len(encodings)), 1, encodings) for encodings in (many, many[:10], three, last, failed)]
    monkeypatch.setattr(pages, "_ask", Server(*suites))
    view = "&viewStateShareKey=posenc"
    expected = [page(0) + view, page(1), page(2), page(3) + view, page(4) + view]
    assert [one for _, one in pages.suites("http://here")] == expected
    monkeypatch.setattr(pages, "_ask", Server(*suites, view=False))  # MLflow leaves a page whose view is not there
    assert [one for _, one in pages.suites("http://here")] == [page(number) for number in range(5)]


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("no JSON"), KeyError("name")])
def test_a_server_that_tells_no_suites_is_shown_all_the_same(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **asked: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(pages, "_ask", fail)
    assert ui._suites("127.0.0.1", 5000) == []


@pytest.mark.parametrize(
    ("terminal", "display", "platform", "can"),
    [
        (True, "DISPLAY", "linux", True),
        (True, "WAYLAND_DISPLAY", "linux", True),
        (True, None, "linux", False),
        (True, None, "darwin", True),
        (False, "DISPLAY", "linux", False),
        (False, None, "darwin", False),
    ],
)
def test_a_browser_opens_beside_a_display_and_a_terminal_alone(
    terminal: bool, display: str | None, platform: str, can: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stream:
        def isatty(self) -> bool:
            return terminal

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv(display, ":0")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        patch.setattr(sys, "stdin", Stream())
        patch.setattr(sys, "stdout", Stream())
        found = pages.can_open()
    assert found == can


def test_want_of_a_browser_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    called, failed = threading.Event(), threading.Event()

    def no_browser(address: str) -> bool:
        opened.append(address)
        called.set()
        raise webbrowser.Error("no browser")

    monkeypatch.setattr(threading, "excepthook", lambda told: failed.set())
    monkeypatch.setattr(webbrowser, "open", no_browser)
    thread = pages.show("http://here/#/experiments/1")
    assert called.wait(60)
    thread.join()
    assert opened == ["http://here/#/experiments/1"]
    assert not failed.is_set()


@pytest.mark.parametrize(
    ("options", "can", "browse"), [([], True, True), ([], False, False), (["--no-open"], True, False)]
)
def test_no_open_opens_none(
    options: list[str], can: bool, browse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    asked: list[bool] = []

    def serve(uri: str, host: str, port: int, say: Any, browse: bool) -> int:
        asked.append(browse)
        return 0

    monkeypatch.setattr(ui, "serve", serve)
    monkeypatch.setattr(pages, "can_open", lambda: can)
    (tmp_path / "mlflow.db").touch()
    done = CliRunner().invoke(main, ["ui", "--results", str(tmp_path), *options])
    assert (done.exit_code, asked) == (0, [browse])


class Ended:
    """A server that answers, until Ctrl-C."""

    returncode = 0

    def __init__(self, command: list[str]) -> None:
        assert "server" in command

    def poll(self) -> int | None:
        return 0

    def wait(self, timeout: float | None = None) -> int:
        if timeout is None:
            raise KeyboardInterrupt
        return 0


@pytest.mark.parametrize(
    ("found", "opened"), [([("new", "#/2"), ("old", "#/1")], "http://127.0.0.1:1/#/2"), ([], "http://127.0.0.1:1/")]
)
def test_the_first_page_is_the_one_that_opens(
    found: list[tuple[str, str]], opened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    said: list[str] = []
    monkeypatch.setattr(ui.subprocess, "Popen", Ended)
    monkeypatch.setattr(ui, "_free", lambda host, port: 1)
    monkeypatch.setattr(ui, "_answers", lambda *arguments: True)
    monkeypatch.setattr(ui, "_suites", lambda *arguments: found)
    monkeypatch.setattr(pages, "show", shown.append)
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert ui.serve(uri, "0.0.0.0", 1, said.append, browse=True) == 0  # listens everywhere, and is looked at from here
    assert shown == [opened]
    assert said == [
        f"http://0.0.0.0:1 shows {uri}; Ctrl-C ends it",
        *(f"{name}: http://0.0.0.0:1/{page}" for name, page in found),
    ]
    assert ui.serve(uri, "127.0.0.1", 1, said.append) == 0
    assert shown == [opened]
