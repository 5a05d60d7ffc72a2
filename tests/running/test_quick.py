"""What takes minutes: cells of the suite `quick` with one of its seeds, and a real task on real data. `nox -s slow`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posenc.records.store import Store

pytestmark = pytest.mark.slow


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "posenc", "run", *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_quick_tells_encodings_apart(tmp_path: Path) -> None:
    run("enwik8", "--seeds", "0", "--encodings", "none,sinusoidal", folder=tmp_path)
    scores: dict[tuple[str, int], float] = {}
    for record in Store(tmp_path / "results" / "enwik8").records():
        assert record["status"] == "done", record["traceback"]
        for row in record["scores"]:
            if row["split"] == "test" and row["value"] is not None:
                scores[record["config"]["encoding"]["name"], row["length"]] = row["value"]
    assert {name for name, length in scores if length == 64} == {"none", "sinusoidal"}
    assert scores["sinusoidal", 64] < scores["none", 64]
    assert scores["sinusoidal", 256] > scores["sinusoidal", 64] + 0.3  # beyond the trained length they fail


@pytest.mark.data
@pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
def test_enwik8_runs_on_the_real_file(tmp_path: Path) -> None:
    changes = {
        "training.steps": 60, "training.warmup": 10, "training.batch": 8, "training.validate_every": 60,
        "evaluation.tokens": 8192, "backbone.layers": 1,
    }  # fmt: skip
    settings = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    data = ["--data", os.environ["POSENC_DATA"]]
    run("enwik8", "--scale", "small", *data, "--encodings", "rope", *settings, folder=tmp_path)
    records = list(Store(tmp_path / "results" / "enwik8").records())
    (record,) = records
    test = {row["length"]: row["value"] for row in record["scores"] if row["split"] == "test"}
    assert test[256] < record["baselines"]["unigram"]
    assert record["data"]["bytes"] == 100_000_000 or "only" in record["data"]["note"]
    page = (tmp_path / "results" / "enwik8" / "report" / "report.md").read_text()
    assert "enwik8" in page
