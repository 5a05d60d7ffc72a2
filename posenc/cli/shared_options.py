"""The options that commands share, and how their values are read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from posenc.api.spec import split
from posenc.common.errors import ConfigError

# Written here a second time, so that `posenc --help` loads no configuration; a test holds both to each other.
SCALES = ("smoke", "small", "paper")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
BACKENDS = ("auto", "reference", "sdpa", "blocks", "flex", "xformers")
COMPILE = ("none", "inductor", "cudagraphs")
ATTENTIONS = ("softmax", "performer")
SIZES = ("small", "bert-base")
EXPORTED = ("posenc", "transformers")
RERUN = ("missing", "failed", "stale", "all")
ENGINES = ("local", "ray")


def names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """`a,b(x=1,y=2)` at commas outside parentheses."""
    if value is None:
        return None
    parts = split(value, ",")
    if any(not part.strip() for part in parts):
        raise click.BadParameter(f"{value!r} has an empty part: write a,b,c")
    return [part.strip() for part in parts]


def integers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """`64,128`."""
    parts = names(ctx, parameter, value)
    try:
        return None if parts is None else [int(part) for part in parts]
    except ValueError:
        raise click.BadParameter(f"{value!r}: must be whole numbers, such as 64,128") from None


def attentions(ctx: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Some of ATTENTIONS: `softmax,performer`."""
    kind = click.Choice(ATTENTIONS)
    return [kind.convert(name, parameter, ctx) for name in names(ctx, parameter, value) or ()]


def seeds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """`0-4` or `0,2,5-9`."""
    from posenc.plan.selection import seeds_of

    try:
        return None if value is None else seeds_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def results_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--results`."""
    return click.option(
        "--results", default="results", show_default=True, type=click.Path(path_type=Path), help="Where results lie."
    )(command)


def as_json_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--json`, of commands whose answer goes to standard output and nowhere else."""
    return click.option("--json", "as_json", is_flag=True, help="As JSON, and nothing else.")(command)


def choice_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which `plan` and `run` change a suite."""
    options = [
        click.option("--scale", type=click.Choice(SCALES), help="In place of the suite's own."),
        click.option("--tasks", callback=names, help="Only these of the suite's tasks: a,b."),
        click.option("--encodings", callback=names, help="These encodings instead: a,b(option=1),c+d; or all."),
        click.option("--lengths", callback=integers, help="These training lengths instead, in tokens."),
        click.option("--seeds", callback=seeds, help="These seeds instead: 0-4, or 0,2,5-9."),
        click.option("--data", type=click.Path(), help="Where official data files lie (or POSENC_DATA)."),
        click.option("--device", type=click.Choice(DEVICES), help="Where cells train."),
        click.option("--precision", type=click.Choice(PRECISIONS), help="bfloat16: by autocast."),
        click.option("--backend", type=click.Choice(BACKENDS), help="Of softmax attention."),
        click.option("--threads", type=int, help="CPU threads of a cell."),
        click.option("--processes", type=int, help="Processes that train one cell together, a GPU each (torchrun)."),
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Any key of the task."),
    ]

    @functools.wraps(command)
    def wrapped(*arguments: Any, **given: Any) -> None:
        from posenc.common.toml import parse_value
        from posenc.plan.selection import RUNTIME, choose

        changes = {}
        for change in given.pop("changes"):
            key, equals, value = change.partition("=")
            if not equals or not key:
                raise ConfigError(f"--set {change}: must be KEY=VALUE, such as training.steps=200")
            changes[key] = parse_value(value)
        keys = ("scale", "tasks", "encodings", "lengths", "seeds", "data", *RUNTIME)
        choice = choose(**{key: given.pop(key) for key in keys}, changes=changes)
        command(*arguments, choice=choice, **given)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def seconds_of(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """`90`, `90s`, `30m` or `2h` in seconds."""
    if value is None:
        return None
    from posenc.running.run_options import seconds

    try:
        return seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def means_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how a run is carried out."""
    options = [
        click.option("--jobs", type=int, help="Cells at once; by default as many as cores and GPUs' memory give."),
        click.option(
            "--rerun", type=click.Choice(RERUN), default="missing", show_default=True,
            help="Which cells run; stale: made by other code.",
        ),
        click.option(
            "--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="local: worker processes."
        ),
        click.option("--address", help="Of a Ray cluster; without it, RAY_ADDRESS or a Ray of this machine alone."),
        click.option("--time-limit", callback=seconds_of, help="What a cell may take: 90s, 30m, 2h."),
        click.option(
            "--stop-after", callback=seconds_of,
            help="What the whole run may take; then it stops as by Ctrl-C, and the same command goes on.",
        ),
        click.option(
            "--checkpoint-every", "checkpoint_seconds", callback=seconds_of, default="60s", show_default=True,
            help="Time of training between two checkpoints.",
        ),
        click.option("--keep", is_flag=True, help="Keep every cell's trained model, for posenc.load."),
    ]  # fmt: skip

    @functools.wraps(command)
    def wrapped(*arguments: Any, **given: Any) -> None:
        from posenc.running.run_options import Means

        keys = ("jobs", "rerun", "engine", "address", "time_limit", "stop_after", "checkpoint_seconds", "keep")
        command(*arguments, means=Means(**{key: given.pop(key) for key in keys}), **given)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped
