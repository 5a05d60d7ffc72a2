"""`posenc.run`: a suite, with every option of `posenc run` as a keyword. Wrong names are told without torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.api.spec import split
from posenc.common.errors import ConfigError, UnknownNameError
from posenc.plan.selection import Selection, choose, find_suite, require_known, seeds_of
from posenc.running.run_options import Means, seconds
from posenc.training.cell_terms import CHECKPOINT_SECONDS

if TYPE_CHECKING:
    from posenc.running.driver import Outcome

Texts = str | Sequence[str] | None
Integers = int | Sequence[int] | None
Seconds = float | str | None


def run(
    suite: str,
    *,
    scale: str | None = None,
    tasks: Texts = None,
    encodings: Texts = None,
    lengths: Integers = None,
    seeds: Integers | str = None,
    data: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    backend: str | None = None,
    threads: int | None = None,
    processes: int | None = None,
    set: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    rerun: str = "missing",
    engine: str = "local",
    address: str | None = None,
    time_limit: Seconds = None,
    stop_after: Seconds = None,
    checkpoint_every: Seconds = None,
    keep: bool = False,
    results: str | Path = "results",
    say: Callable[[str], None] = print,
    **unknown: Any,
) -> Outcome:
    """Run what is missing of a suite, mirror it to MLflow, write the report: as `posenc run` does.

        posenc.run("quick", encodings=["sinusoidal", "rope"], seeds=[0, 1], set={"training.steps": 200})

    Args:
        suite: a suite's name, the path of its TOML, or a task's name.
        scale, tasks, encodings, lengths, seeds: of the suite, in place of its own; one or several (seeds also "0-4").
        data: the folder of official data files (or POSENC_DATA).
        device, precision, backend, threads, processes: of each cell.
        set: any other key of the task: {"training.steps": 200, "backbone.layers": 2}.
        jobs: cells at once. engine, address: local worker processes, or a Ray cluster.
        rerun: which finished cells run again: missing (none), failed, stale or all.
        time_limit: what a cell may take; stop_after: what the whole run may take; checkpoint_every: all in seconds, or
            as "30m".
        keep: keep every cell's trained weights, for `posenc.load`.
        results: the folder that results go to. say: where lines for people go.

    Returns:
        The outcome: `store`, `counts` by status, `failed` records, `report` (its page), `stopped`, `exit_status`.

    Worker processes import posenc and no script: it may be called from a script, from standard input, in a notebook.

    Raises:
        PosencError: bad input or missing data; nothing has run or been written.
        StorageError: a disk takes no more writes; what had ended is kept.
    """
    given = {name: value for name, value in locals().items() if name not in ("suite", "unknown", "say")}
    known = list(inspect.signature(run).parameters)[1:-1]
    for name in unknown:
        raise UnknownNameError("option of posenc.run", name, known)
    if not isinstance(suite, str):
        raise ConfigError(f"posenc.run({suite!r}): a suite's name, the path of its TOML or a task's name must be given")
    runtime = {"device": device, "precision": precision, "backend": backend, "threads": threads, "processes": processes}
    choice: Selection = choose(
        scale=scale,
        tasks=_texts("tasks", tasks),
        encodings=_texts("encodings", encodings),
        lengths=_integers("lengths", lengths),
        seeds=_seeds(seeds),
        data=data,
        changes=_changes(set),
        **runtime,
    )
    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool)):
        raise ConfigError(f"posenc.run(jobs={jobs!r}): a whole number must be given")
    every = _seconds("checkpoint_every", checkpoint_every)
    means = Means(
        jobs=jobs,
        rerun=rerun,
        engine=engine,
        address=address,
        time_limit=_seconds("time_limit", time_limit),
        stop_after=_seconds("stop_after", stop_after),
        checkpoint_seconds=CHECKPOINT_SECONDS if every is None else every,
        keep=bool(keep),
    )
    require_known(find_suite(suite), choice)
    from posenc.running import driver

    changed = {name: value for name, value in given.items() if value != inspect.signature(run).parameters[name].default}
    command = f"posenc.run({', '.join([repr(suite), *(f'{name}={_shown(value)}' for name, value in changed.items())])})"
    return driver.run(suite, choice=choice, means=means, results=results, command=command, say=say)


def _shown(value: Any) -> str:
    return repr(str(value) if isinstance(value, Path) else value)


def _texts(name: str, given: Texts) -> list[str] | None:
    """One text or several; `"a,b(x=1,y=2)"` is two, as on the command line."""
    if given is None:
        return None
    parts = split(given, ",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, str) and part for part in parts):
        raise ConfigError(f"posenc.run({name}={given!r}): a list of texts must be given")
    return [part.strip() for part in parts]


def _integers(name: str, given: Integers) -> list[int] | None:
    """One whole number or several."""
    if given is None:
        return None
    parts = list(given) if isinstance(given, list | tuple | range) else [given]
    if not parts or not all(isinstance(part, int) and not isinstance(part, bool) for part in parts):
        raise ConfigError(f"posenc.run({name}={given!r}): whole numbers must be given, such as [0, 1]")
    return parts  # type: ignore[return-value]  # each has been looked at


def _seeds(given: Integers | str) -> list[int] | None:
    """Whole numbers, or as the command line has them: `"0-4"`."""
    if not isinstance(given, str):
        return _integers("seeds", given)
    try:
        return seeds_of(given)
    except ValueError as error:
        raise ConfigError(f"posenc.run(seeds={given!r}): {error}") from None


def _changes(given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) and key for key in given):
        raise ConfigError(f"posenc.run(set={given!r}): a dictionary must be given, such as {{'training.steps': 200}}")
    return dict(given)


def _seconds(name: str, given: Seconds) -> float | None:
    """Seconds as a number, or as the command line has them: `30m`."""
    if given is None:
        return None
    if isinstance(given, int | float) and not isinstance(given, bool) and given >= 0:
        return float(given)
    try:
        return seconds(str(given))
    except ValueError:
        raise ConfigError(f"posenc.run({name}={given!r}): seconds must be given, or a time such as '30m'") from None
