"""A kept model taken elsewhere: the same weights and words in a folder of its own; what is damaged is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from runs import SETTINGS

import posenc
from posenc.cli import main
from posenc.common.errors import ConfigError, StoreError
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.records.store import Store
from posenc.trained import exported, load_of_any
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with one kept model of a decoder over bytes."""
    folder = tmp_path_factory.mktemp("results")
    chosen = Selection(encodings=["rope"], lengths=[16], seeds=[0], changes={**SETTINGS, "training.steps": 2})
    (cell,) = make(find_suite("enwik8"), chosen).cells
    terms = CellTerms("kept", folder / "kept", keep=frozenset([cell.id]), for_owner=True)
    record = train(cell, terms)
    assert record and record["status"] == "done"
    suite = {"name": "kept", "title": "", "description": "", "scale": "smoke", "baseline": "rope", "claim": ""}
    Store(folder / "kept").write_manifest({"schema": 1, "suite": suite, "cells": [cell.manifest()], "tasks": {}})
    return folder


NAME = "enwik8/softmax/rope/L16/s0"


def test_what_is_exported_is_the_model_and_its_card(results: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", NAME, str(tmp_path / "new/mine"), "--results", str(results)])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "new/mine"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.json", "record.json", "README.md"}
    os.rename(folder, tmp_path / "elsewhere")
    here, there = load_of_any(results, NAME), posenc.load(tmp_path / "elsewhere")
    assert there.record == here.record and there.cell.id == here.cell.id
    assert there.logits("a small town").equal(here.logits("a small town"))
    assert there.score("a small town") == here.score("a small town")
    card = (tmp_path / "elsewhere/README.md").read_text()
    assert card == there.card == here.card
    (test,) = (row for row in here.record["scores"] if row["split"] == "test" and row["length"] == 16)
    assert f"| test | 16 | bits_per_character | {test['value']:.6g} |" in card
    assert f"SHA-256 {here.record['checkpoint']['digest']}" in card
    assert (Store(results / "kept").cell_folder(here.cell.id) / "model.md").read_text() == card
    encoding = here.cell.config["encoding"]
    assert f"`rope`, version {encoding['version']}, of {encoding['package']}" in card
    assert f"torch {here.described['versions']['torch']}" in card


def test_words_go_with_it(tmp_path: Path) -> None:
    settings = {**SETTINGS, "training.steps": 2, "training.stages": [], "start": "scratch"}
    chosen = Selection(encodings=["none"], lengths=[16], seeds=[0], changes=settings)
    (cell,) = make(find_suite("zh-mlm"), chosen).cells
    record = train(cell, CellTerms("kept", tmp_path / "kept", keep=frozenset([cell.id]), for_owner=True))
    assert record and record["status"] == "done"
    suite = {"name": "kept", "title": "", "description": "", "scale": "smoke", "baseline": "none", "claim": ""}
    Store(tmp_path / "kept").write_manifest({"schema": 1, "suite": suite, "cells": [cell.manifest()], "tasks": {}})
    here = posenc.load(tmp_path / "kept", cell.id)
    exported.write(here, tmp_path / "out")
    there, text = posenc.load(tmp_path / "out"), "一个小镇在北方"
    assert there.tokenise(text) == here.tokenise(text)
    assert torch.equal(there.logits(text), here.logits(text))


def test_what_stands_in_the_way_is_said_and_nothing_is_written(results: Path, tmp_path: Path) -> None:
    def said(*arguments: str, results: Path = results) -> str:
        done = CliRunner().invoke(main, ["export", *arguments, "--results", str(results)])
        assert done.exit_code == 2, done.output
        return done.output

    (tmp_path / "full").mkdir()
    assert "is there already" in said(NAME, str(tmp_path / "full"))
    assert "did you mean" in said(NAME.replace("rope", "rpoe"), str(tmp_path / "new"))
    assert "no results in" in said(NAME, str(tmp_path / "new"), results=tmp_path)
    assert not (tmp_path / "new").exists() and not list((tmp_path / "full").iterdir())
    with pytest.raises(ConfigError, match="allowed: posenc, transformers"):
        exported.write(load_of_any(results, NAME), tmp_path / "new", "onnx")


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("model.safetensors", "damaged"),
        ("record.json", "damaged"),
        ("model.json", "damaged"),
    ],
)
def test_damage_is_named(results: Path, tmp_path: Path, file: str, what: str) -> None:
    exported.write(load_of_any(results, NAME), tmp_path / "out")
    whole = (tmp_path / "out" / file).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (whole[: len(whole) // 2], bytes(flipped), b"null", b""):
        (tmp_path / "out" / file).write_bytes(content)
        with pytest.raises(StoreError, match=what):
            posenc.load(tmp_path / "out")
    (tmp_path / "out" / file).unlink()
    with pytest.raises(StoreError):
        posenc.load(tmp_path / "out")


def test_a_folder_of_results_wants_the_cell_too(results: Path) -> None:
    with pytest.raises(StoreError, match="of a suite's results give the cell too"):
        posenc.load(results / "kept")


def test_a_record_of_another_model_is_refused(results: Path, tmp_path: Path) -> None:
    exported.write(load_of_any(results, NAME), tmp_path / "out")
    path = tmp_path / "out/record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "scores": []}))
    with pytest.raises(StoreError, match=r"record\.json is damaged, or of another model"):
        posenc.load(tmp_path / "out")
