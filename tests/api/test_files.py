"""A class in a file (`./mine.py:Mine`): how it is named, what its identity is, and who tells that code has changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import SETTINGS

from posenc.api import registry, source_code
from posenc.api.composite import Composite
from posenc.api.registry import create, describe, parse
from posenc.api.spec import relocated
from posenc.api.stack import Stack
from posenc.common.errors import ConfigError, PluginError, UnknownNameError
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records import provenance
from posenc.records.store import Store
from posenc.running.status import is_stale
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=64, causal=True)
SOURCE = """
import torch
from posenc import Context, Encoding

class Mine(Encoding):
    title, relative = "a linear penalty", True

    def __init__(self, stack, *, slope: float = 0.5):
        super().__init__(stack)
        self.slope = slope

    def distance_bias(self, distances, context):
        return -self.slope * distances.abs().expand(self.stack.heads, -1)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def plan(encodings: list[str], **changes: Any) -> list[Cell]:
    chosen = {**SETTINGS, "training.steps": 2, "training.validate_every": 2, **changes}
    return make(find_suite("enwik8"), Selection(encodings=encodings, lengths=[16], seeds=[0], changes=chosen)).cells


def test_a_file_stands_wherever_a_name_does() -> None:
    made = create("sinusoidal+./mine.py:Mine(slope=2)", STACK)
    assert isinstance(made, Composite) and made.parts[1].slope == 2.0
    assert describe("./mine.py:Mine(slope=0.5)")["name"] == "mine.py:Mine", "defaults are dropped, and the dot"
    for text in ("mine.py:Mine", "././mine.py:Mine", str(Path("mine.py").absolute()) + ":Mine"):
        assert describe(text) == describe("./mine.py:Mine"), "one file has one name"
    with pytest.raises(UnknownNameError, match="did you mean 'slope'"):
        describe("./mine.py:Mine(slop=2)")


def test_the_source_is_part_of_the_identity(here: Path) -> None:
    first, again = plan(["./mine.py:Mine"]), plan(["./mine.py:Mine"])
    assert first[0].id == again[0].id
    (here / "mine.py").write_text(SOURCE.replace("-self.slope", "-2 * self.slope"))
    changed = plan(["./mine.py:Mine"])
    assert changed[0].id != first[0].id and changed[0].name == first[0].name
    assert create("mine.py:Mine", STACK).distance_bias(_distances(), None)[0, 0] == -3.0  # type: ignore[arg-type]
    assert "source" not in describe("rope"), "cells of other encodings keep their ids"


def _distances() -> Any:
    import torch

    return torch.tensor([-3])


def test_a_cell_trains_it_and_refuses_a_file_that_has_changed(here: Path) -> None:
    (cell,) = plan(["./mine.py:Mine(slope=1)"])
    terms = CellTerms(suite="enwik8", store=here / "results")
    (here / "mine.py").write_text(SOURCE + "# later\n")
    record = train(cell, terms)
    assert record and record["status"] == "failed" and "has changed since the run was planned" in record["reason"]
    (here / "mine.py").write_text(SOURCE)
    Store(terms.store).remove(cell.id)
    record = train(cell, terms)
    assert record and record["status"] == "done", record
    assert record["config"]["encoding"]["name"] == "mine.py:Mine(slope=1.0)"


def test_paths_in_a_suite_start_from_the_suite(here: Path) -> None:
    (here / "ideas").mkdir()
    (here / "ideas/mine.py").write_text(SOURCE)
    (here / "ideas/own.toml").write_text(
        "name = 'own'\ntitle = 'x'\nbaseline = 'rope'\nclaim = './mine.py:Mine'\nseeds = [0]\n[[grid]]\n"
        "tasks = ['enwik8']\nencodings = ['rope', './mine.py:Mine', 't5+./mine.py:Mine(slope=2)']\n"
        "names = { './mine.py:Mine' = 'my idea' }\n"
    )
    suite = find_suite("ideas/own.toml")
    assert suite.grid[0].encodings == ["rope", "ideas/mine.py:Mine", "t5+ideas/mine.py:Mine(slope=2)"]
    assert suite.claim == "ideas/mine.py:Mine" and suite.grid[0].names == {"ideas/mine.py:Mine": "my idea"}
    assert relocated("sinusoidal + rope(base=2)", here) == "sinusoidal + rope(base=2)"
    os.chdir(here / "ideas")
    assert find_suite("own.toml").grid[0].encodings[1] == "mine.py:Mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./none.py:Mine", ["none.py cannot be read", "No such file"]),
        ("./mine.py:Other", ["mine.py", "AttributeError", "Other"]),
        ("./mine.py:torch", ["no subclass of posenc.Encoding"]),
        ("./bad.py:Mine", ["SyntaxError"]),
    ],
)
def test_what_cannot_be_loaded_is_said_with_the_file(here: Path, text: str, words: list[str]) -> None:
    (here / "bad.py").write_text("class Mine(")
    with pytest.raises(PluginError) as caught:
        describe(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["./mine.py", "mine:Mine", "./mine.py:", "./mine.py:2", "./mi(ne.py:Mine", ".py:"])
def test_what_is_no_file_and_class_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        parse(text)


def test_what_a_file_prints_when_it_is_run_goes_to_standard_error(here: Path, capfd: Any) -> None:
    (here / "loud.py").write_text("import os\nprint('one'); os.system('echo two')\n" + SOURCE)
    registry.load("loud.py:Mine")
    out, err = capfd.readouterr()
    assert out == "" and "one" in err and "two" in err


@pytest.fixture
def package(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with an encoding in one module and its helpers in another, as pip lays it out."""
    info = here / "site/demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nfiled = posenc_demo_files.own:Mine\n")
    folder = here / "site/posenc_demo_files"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('to know it, nothing is imported')")
    (folder / "own.py").write_text(SOURCE)
    (folder / "helpers.py").write_text("SLOPE = 1")
    monkeypatch.syspath_prepend(str(here / "site"))
    registry._installed.cache_clear()
    source_code.digest_of_package.cache_clear()
    yield folder
    registry._installed.cache_clear()
    source_code.digest_of_package.cache_clear()
    sys.modules.pop("posenc_demo_files", None)


def test_changed_code_of_a_package_is_told_at_an_unchanged_version(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "code", lambda: {"commit": "a", "dirty": False})
    record = {
        "code": provenance.code(),
        "config": {"encoding": {"name": "sinusoidal+filed(slope=2.0)"}},
        "plugins": registry.code_of("sinusoidal+filed(slope=2.0)"),
    }
    assert list(record["plugins"]) == ["filed"] and not is_stale(record)
    (package / "helpers.py").write_text("SLOPE = 2")
    source_code.digest_of_package.cache_clear()
    assert is_stale(record)
    (package / "helpers.py").write_text("SLOPE = 1")
    source_code.digest_of_package.cache_clear()
    assert not is_stale(record)
    built_in = {"code": provenance.code(), "config": {"encoding": {"name": "rope"}}}
    assert not is_stale(built_in), "records from before, of built-in encodings, are as they were"


def test_a_package_that_cannot_be_imported_fails_its_cells_alone(package: Path) -> None:
    cells = {cell.config["encoding"]["name"]: cell for cell in plan(["filed", "rope", "none"])}
    assert cells["filed"].faulty and "to know it, nothing is imported" in str(cells["filed"].why_not)
    assert "demo 1.0" in str(cells["filed"].why_not)
    assert cells["rope"].why_not is None and not cells["rope"].faulty
