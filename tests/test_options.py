"""Options of the command line: each choice is one, as the configuration has it."""

from __future__ import annotations

import typing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from made import cell, make_store

from posenc.attention.softmax.kernel import BACKENDS
from posenc.bench import run as bench
from posenc.bench.shape import SIZES
from posenc.cli import shared_options
from posenc.cli.commands import main
from posenc.config.task import SCALES, RuntimeConfig
from posenc.running import run_options
from posenc.trained import exported


def test_choices_are_those_of_the_configuration() -> None:
    hints = typing.get_type_hints(RuntimeConfig)
    of_runtime = {key: typing.get_args(hints[key]) for key in ("device", "precision", "backend", "compile")}
    assert of_runtime == {
        "device": shared_options.DEVICES, "precision": shared_options.PRECISIONS, "backend": shared_options.BACKENDS,
        "compile": shared_options.COMPILE,
    }  # fmt: skip
    assert shared_options.SCALES == SCALES and shared_options.BACKENDS == BACKENDS
    assert (shared_options.RERUN, shared_options.ENGINES) == (run_options.RERUN, run_options.ENGINES)
    assert (shared_options.ATTENTIONS, shared_options.PRECISIONS, shared_options.COMPILE) == (
        bench.ATTENTIONS,
        bench.DTYPES,
        bench.COMPILE,
    )
    assert tuple(SIZES) == shared_options.SIZES
    assert exported.FORMS == shared_options.EXPORTED


def test_a_choice_is_shown_in_help_and_its_default_is_one() -> None:
    found = []
    for name, command in main.commands.items():
        for option in command.params:
            if isinstance(option.type, click.Choice) and isinstance(option, click.Option):
                found.append(f"{name} {option.name}")
                assert option.default in (None, *option.type.choices) or not isinstance(option.default, str), name
    assert len(found) == 4 + 6 + 6 + 1 + 5, found  # of plan, run, claim, export, bench
    page = CliRunner().invoke(main, ["run", "--help"]).output
    assert "[missing|failed|stale|all]" in page and "[smoke|small|paper]" in page and "[local|ray]" in page


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "quick", "--scale", "smal"],
        ["plan", "quick", "--device", "tpu"],
        ["plan", "quick", "--precision", "float16"],
        ["plan", "quick", "--backend", "flexx"],
        ["run", "quick", "--rerun", "mising"],
        ["run", "quick", "--engine", "raay"],
        ["bench", "--attention", "softmax,softmaxx"],
        ["bench", "--size", "bert"],
        ["bench", "--dtype", "float16"],
        ["bench", "--compile", "yes"],
    ],
    ids=" ".join,
)
def test_another_word_is_refused_with_its_option_and_what_there_is(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in done.output and "is not one of" in done.output
    assert len(done.output.strip().splitlines()) <= 4


@pytest.mark.parametrize(
    "arguments", [["status", "quik"], ["report", "quik"], ["sync", "quik"], ["compare", "quick", "quik"]]
)
def test_a_mistyped_suite_without_results_is_guessed(arguments: list[str], tmp_path: Path) -> None:
    if arguments[0] == "compare":
        make_store(tmp_path, [cell("rope", 0)], []).folder.rename(tmp_path / "quick")
    done = CliRunner().invoke(main, [*arguments, "--results", str(tmp_path)])
    assert done.exit_code == 2 and "no results in" in done.output and "did you mean 'quick'?" in done.output
    (tmp_path / "mine").mkdir()
    done = CliRunner().invoke(main, ["status", "mime", "--results", str(tmp_path)])
    assert "did you mean 'mine'?" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "rope", "--suite", "quik"], "unknown suite or task 'quik' (--suite): did you mean 'quick'?"),
        (["check", "rope", "--lengths", "24,1"], "--lengths 1: must be from 2 to 4,096 tokens"),
        (["plan", "quick", "--tasks", "enwik"], "(--tasks)"),
        (["plan", "quick", "--set", "training.step=3"], "--set training.step: unknown key training.step; did you mean"),
        (["plan", "quick", "--set", "training.x=3"], "unknown key training.x; allowed: steps, batch"),
        (["plan", "quick", "--set", "evaluation.__pydantic_config__.x=1"], "--set evaluation.__pydantic_config__.x: "),
        (["plan", "quick", "--set", "runtime={x=1}"], "--set runtime: unknown key runtime.x; allowed: device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_names_the_option_that_was_typed(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and said in done.output, done.output
    assert "__pydantic_config__" not in done.output.partition("allowed:")[2]
