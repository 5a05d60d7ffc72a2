"""Damaged files of a results folder, by every command that reads them: named in a line or two, never a traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made import cell, make_store, record

from posenc.cli import main
from posenc.common.errors import StoreError
from posenc.common.files import digest
from posenc.records.record import is_number
from posenc.records.store import Store
from posenc.running.driver import set_damaged_aside
from posenc.running.progress import tail
from posenc.tracking.told import thin
from posenc.training.curve import Curve

CELLS = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
NO_RECORDS = ["null", "[]", "7", '"text"', "true", "", "{", "[" * 100_000, "\x00\x01", '{"schema": 1}']
ACCURACY = {"metric": {"name": "accuracy", "title": "accuracy", "better": "higher"}}
ANSWERS = {"test/64/answer": np.array([1, 0, 1, 1]), "test/64/truth": np.array([1, 1, 1, 0])}


def whole(folder: Path) -> Store:
    """Four cells with records, curves and items."""
    store = make_store(folder, CELLS, [record(one, 0.5, 0.4, **ACCURACY) for one in CELLS])
    for one in CELLS:
        store.write_record(record(one, 0.5, 0.4, items=store.write_items(one["id"], ANSWERS), **ACCURACY))
        path = store.cell_folder(one["id"]) / "curve.jsonl"
        path.write_text(path.read_text().replace("bits_per_character", "accuracy"))
    return store


def asked(*arguments: str | Path) -> Result:
    """A command's end: by itself, with at most four lines of error."""
    result = CliRunner().invoke(main, [str(part) for part in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert len(result.stderr.splitlines()) <= 4, result.stderr
    return result


@pytest.mark.parametrize("name", ["record.json", "suite.json"])
def test_a_record_or_manifest_that_is_none_is_named_by_every_command(tmp_path: Path, name: str) -> None:
    store = whole(tmp_path / "results")
    path = store.manifest_path if name == "suite.json" else store.cell_folder(CELLS[1]["id"]) / name
    commands: dict[str, list[str | Path]] = {
        "status": ["status", "fake", "--results", store.folder.parent],
        "report": ["report", store.folder, "--output", tmp_path / "out"],
        "compare": ["compare", store.folder, store.folder],
        "sync": ["sync", "fake", "--results", store.folder.parent],
    }
    if name == "record.json":
        del commands["sync"]  # tests/tracking has it: MLflow comes first there
    for text in NO_RECORDS:
        path.write_text(text)
        for command, arguments in commands.items():
            result = asked(*arguments)
            if name == "suite.json":
                assert result.exit_code == 2, (command, text, result.output)
            if name == "suite.json" or command == "status":  # which counts the records
                assert name in result.output
            assert result.exit_code in (0, 2), (command, text, result.output)


@pytest.mark.parametrize("text", NO_RECORDS)
def test_who_holds_the_lock_may_have_said_anything(tmp_path: Path, text: str) -> None:
    store = whole(tmp_path)
    with store.locked("posenc run fake"):
        (store.folder / "driver.json").write_text(text)
        assert "run now by process ?" in asked("status", "fake", "--results", tmp_path).output


def test_any_flipped_byte_of_items_is_named(tmp_path: Path, fresh_seed: int) -> None:
    store, dice = whole(tmp_path), random.Random(fresh_seed)
    one = store.read_record(CELLS[0]["id"])
    assert one is not None
    path = store.cell_folder(one["id"]) / "items.npz"
    raw = path.read_bytes()
    for _ in range(300):
        changed = bytearray(raw)
        for _ in range(dice.choice((1, 1, 4, 40))):
            changed[dice.randrange(len(raw))] = dice.randrange(256)
        path.write_bytes(changed[: dice.choice((len(raw), dice.randrange(len(raw))))])
        try:
            read = store.read_items(one)
        except StoreError as error:
            said = str(error)
        else:  # what was hit holds no number
            said = str(path) if all(np.array_equal(read[key], ANSWERS[key]) for key in ANSWERS) else ""
        assert str(path) in said
        assert "\n" not in said


def test_a_sealed_record_of_any_shape_is_named_or_read(tmp_path: Path, fresh_seed: int) -> None:
    """As another program could write them: sealed, and some value of another kind."""
    store, dice = whole(tmp_path / "results"), random.Random(fresh_seed)
    one = store.read_record(CELLS[0]["id"])
    assert one is not None
    path = store.cell_folder(one["id"]) / "record.json"

    def mutated(value: Any) -> Any:
        if dice.random() < 0.15 or not value or not isinstance(value, dict | list):
            return dice.choice([None, [], {}, "x", True, -1, 10**400, 1e300, [None], {"a": None}])
        key = dice.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if isinstance(value, dict) and dice.random() < 0.2:
            return {name: part for name, part in value.items() if name != key}
        changed: Any = dict(value) if isinstance(value, dict) else list(value)
        changed[key] = mutated(value[key])
        return changed

    for _ in range(60):
        other = mutated({key: value for key, value in one.items() if key != "digest"})
        sealed = {**other, "digest": digest(other)} if isinstance(other, dict) else other
        path.write_text(json.dumps(sealed))
        for result in (
            asked("status", "fake", "--results", store.folder.parent),
            asked("compare", store.folder, store.folder),
        ):
            assert result.exit_code in (0, 2), (other, result.output)


def test_a_run_names_what_is_damaged_and_sets_it_aside(tmp_path: Path) -> None:
    store, told = whole(tmp_path), []
    path = store.cell_folder(CELLS[1]["id"]) / "record.json"
    path.write_text("null")
    set_damaged_aside([one["id"] for one in CELLS], store, told.append)
    (line,) = told
    assert f"{path} is damaged" in line and line.endswith("kept as record.unusable.json")
    assert path.with_name("record.unusable.json").read_text() == "null"
    assert len(list(store.records())) == 3


def test_a_cell_goes_on_from_a_damaged_curve_and_tells_how_many_rows_are_lost(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "curve.jsonl")
    curve.path.write_bytes(b'{"step": 1}\nnull\n{"loss": 2}\n\xff\xfe\n{"step": "3"}\n{"step": 4}\n{"step": 5}\n{"st')
    assert curve.rewind(4) == 4
    assert curve.path.read_bytes() == b'{"step": 1}\n{"step": 4}\n'
    assert curve.rewind(0) == 0
    assert curve.path.read_bytes() == b""


def test_rows_that_hold_anything_reach_neither_terminal_nor_mlflow(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text("[" * 100_000 + '\n{"step": 2, "loss": 3.0, "seconds": 1}\n')
    assert [row["step"] for row in tail(path, size=200_000)] == [2]
    odd = ["x", None, float("nan"), 1e300, -1]
    rows = [{"step": step, "loss": 1.0, "seconds": seconds} for step, seconds in enumerate(odd)]
    assert [point.seconds for point in thin(rows, 400, ended=False)] == [0.0] * 5
    assert not is_number(10**400)
