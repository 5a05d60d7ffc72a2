"""What tests of MLflow share: cells, curves and records that no training made, and what its database has of them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from posenc.common.files import digest
from posenc.records.store import Store
from posenc.tracking.mirror import Mirror
from posenc.tracking.place import default_uri

METRIC = {"name": "bits_per_character", "title": "bits per character", "better": "lower"}


def make_cell(
    encoding: str = "rope", seed: int = 0, attention: str = "softmax", steps: int = 400, rate: float = 0.002
) -> dict[str, Any]:
    config = {
        "schema": 1,
        "task": "enwik8",
        "scale": "smoke",
        "encoding": {"name": encoding, "version": "1", "package": "posenc 0.1.0"},
        "length": 64,
        "seed": seed,
        "backbone": {"attention": attention, "layers": 2},
        "training": {"steps": steps, "learning_rate": rate},
    }
    return {
        "id": digest(config)[:16],
        "name": f"enwik8/{attention}/{encoding}/L64/s{seed}",
        "config": config,
        "parent": None,
    }


def make_store(folder: Path, cells: list[dict[str, Any]], name: str = "quick") -> Store:
    store = Store(folder / "results" / "quick")
    store.write_manifest({"schema": 1, "suite": {"name": name, "title": "Quick", "description": ""}, "cells": cells})
    return store


def write_rows(store: Store, cell: dict[str, Any], steps: range, loss: float | None = 4.0) -> None:
    folder = store.cell_folder(cell["id"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curve.jsonl").open("a") as file:
        for step in steps:
            seconds = step / 100
            value = None if loss is None else loss - step / 1000
            file.write(json.dumps({"step": step, "tokens": step * 64, "seconds": seconds, "loss": value}) + "\n")
            if step % 100 == 0:
                row = {"step": step, "seconds": seconds, "split": "validation", "length": 64, "value": 4.1}
                file.write(json.dumps({**row, "metric": METRIC["name"]}) + "\n")


def write_record(store: Store, cell: dict[str, Any], status: str = "done", value: float | None = 3.0) -> None:
    record: dict[str, Any] = {
        "schema": 1,
        "id": cell["id"],
        "name": cell["name"],
        "suite": "quick",
        "status": status,
        "reason": None if status == "done" else "learned has 64 positions",
        "config": cell["config"],
        "times": {"started": "2026-11-23T09:30:00+00:00", "ended": "2026-11-23T09:30:14+00:00", "seconds": 14.2},
        "scores": [],
    }
    if status == "done":
        record |= {
            "metric": METRIC,
            "scores": [
                {"split": "test", "length": 64, "metric": METRIC["name"], "value": value, "why": None},
                {"split": "test", "length": 256, "metric": METRIC["name"], "value": None, "why": "not possible: no"},
                {"split": "validation", "length": 64, "metric": METRIC["name"], "value": 3.1, "why": None},
            ],
            "parameters": {"total": 123456, "positional": 0},
            "tokens_per_second": 80000.0,
            "backend": "sdpa",
            "code": {"commit": "abc123", "dirty": False},
        }
    store.write_record(record)


def client_of(store: Store) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=default_uri(store.folder.parent))


def runs_of(store: Store, name: str = "quick") -> dict[str, Any]:
    client = client_of(store)
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def rows_in_database(store: Store) -> list[tuple[Any, ...]]:
    with sqlite3.connect(store.folder.parent / "mlflow.db") as connection:
        tables = ("runs", "metrics", "params", "tags")
        return [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]


def history(store: Store, run: Any, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client_of(store).get_metric_history(run.info.run_id, key)]


class Told(list[str]):
    def __call__(self, message: str) -> None:
        self.append(message)


def strict_mirror(store: Store) -> Mirror:
    def fail(message: str) -> None:
        raise AssertionError(message)

    return Mirror(store, default_uri(store.folder.parent), fail)
