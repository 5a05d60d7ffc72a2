"""What there is, for people: lists, descriptions, plans and findings, as the command line prints them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc.api import registry
from posenc.api.entries import own_package
from posenc.common.errors import ConfigError, PosencError, UnknownNameError
from posenc.common.terminal import of_width
from posenc.common.toml import read_toml
from posenc.config.places import available, brought_tasks
from posenc.plan.asked import Choice, find_suite

if TYPE_CHECKING:
    from posenc.plan.plan import Plan
    from posenc.properties.check import Finding

DEFAULT_SPEED = {"cpu": 0.02, "cuda": 100.0}
"""Round figures: TFLOP/s that small models reach in training on one core, and large ones in bf16 on a GPU."""


def rows(kind: str) -> list[dict[str, str]]:
    """Name, what it is, and package of every encoding, task or suite. A broken plug-in is a row that says so."""
    if kind == "encodings":
        found = []
        for name, entry in sorted(registry.entries().items()):
            try:
                what = str(registry.load(name).title)
            except PosencError as error:
                what = f"broken: {error}"
            found.append({"name": name, "what": what, "package": entry.package})
        return found
    packages = {name: file.package for name, file in brought_tasks().items()} if kind == "tasks" else {}
    titles = {name: str(read_toml(path).get("title", "")) for name, path in available(kind).items()}
    return [
        {"name": name, "what": title, "package": packages.get(name, own_package())} for name, title in titles.items()
    ]


def long_rows(kind: str) -> list[dict[str, Any]]:
    """What every encoding is, whole.

    Raises:
        ConfigError: another kind was asked for.
    """
    if kind != "encodings":
        raise ConfigError(f"--long: there is a table of encodings, and none of {kind}")
    from posenc.properties import facts

    return facts.rows()


def show(name: str) -> str:
    """An encoding's documentation and declarations, or a task's or suite's TOML.

    Raises:
        UnknownNameError: nothing has this name.
    """
    for kind in ("suites", "tasks"):
        path = available(kind).get(name)
        if path:
            return f"# {path}\n{path.read_text(encoding='utf-8')}"
    spec = registry.parse(name)[0] if ".py:" in name else registry.Spec(name)
    if not spec.file and name not in registry.entries():
        raise UnknownNameError("name", name, [*registry.entries(), *available("tasks"), *available("suites")])
    encoding = registry.load(spec.name)
    source = f"{spec.name}, a file" if spec.file else _source(name)
    options = [
        f"{o.name}: {registry.type_name(o.type)} = {o.default!r}" for o in registry.options_of(encoding).values()
    ]
    declared = {
        "paper": encoding.paper,
        "directions": ", ".join(sorted(encoding.directions)),
        "depends on distance alone": encoding.relative,
        "tells order both ways": encoding.tells_order,
        "keeps norms": encoding.keeps_norms,
        "cached decoding": encoding.cached_decoding,
        "in softmax attention": encoding.softmax_reason or "yes",
        "in a Performer": encoding.linear_form or encoding.linear_reason,
        "version": encoding.version,
        "from": source,
        "options": "; ".join(options) or "none",
    }
    lines = [f"{name}: {encoding.title}", "", (encoding.__doc__ or "").strip(), ""]
    return "\n".join(lines + [f"{key + ':':<27}{value}" for key, value in declared.items()])


def _source(name: str) -> str:
    entry = registry.entries()[name]
    return f"{entry.target} of {entry.package}"


def print_plan(plan: Plan, speed: float | None, folder: Path | None = None) -> None:
    """Cells with parameters, tokens, padding, FLOPs and estimated hours, and totals.

    Args:
        speed: TFLOP/s that training reaches. folder: where official data lie.
    """
    from posenc.backbone import cost
    from posenc.plan.cost import NOT_AT_HAND, Costs, failure

    table = Table(title=f"{plan.suite.name} at scale {plan.suite.scale}: {len(plan.cells)} cells")
    for column in ("cell", "backend", "parameters", "positional", "tokens", "padding", "training FLOPs", "hours"):
        table.add_column(column, justify="left" if column in ("cell", "backend") else "right", overflow="fold")
    total_flops = total_hours = 0.0
    rates = set()
    names = {cell.id: cell.name for cell in plan.cells}
    costs, estimates = Costs(folder), []
    for cell in plan.cells:
        name = Text(cell.name + (f"\n  after {names[cell.parent]}" if cell.parent else ""))
        if cell.why_not:
            table.add_row(name, Text(cell.why_not), *[""] * 6)
            continue
        settings = cell.settings
        try:
            parameters = cost.parameters(settings.backbone, settings.encoding_name, settings.max_length)
            work = costs.work(cell)
            flops = 3 * work.flops(settings)
        except PosencError as error:
            table.add_row(name, Text(failure(error)), *[""] * 6)
            continue
        device = "cuda" if settings.scale == "paper" else settings.runtime.device  # nobody trains those on a CPU
        rate = speed or DEFAULT_SPEED[device]
        rates.add(rate)
        hours = flops / rate / 1e12 / 3600
        total_flops, total_hours = total_flops + flops, total_hours + hours
        about = "~" if work.estimate else ""
        estimates += [f"{settings.task}: {work.estimate}"] if work.estimate else []
        counts = (f"{parameters['total']:,}", f"{parameters['positional']:,}", f"{about}{work.tokens:,.0f}")
        table.add_row(name, cell.backend, *counts, f"{work.padding:.1%}", f"{about}{flops:.2e}", f"{about}{hours:.2f}")
    console = of_width(160)
    console.print(table)
    reached = " or ".join(f"{rate:g}" for rate in sorted(rates))
    about = "about " if estimates else ""
    console.print(
        f"together {about}{total_flops:.2e} FLOPs, {total_hours:.2f} hours one after another at {reached} TFLOP/s"
        + ("" if speed else " (0.02: one core; 100: a GPU in bf16; --speed sets it)")
    )
    for estimate in dict.fromkeys(estimates):
        console.print(f"~ an estimate, {estimate}", highlight=False)
    missing = {cell.settings.data.source for cell in plan.cells if cell.settings.data.digest == NOT_AT_HAND}
    for source in sorted(missing):
        console.print(f"data {source!r} is not at hand: running needs --data DIR", highlight=False)


def lengths_scored(suite: str, longest: int) -> list[int]:
    """The lengths in tokens at which a suite's cells are scored, up to `longest`.

    Raises:
        PosencError: no such suite, or something is wrong in it.
    """
    from posenc.plan.plan import make

    cells = [cell.settings for cell in make(find_suite(suite, "--suite"), Choice(), need_data=False).cells]
    found = {cell.length * by for cell in cells for by in cell.evaluation.length_factors}
    return sorted(length for length in found if 2 <= length <= longest)


def print_findings(encoding: str, findings: Sequence[Finding], console: Console) -> None:
    """What was declared against what was measured."""
    table = Table(title=Text(encoding))
    for column in ("", "property", "declared", "measured"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        mark = {True: "ok", False: "FAILED", None: "-"}[finding.passed]
        measured = finding.measured if finding.passed is not None else finding.why
        if finding.passed is False and finding.why:
            measured = f"{measured} ({finding.why})" if measured else finding.why
        table.add_row(mark, Text(f"{finding.name}: {finding.what}"), Text(finding.declared), Text(measured))
    console.print(table)
    failed = [finding.name for finding in findings if finding.passed is False]
    console.print(f"does not do what it declares: {', '.join(failed)}" if failed else "does what it declares")
