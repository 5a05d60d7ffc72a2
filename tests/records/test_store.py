"""Records: sealed, written whole or not at all, refused when they are not what was written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from posenc.common.errors import StorageError, StoreError
from posenc.common.files import digest, write_atomically
from posenc.records import store as storing
from posenc.records.store import Store

CONFIG: dict[str, Any] = {
    "task": "enwik8", "scale": "smoke", "encoding": {"name": "rope"}, "length": 64, "seed": 0,
}  # fmt: skip
SCORE = {"split": "test", "metric": "loss", "value": 0.1}
RECORD = {"schema": 1, "id": "abc", "status": "done", "scores": [SCORE], "name": "é<script>", "config": CONFIG}


def test_a_record_comes_back_as_it_was_with_its_seal(tmp_path: Path) -> None:
    Store(tmp_path).write_record(RECORD)
    record = Store(tmp_path).read_record("abc")
    assert record is not None
    assert len(record.pop("digest")) == 64
    assert record == RECORD
    assert Store(tmp_path).read_record("other") is None


def test_numbers_that_json_has_not_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).write_record({**RECORD, "scores": [{"value": float("nan")}]})
    with pytest.raises(StoreError, match=r"status 'perhaps'.*allowed: done"):
        Store(tmp_path).write_record({**RECORD, "status": "perhaps"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [("0.1", "0.2", "was changed"), ('"schema": 1', '"schema": 0', "schema 0"), ("}", "", "is damaged")],
)
def test_a_record_that_was_changed_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    store = Store(tmp_path)
    store.write_record(RECORD)
    path = store.cell_folder("abc") / "record.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(StoreError, match=words):
        store.read_record("abc")


@pytest.mark.parametrize("text", ["null", "[]", "7", '"text"', "true", '{"schema": 1, "id": NaN}', "[" * 100_000])
def test_json_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.cell_folder("abc").mkdir(parents=True)
    (store.cell_folder("abc") / "record.json").write_text(text)
    with pytest.raises(StoreError, match=r"record.json .*the next run sets it aside"):
        store.read_record("abc")
    store.manifest_path.write_text(text)
    with pytest.raises(StoreError, match=r"suite.json .*run the suite again to renew it"):
        store.read_manifest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": None}, "name must be text, not None"),
        ({"status": "perhaps"}, "status must be one of done, failed, timed out"),
        ({"id": "other"}, "it is of cell other"),
        ({"config": {**CONFIG, "length": "64"}}, "config.length must be a whole number, not '64'"),
        ({"config": {**CONFIG, "encoding": {}}}, "config.encoding.name is missing"),
        ({"scores": [{**SCORE, "value": True}]}, "scores.0.value must be a number, not True"),
        ({"times": []}, r"times must be a table, not \[\]"),
        ({"data": {"rows": {"train": "9"}}}, "data.rows.train must be a whole number"),
    ],
)
def test_a_sealed_record_of_another_shape_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    store = Store(tmp_path)
    other = {**RECORD, **changes}
    store.cell_folder("abc").mkdir(parents=True)
    (store.cell_folder("abc") / "record.json").write_text(json.dumps({**other, "digest": digest(other)}))
    with pytest.raises(StoreError, match=words.replace("timed out", "timed_out")):
        store.read_record("abc")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite": None}, "suite must be a table"),
        ({"cells": [{"id": "abc", "name": "x"}]}, "cells.0.config is missing"),
        ({"cells": [{"id": "../../x", "name": "x", "config": CONFIG}]}, "no id of a cell"),
        ({"schema": 0}, "has schema 0; this version reads 1"),
    ],
)
def test_a_manifest_of_another_shape_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    store = Store(tmp_path)
    manifest = {"schema": 1, "suite": {"name": "x"}, "cells": [{"id": "abc", "name": "x", "config": CONFIG}]}
    store.write_manifest({**manifest, **changes})
    with pytest.raises(StoreError, match=f"{words}.*run the suite again"):
        store.read_manifest()


def test_a_manifest_that_was_changed_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_manifest({"schema": 1, "suite": {"name": "x"}, "cells": []})
    store.manifest_path.write_text(store.manifest_path.read_text().replace('"x"', '"y"'))
    with pytest.raises(StoreError, match="was changed after it was written"):
        store.read_manifest()


@pytest.mark.parametrize("line", ["{broken", "null", "7", '{"loss": 1}', '{"step": "1"}'])
def test_a_damaged_row_of_a_curve_is_named(tmp_path: Path, line: str) -> None:
    store = Store(tmp_path)
    assert not store.has_curve("abc")
    store.cell_folder("abc").mkdir(parents=True)
    (store.cell_folder("abc") / "curve.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    assert store.has_curve("abc")
    with pytest.raises(StoreError, match=r"curve.jsonl is damaged \(line 2\)"):
        store.curve("abc")


def test_a_write_that_fails_leaves_the_old_file_whole_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storing.os, "fsync", full)
    with pytest.raises(StorageError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_has_the_mode_that_others_have(tmp_path: Path) -> None:
    write_atomically(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_row_still_being_written_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.cell_folder("abc").mkdir(parents=True)
    (store.cell_folder("abc") / "curve.jsonl").write_text(json.dumps({"step": 1}) + '\n{"step":')
    assert store.curve("abc") == [{"step": 1}]
