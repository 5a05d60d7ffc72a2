"""The pages on which MLflow shows suites, asked of the server itself, and the browser that opens one."""

from __future__ import annotations

import json
import os
import sys
import threading
import urllib.request
import webbrowser
from typing import Any

from posenc.tracking.run import CELL, ENCODING, SUMMARY
from posenc.tracking.told import VIEW_KEY

SECONDS = 30.0
"""How long one answer of the server is waited for."""
SHOWN = 10
"""How many runs MLflow's charts show unless told otherwise: those that started last."""


def suites(server: str) -> list[tuple[str, str]]:
    """The name of each suite and the way to its charts; the one whose last cell started last is the first.

    Args:
        server: its address, such as http://127.0.0.1:5000.
    """
    found = []
    for experiment in _ask(server, "experiments/search", max_results=1000).get("experiments", []):
        newest = _runs(server, experiment, f"tags.`{CELL}` LIKE '%'", SHOWN)
        if newest:
            started = int(newest[0]["info"].get("start_time", 0))
            found.append((started, experiment["name"], _page(server, experiment, newest)))
    found.sort(key=lambda one: one[0], reverse=True)
    return [(name, page) for _, name, page in found]


def _page(server: str, experiment: dict[str, Any], newest: list[dict[str, Any]]) -> str:
    """The way to an experiment's charts, which show each encoding: in its newest runs, else in the view of them all."""
    page = f"#/experiments/{experiment['experiment_id']}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    summed = _runs(server, experiment, f"tags.`{SUMMARY}` = 'encoding'", 1000)
    scored = (run for run in newest if any(key.startswith("test/") for key in _held(run, "metrics")))
    shown = {_held(run, "params").get("encoding") for run in scored}  # what failed has no bar
    all_shown = shown >= {_held(run, "tags").get(ENCODING) for run in summed}
    has_view = any(tag["key"].endswith(f".{VIEW_KEY}") for tag in experiment.get("tags", []))
    return page if all_shown or not has_view else f"{page}&viewStateShareKey={VIEW_KEY}"


def _held(run: dict[str, Any], kind: str) -> dict[str, Any]:
    """The metrics, params or tags of a run, by their names."""
    return {one["key"]: one["value"] for one in run.get("data", {}).get(kind, [])}


def _runs(server: str, experiment: dict[str, Any], which: str, most: int) -> list[dict[str, Any]]:
    """The runs of an experiment that a filter takes, the newest first."""
    asked = {"experiment_ids": [experiment["experiment_id"]], "filter": which, "max_results": most}
    runs: list[dict[str, Any]] = _ask(server, "runs/search", **asked, order_by=["start_time DESC"]).get("runs", [])
    return runs


def _ask(server: str, what: str, **asked: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/{what}", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=SECONDS) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def can_open() -> bool:
    """Whether somebody sits at a terminal beside a display."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    has_own = sys.platform in ("darwin", "win32")
    return has_own or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(address: str) -> threading.Thread:
    """Open an address in the user's browser, if there is one, in a thread of its own.

    Some browsers hold whoever starts them until they end.
    """
    thread = threading.Thread(target=_open, args=(address,), daemon=True)
    thread.start()
    return thread


def _open(address: str) -> None:
    try:
        webbrowser.open(address)
    except Exception:  # the address is on the terminal
        return
