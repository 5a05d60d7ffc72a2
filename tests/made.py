"""Made-up cells and records, and a report of them as its reader sees it."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from posenc.common.files import digest
from posenc.common.paths import content
from posenc.records.store import Store
from posenc.report import write_report

SCRIPT = (content("reports") / "sort.js").read_text(encoding="utf-8")
TITLE, UNIGRAM = "bits per character", 4.71
TRACEBACK = (
    'Traceback (most recent call last):\n  File "training.py", line 1, in step\nRuntimeError: loss is not finite\n'
)


def cell(encoding: str, seed: int, *, attention: str = "softmax", length: int = 64, **changes: Any) -> dict[str, Any]:
    """A cell of the manifest. `changes` are keys of the training."""
    name = f"enwik8/{attention}/{encoding}/L{length}/s{seed}" + "".join(f"/{k}{v}" for k, v in changes.items())
    config = {
        "schema": 1,
        "task": "enwik8",
        "task_version": 1,
        "scale": "smoke",
        "length": length,
        "seed": seed,
        "encoding": {"name": encoding, "version": "1", "package": "posenc 0.1.0"},
        "data": {"source": "stdlib", "digest": "d" * 64},
        "objective": {"kind": "causal_lm"},
        "backbone": {"attention": attention, "layers": 2, "width": 64},
        "training": {"steps": 400, "learning_rate": 0.002, **changes},
        "evaluation": {"length_factors": [1, 4]},
        "runtime": {"device": "cpu", "precision": "float32", "threads": 1, "backend": "auto"},
        "parent": None,
    }
    return {"id": digest(config)[:16], "name": name, "config": config, "parent": None}


def record(of: dict[str, Any], *values: float | str, status: str = "done", **changes: Any) -> dict[str, Any]:
    """The record of a cell: a value, or why there is none, for each of its lengths."""
    length = of["config"]["length"]
    common = {"schema": 1, "suite": "fake", "status": status, "reason": None, "traceback": None, **of}
    times = {"started": "2026-11-23T09:30:00+00:00", "ended": "2026-11-23T09:30:14+00:00", "seconds": 14.2}
    if status != "done":
        return {**common, "scores": [], "times": times, **changes}
    scores = [
        {"split": "test", "length": length * (1, 4)[index], "metric": "bits_per_character", "items": 8192}
        | ({"value": None, "why": value} if isinstance(value, str) else {"value": value, "why": None})
        for index, value in enumerate(values)
    ]
    return {
        **common,
        "metric": {"name": "bits_per_character", "title": TITLE, "better": "lower"},
        "scores": [*scores, {**scores[0], "split": "validation", "value": 9.99}],
        "baselines": {"unigram": UNIGRAM},
        "best_step": 400,
        "parameters": {"total": 123456, "positional": 64},
        "flops_per_token": 1.2e6,
        "tokens_seen": 819200,
        "tokens_per_second": 80000.0,
        "peak_memory_bytes": 5e8,
        "data": {
            "name": "Python standard library",
            "digest": "d" * 64,
            "bytes": 12345,
            "expected_bytes": None,
            "generated": False,
            "note": "",
        },
        "times": times,
        "backend": "sdpa",
        "code": {"commit": "abc123", "dirty": True},
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu"},
        "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None},
        **changes,
    }


def make_store(folder: Path, cells: list[dict[str, Any]], records: list[dict[str, Any]], **suite: Any) -> Store:
    store = Store(folder / "fake")
    described = {"name": "fake", "title": "A fake suite", "baseline": "sinusoidal", "claim": "rope"}
    described |= {"description": "", **suite}
    made = "2026-11-23T09:30:00+00:00"
    store.write_manifest({"schema": 1, "suite": described, "command": "posenc run fake", "made": made, "cells": cells})
    for one in records:
        store.write_record(one)
        if one["status"] != "done":
            continue
        rows: list[dict[str, Any]] = [{"step": 10, "tokens": 20480, "seconds": 0.4, "loss": None}]
        for step, above in ((100, 1.5), (200, 0.6), (300, 0.2), (400, 0.0)):
            value = one["scores"][0]["value"] + above
            rows.append({"step": step, "tokens": step * 2048, "seconds": step / 25, "split": "validation"})
            rows[-1] |= {"length": one["config"]["length"], "metric": "bits_per_character", "value": value}
        (store.cell_folder(one["id"]) / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return store


def simple_store(folder: Path, scores: dict[str, list[float]], **suite: Any) -> Store:
    """Encodings with a score a seed; at four times the length they are worse by 1."""
    pairs = [(cell(name, seed), value) for name, values in scores.items() for seed, value in enumerate(values)]
    return make_store(folder, [of for of, _ in pairs], [record(of, v, v + 1) for of, v in pairs], **suite)


def pages(store: Store) -> tuple[str, str]:
    path = write_report(store, store.folder / "report")
    return path.read_text(encoding="utf-8"), (path.parent / "report.md").read_text(encoding="utf-8")


def visible(html: str) -> str:
    """What a reader of the page sees, in one line. The one script is the report's, and the policy names its hash."""
    parts: list[str] = []

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            assert not any(name.startswith("on") for name, _ in attrs)
            self.inside = tag if tag in ("style", "script") else ""

        def handle_endtag(self, tag: str) -> None:
            self.inside = ""

        def handle_data(self, data: str) -> None:
            if self.inside == "script":
                assert data == SCRIPT
                assert f"script-src 'sha256-{base64.b64encode(sha256(data.encode()).digest()).decode()}'" in html
            elif not self.inside:
                parts.append(data)

    Reader().feed(html)
    return " ".join(" ".join(parts).split())


def measured(encoding: str, length: int, seconds: float, **changes: Any) -> dict[str, Any]:
    return {"subject": "attention", "encoding": encoding, "attention": "softmax", "backend": "sdpa", "pass": "forward",
            "length": length, "device": "cpu", "dtype": "float32", "seconds": seconds, "seconds_low": seconds * 0.9,
            "seconds_high": seconds * 1.1, "peak_bytes": 5_000_000, "ratio_to_none": seconds / (length * 1e-5),
            "ratio_low": 1.0, "ratio_high": 1.2, "hardware": {"cpu": "a CPU", "cores": 2, "gpu": None},
            **changes}  # fmt: skip
