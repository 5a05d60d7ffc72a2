"""Records: sealed, written whole or not at all, refused when they are not what was written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from posenc import store as storing
from posenc.errors import StorageError, StoreError
from posenc.store import Store, write_atomically

RECORD = {"schema": 1, "id": "abc", "status": "done", "scores": [{"value": 0.1}], "name": "é<script>"}


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
