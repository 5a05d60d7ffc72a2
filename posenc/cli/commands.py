"""The command line. Each command imports what it needs when it runs, so that `posenc --help` is immediate.

Exit status: 0 all done; 1 the program failed, or a disk is full; 2 bad input, a damaged image or video too; 3 some
cells failed or a check did not pass; 130 stopped.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from posenc.cli.group import HELP, Group, echo, echo_json, in_lines
from posenc.cli.shared_options import (
    BACKENDS,
    COMPILE,
    DEVICES,
    EXPORTED,
    PRECISIONS,
    SIZES,
    as_json_option,
    attentions,
    choice_options,
    integers,
    means_options,
    names,
    results_option,
)
from posenc.common.errors import ConfigError, UnknownNameError
from posenc.plan import scaffold


@click.group(cls=Group, context_settings=HELP)
@click.version_option(package_name="posenc")
def main() -> None:
    """Positional encodings compared on equal terms."""


@main.command("list")
@click.argument("kind", type=click.Choice(["encodings", "tasks", "suites", "claims"]))
@click.option("--long", is_flag=True, help="Of encodings: the whole table, in Markdown (or JSON).")
@as_json_option
def list_command(kind: str, long: bool, as_json: bool) -> None:
    """A line for each encoding, task, suite or claim: its name, what it is, from which package."""
    from posenc.plan import catalogue, table

    rows = catalogue.long_rows(kind) if long else catalogue.rows(kind)
    if as_json or long:
        echo_json(rows) if as_json else echo(table.markdown(rows).rstrip())
        return
    longest = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        echo(in_lines(f"{row['name']:<{longest}}  ", f"{row['what']}  [{row['package']}]"))


@main.command()
@click.argument("name")
def show(name: str) -> None:
    """One encoding, task, suite or claim, whole."""
    from posenc.plan import catalogue

    echo(catalogue.show(name))


@main.command()
@click.argument("suite")
@choice_options
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), help="TFLOP/s that training reaches, for the estimate of time."
)
@as_json_option
def plan(suite: str, choice: Any, speed: float | None, as_json: bool) -> None:
    """The cells of SUITE, their size and estimated time; runs nothing."""
    from posenc.plan.selection import find_suite, require_known

    require_known(found := find_suite(suite), choice)  # a slip of the hand is told before anything slow is loaded
    from posenc.plan import overview
    from posenc.plan import plan as planning

    made = planning.make(found, choice, need_data=False)
    cells = overview.planned(made, speed, choice.data)
    if as_json:
        echo_json(overview.data(made, cells))
    else:
        overview.print_plan(made, cells, speed)


@main.command()
@click.argument("suite")
@choice_options
@means_options
@results_option
def run(suite: str, choice: Any, means: Any, results: Path) -> None:
    """Run what is missing of SUITE (a suite, a TOML file, or a task), and write its report."""
    _run(suite, choice, means, results)


@main.command()
@click.argument("claim", metavar="CLAIM")
@choice_options
@means_options
@results_option
def claim(claim: str, choice: Any, means: Any, results: Path) -> None:
    """Test one CLAIM (by name, or the TOML file of your own): run what is missing, and write its ledger and report."""
    from posenc.plan.selection import find_claim

    _run(find_claim(claim), choice, means, results)


def _run(suite: str, choice: Any, means: Any, results: Path) -> None:
    from posenc.plan.selection import find_suite, require_known

    require_known(find_suite(suite), choice)  # a slip of the hand is told before anything slow is loaded
    from posenc.common.terminal import of_width
    from posenc.common.text import masked
    from posenc.report import terminal_table
    from posenc.running import driver

    command = masked(shlex.join(["posenc", *sys.argv[1:]]))
    outcome = driver.run(suite, choice=choice, means=means, results=results, command=command, say=click.echo)
    of_width(100).print(terminal_table(outcome.store))
    _print_failed(outcome.failed)
    echo(f"report: {outcome.report}")
    _print_unread(outcome.report)
    if outcome.stopped:
        echo("stopped; the same command goes on where it was left")
    sys.exit(outcome.exit_status)


def _print_failed(failed: list[dict[str, Any]]) -> None:
    from posenc.records.record import STATUSES

    for record in failed:
        echo(f"{STATUSES[record['status']]}: {record['name']}: {record.get('reason')}")


def _print_unread(page: Path | None) -> None:
    """What a report could not read or draw."""
    from posenc.report import unread

    for line in unread(page.parent) if page else ():
        echo(f"not in the report: {line}", err=True)


@main.command()
@click.argument("suite")
@results_option
@as_json_option
def status(suite: str, results: Path, as_json: bool) -> None:
    """How many cells of SUITE's last run are done, failed, running, started and not ended, left, or by other code."""
    from posenc.running.status import COUNTED
    from posenc.running.status import status as status_of

    found = status_of(suite, results)
    if as_json:
        echo_json(found.data())
        return
    for key, words in COUNTED.items():
        echo(f"{words:<13} {found.counts[key]}")
    if found.holder is not None:
        who = found.holder
        where = f"{who.get('process', '?')} on {who.get('host', '?')}"
        echo(f"run now by process {where}: {who.get('command', '?')}")
    for line in found.unusable:
        echo(line)
    _print_failed(found.failed)


@main.command()
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@results_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Where the report goes; of one folder by default beside its records.",
)
def report(suites: Sequence[str], results: Path, output: Path | None) -> None:
    """The report of SUITE, or of a results folder, made again from its records.

    Of several folders (other machines, other seeds of one suite) one report is made. A folder of published results is
    read from its records.tar.xz.
    """
    from posenc.records.published import is_published
    from posenc.records.together import together
    from posenc.report import write_report

    if len(suites) > 1 and output is None:
        raise ConfigError("--output: must say where the report of several folders goes")
    if output is None and is_published(Path(suites[0])):
        raise ConfigError(f"--output: must say where the report goes: that in {suites[0]} is published, and stays")
    store = together([_store_of(suite, results) for suite in suites])
    page = write_report(store, output or store.folder / "report")
    echo(page)
    _print_unread(page)


def _store_of(given: str, results: Path) -> Any:
    """The results of a suite, those in a folder, or published ones, which are unpacked while the command runs."""
    from tempfile import TemporaryDirectory

    from posenc.records.published import is_published, unpacked
    from posenc.records.store import Store
    from posenc.running.status import store_for

    if is_published(Path(given)):
        return unpacked(Path(given), Path(click.get_current_context().with_resource(TemporaryDirectory())))
    return Store(given) if (Path(given) / "suite.json").is_file() else store_for(given, results)


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@results_option
@click.option("--output", type=click.Path(path_type=Path), help="Also write it there, as Markdown and CSV.")
@as_json_option
def compare(first: str, second: str, results: Path, output: Path | None, as_json: bool) -> None:
    """What changed from A to B, each a suite or a results folder, and how the scores moved, cell by cell."""
    from posenc.common.terminal import of_width
    from posenc.report import compare as comparing

    found = comparing.compare(_store_of(first, results), _store_of(second, results))
    written = comparing.write(found, output) if output else ()
    if as_json:
        echo_json(comparing.data(found))
        return
    of_width(100).print(comparing.terminal(found))
    for path in written:
        echo(path)


@main.command()
@click.argument("cell")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(EXPORTED),
    default="posenc",
    show_default=True,
    help="Who reads it: posenc.load, or transformers' from_pretrained.",
)
@results_option
def export(cell: str, folder: Path, to: str, results: Path) -> None:
    """The kept model of CELL (a name or an id), with its card, into a new FOLDER that can be taken elsewhere."""
    from posenc.trained import exported, load_of_any

    exported.write(load_of_any(results, cell), folder, to)
    echo(folder)


def _require_folder(option: str, file: Path | None) -> None:
    """Before anything is measured that would then find no place."""
    if file is not None and not file.absolute().parent.is_dir():
        raise ConfigError(f"{option} {file}: no such folder")


@main.command()
@click.argument("encoding")
@click.option("--lengths", callback=integers, help="Look for leaks at these lengths in tokens too.")
@click.option("--suite", help="Look for leaks at the lengths that this suite scores, too.")
@click.option("--rounds", type=click.IntRange(0), default=5, show_default=True, help="Time a step so often; 0: not.")
@click.option(
    "--json",
    "data",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="The card as JSON, and nothing else; with a file, there.",
)
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the card here as a page.")
def check(
    encoding: str, lengths: list[int] | None, suite: str | None, rounds: int, data: Path | None, page: Path | None
) -> None:
    """Does ENCODING do what it declares? Measured on small models in float64, at the multiples that suites score."""
    from posenc.bench import card

    _require_folder("--json", data)
    _require_folder("--html", page)
    made = card.measure(encoding, lengths, suite, rounds, silent=data == card.STANDARD_OUTPUT)
    made.write(data, page)
    sys.exit(0 if made.passed else 3)


@main.command()
@click.option("--encodings", callback=names, help="These instead of all built-in ones: a,b(option=1),c+d.")
@click.option("--attention", "attentions", callback=attentions, default="softmax,performer", show_default=True)
@click.option("--lengths", callback=integers, default="512", show_default=True, help="Tokens in each row.")
@click.option("--rows", type=int, default=0, help="Rows of a batch.  [default: 2, and 32 of bert-base]")
@click.option(
    "--size", type=click.Choice(SIZES), default="small", show_default=True, help="bert-base: an encoder, for a GPU."
)
@click.option(
    "--compile",
    type=click.Choice(COMPILE),
    default="none",
    show_default=True,
    help="Of posenc's steps, which have no optimiser here; cudagraphs: Inductor, each pass a graph.",
)
@click.option("--compile-limit", type=float, default=120, show_default=True, help="Seconds for each subject; 0: any.")
@click.option("--rounds", type=int, default=20, show_default=True, help="How often each subject is timed.")
@click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True, help="Where it is timed.")
@click.option(
    "--dtype", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="bfloat16: by autocast."
)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="Of softmax attention.")
@click.option("--threads", type=int, default=1, show_default=True, help="CPU threads.")
@click.option("--peers/--no-peers", default=True, help="Other libraries too (the extra posenc[peers]).")
@click.option("--memory/--no-memory", default=True, help="Peak memory too, each in a process of its own.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here as JSON.")
def bench(file: Path | None, encodings: list[str] | None, **given: Any) -> None:
    """Speed and memory of encodings and attention, in turns, beside none, a bare decoder and other libraries."""
    from posenc.api import registry
    from posenc.bench import pipeline, run
    from posenc.common.terminal import not_shown, of_width

    options = run.Options(encodings=encodings or list(registry.BUILT_IN), **given)
    _require_folder("--json", file)
    rows = run.measure(options, lambda line: echo(line, err=True))
    if file is not None:
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    console = of_width(120)
    made = run.tables(rows, console)
    for table in made:
        console.print(table)
    missing = run.spared(made)
    for line in (
        *([not_shown(missing)] if missing else ()),
        *run.left_out(rows),
        run.FORMULA,
        pipeline.measure(options.rounds, options.device).said(),
    ):
        echo(line)


def _new(kind: str, what: str) -> None:
    """The command that writes a package of a kind."""

    @main.command(f"new-{kind}", help=f"Write a package with {what}, to be changed into your own.")
    @click.argument("name")
    @click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where it goes.")
    def command(name: str, folder: Path) -> None:
        for path in scaffold.new(kind, name, folder):
            echo(path)


for _kind, _brought in scaffold.KINDS.items():
    _new(_kind, _brought.help)


@main.command()
@click.argument("suite")
@results_option
def sync(suite: str, results: Path) -> None:
    """Rebuild what MLflow shows of SUITE from its records."""
    from posenc.common.text import masked
    from posenc.running.status import store_for
    from posenc.tracking import mirror as tracking

    uri = tracking.default_uri(results.absolute())
    echo(f"{tracking.sync(store_for(suite, results), uri)} cells in {masked(uri)}")


@main.command()
@results_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="0: any that is free.")
@click.option("--no-open", is_flag=True, help="Open no browser.")
def ui(results: Path, host: str, port: int, no_open: bool) -> None:
    """Serve MLflow's pages on the results, on this machine alone unless told otherwise.

    The page of the suite that ran last opens in a browser, where there are a terminal and a display.
    """
    from posenc.tracking.pages import can_open
    from posenc.tracking.place import default_uri
    from posenc.tracking.ui import serve

    uri = default_uri(results.absolute())
    if uri.startswith("sqlite:") and not (results / "mlflow.db").is_file():
        raise UnknownNameError("results folder", str(results), [], "--results: no mlflow.db in it, run a suite first")
    sys.exit(serve(uri, host, port, echo, browse=not no_open and can_open()))
