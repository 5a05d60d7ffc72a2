"""posenc.run from the public names alone: every option of the command line is a keyword, and means the same."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from runs import SETTINGS

import posenc
from posenc import cli
from posenc.running import driver
from posenc.running.run_options import Means


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the driver was asked for last."""
    found: dict[str, Any] = {}

    def run(suite: str, **given: Any) -> None:
        found.update(given, suite=suite)

    monkeypatch.setattr(driver, "run", run)
    return found


def by_command(asked: dict[str, Any], *arguments: str) -> dict[str, Any]:
    with pytest.raises((SystemExit, AttributeError)):  # the driver gives no outcome here
        cli.main(["run", *arguments], standalone_mode=False)
    return {key: asked[key] for key in ("suite", "choice", "means", "results")}


def test_every_option_is_a_keyword() -> None:
    named = {parameter.name for parameter in cli.run.params} - {"suite"}
    keywords = set(inspect.signature(posenc.run).parameters) - {"suite", "say", "unknown"}
    assert keywords == {{"changes": "set", "checkpoint_seconds": "checkpoint_every"}.get(name, name) for name in named}


def test_keywords_mean_what_options_mean(asked: dict[str, Any], tmp_path: Path) -> None:
    command = by_command(
        asked, "quick", "--scale", "smoke", "--tasks", "enwik8", "--encodings", "rope(base=5),none", "--lengths",
        "16,32", "--seeds", "3", "--data", str(tmp_path), "--device", "cpu", "--precision", "bfloat16",
        "--backend", "reference",
        "--threads", "2", "--processes", "1", "--set", "training.steps=7", "--jobs", "2", "--rerun", "failed",
        "--time-limit", "30m", "--checkpoint-every", "5s", "--keep", "--results", str(tmp_path / "r"),
    )  # fmt: skip
    posenc.run(
        "quick", scale="smoke", tasks=["enwik8"], encodings=["rope(base=5)", "none"], lengths=(16, 32), seeds=3,
        data=tmp_path, device="cpu", precision="bfloat16", backend="reference", threads=2, processes=1,
        set={"training.steps": 7}, jobs=2, rerun="failed", time_limit="30m", checkpoint_every=5, keep=True,
        results=tmp_path / "r",
    )  # fmt: skip
    assert {key: asked[key] for key in command} == command
    posenc.run("quick", engine="ray", address="here:1")
    assert asked["means"] == Means(engine="ray", address="here:1")
    assert asked["command"] == "posenc.run('quick', engine='ray', address='here:1')"


def test_one_text_is_read_as_the_command_line_reads_it(asked: dict[str, Any]) -> None:
    posenc.run("quick", encodings="rope(base=5.0),none")
    assert asked["choice"].encodings == ["rope(base=5.0)", "none"]
    posenc.run("quick", seeds="0-2,7")
    assert asked["choice"].seeds == [0, 1, 2, 7]
    assert by_command(asked, "quick", "--seeds", "0-2,7")["choice"] == asked["choice"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoding": ["rope"]}, "unknown option of posenc.run 'encoding': did you mean 'encodings'?"),
        ({"encodings": ["roope"]}, "unknown encoding 'roope' .*did you mean 'rope'"),
        ({"encodings": []}, r"encodings=\[\]"),
        ({"encodings": [3]}, r"encodings=\[3\]"),
        ({"tasks": ["enwik"]}, "unknown task of suite quick 'enwik'"),
        ({"scale": "smal"}, "unknown scale 'smal'"),
        ({"seeds": ["0"]}, "seeds=.*whole numbers"),
        ({"seeds": True}, "seeds=True"),
        ({"seeds": "4-0"}, "seeds='4-0'.*must rise"),
        ({"lengths": 1.5}, "lengths=1.5"),
        ({"jobs": 0}, "jobs 0"),
        ({"jobs": "2"}, "jobs='2'"),
        ({"set": "training.steps=3"}, "set='training.steps=3'.*a dictionary"),
        ({"set": {3: 4}}, "set=.*a dictionary"),
        ({"time_limit": "soon"}, "time_limit='soon'"),
        ({"checkpoint_every": -1}, "checkpoint_every=-1"),
        ({"rerun": "mising"}, "unknown choice 'mising'"),
        ({"engine": "raay"}, "unknown engine 'raay'"),
        ({"data": "nowhere"}, "nowhere: no such folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str, asked: dict[str, Any]) -> None:
    with pytest.raises(posenc.PosencError, match=message):
        posenc.run("quick", **given)
    assert not asked


def test_a_suite_that_is_no_name_or_unknown(asked: dict[str, Any]) -> None:
    with pytest.raises(posenc.PosencError, match="did you mean 'quick'"):
        posenc.run("quik")
    with pytest.raises(posenc.PosencError, match="must be given"):
        posenc.run(3)  # type: ignore[arg-type]
    assert not asked


def test_it_runs_and_says_how_it_was_asked(tmp_path: Path) -> None:
    small = {**SETTINGS, "training.steps": 2}
    lines: list[str] = []
    outcome = posenc.run(
        "enwik8", encodings=["none"], lengths=16, seeds=[0], set=small, results=tmp_path, say=lines.append
    )
    assert outcome.exit_status == 0 and dict(outcome.counts) == {"done": 1} and lines
    assert outcome.store.read_manifest()["command"].startswith("posenc.run('enwik8', encodings=['none'], lengths=16")
