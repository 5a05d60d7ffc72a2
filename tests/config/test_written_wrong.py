"""What is written wrong in a suite, a task or an option: one line that says what, where, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from posenc.cli import main
from posenc.common.errors import ConfigError
from posenc.common.toml import validate
from posenc.config import task as tasks
from posenc.config.task import task_at

HUGE = "99999999999999999999"
SUITE = """
name = "x"
title = "x"
baseline = "rope"
seeds = [0]
[[grid]]
tasks = ["enwik8"]
encodings = ["rope"]
"""


def said(*arguments: str) -> str:
    """The line with which `posenc plan` refuses."""
    result = CliRunner().invoke(main, ["plan", *arguments])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("key", ["name=ptb", "title=x", "version=9", "card.paper=x", "objective=masked_lm", "scales=1"])
def test_what_a_task_is_cannot_be_set(key: str) -> None:
    line = said("enwik8", "--set", key)
    assert f"--set {key.split('=')[0]}" in line
    assert "allowed are length, start, data, backbone, training, evaluation, runtime" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lengths", HUGE], (f"--lengths {HUGE}", "from 1 to 16,777,216 tokens")),
        (["--lengths", "64,0"], ("--lengths 0", "from 1 to")),
        (["--seeds", HUGE], (f"--seeds {HUGE}", "64 bits")),
        (["--threads", "0"], ("--threads: runtime.threads = 0", "at least 1")),
        (["--processes", "0"], ("--processes: runtime.processes = 0", "at least 1")),
        (["--threads", "2", "--set", "runtime.threads=0"], ("--set runtime.threads: runtime.threads = 0",)),
        (["--set", f"training.batch={HUGE}"], ("--set training.batch", "64 bits")),
        (["--set", f"evaluation.length_factors=[1, {HUGE}]"], ("evaluation.length_factors.1", "64 bits")),
        (["--set", "backbone.layers=9999999999"], ("--set backbone.layers", "from 1 to 1,024")),
        (["--set", "backbone.features=0"], ("--set backbone.features", "from 1 to")),
        (["--encodings", f"shaw(clip={HUGE})"], ("--encodings", "64 bits")),
    ],
)
def test_numbers_beyond_all_measure(options: list[str], words: tuple[str, ...]) -> None:
    line = said("enwik8", *options)
    assert all(word in line for word in words)


def test_the_place_where_it_was_written_is_named(tmp_path: Path) -> None:
    """The task's own file is right: what was set last made it wrong."""
    assert said("enwik8", "--set", "backbone.heads=3").startswith("posenc: --set backbone.heads: backbone.width = 64")
    path = tmp_path / "suite.toml"
    path.write_text(SUITE + 'set = { "backbone.heads" = 3 }\n')
    assert "grid 1 of suite x, set: backbone.width = 64" in said(str(path))


def test_an_unknown_key_is_shown_beside_those_that_there_are(tmp_path: Path) -> None:
    line = said("enwik8", "--set", "backbone.head_count=3")
    assert "allowed: form, vocabulary" in line
    assert "__" not in line
    path = tmp_path / "suite.toml"
    path.write_text(SUITE + 'tune = { "training.learning_rate" = { time = [0.5] } }\n')
    line = said(str(path))
    assert "unknown key grid.0.tune.training.learning_rate.time; did you mean 'times'?" in line


@pytest.mark.parametrize("scales", ["scales = false", "scales = []", "[scales]\nsmoke = 3", 'scales = "smoke"'])
def test_scales_must_be_tables(tmp_path: Path, scales: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(f'name = "t"\n{scales}\n')
    with pytest.raises(ConfigError, match="scales must be a table of tables"):
        task_at(str(path), "smoke", {})


def test_a_number_without_room_is_named_wherever_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"here: a\.b\.1: must have at most 64 bits"):
        validate(tasks.DataConfig, {"a": {"b": [1, -(2**63)]}}, {}, "here")
