"""What there is, for people: lists, descriptions, plans and findings, as the command line prints them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc import registry
from posenc.checked import read_toml
from posenc.config import available
from posenc.errors import PosencError, UnknownNameError
from posenc.plan import Plan, portions
from posenc.properties import Finding

DEFAULT_SPEED = {"cpu": 0.02, "cuda": 100.0}
"""Round figures: TFLOP/s that small models reach in training on one core, and large ones in bf16 on a GPU."""


def rows(kind: str) -> list[dict[str, str]]:
    """Name, what it is, and package of every encoding, task or suite. A broken plug-in is a row that says so."""
    if kind == "encodings":
        found = []
        for name, entry in sorted(registry.entries().items()):
            try:
                what = registry.load(name).title
            except PosencError as error:
                what = f"broken: {error}"
            found.append({"name": name, "what": what, "package": entry.package})
        return found
    package = registry.entries()["none"].package
    titles = {name: str(read_toml(path).get("title", "")) for name, path in available(kind).items()}
    return [{"name": name, "what": title, "package": package} for name, title in titles.items()]


def show(name: str) -> str:
    """An encoding's documentation and declarations, or a task's or suite's TOML.

    Raises:
        UnknownNameError: nothing has this name.
    """
    for kind in ("suites", "tasks"):
        path = available(kind).get(name)
        if path:
            return f"# {path}\n{path.read_text(encoding='utf-8')}"
    if name not in registry.entries():
        raise UnknownNameError("name", name, [*registry.entries(), *available("tasks"), *available("suites")])
    encoding = registry.load(name)
    entry = registry.entries()[name]
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
        "from": f"{entry.target} of {entry.package}",
        "options": "; ".join(options) or "none",
    }
    lines = [f"{name}: {encoding.title}", "", (encoding.__doc__ or "").strip(), ""]
    return "\n".join(lines + [f"{key + ':':<27}{value}" for key, value in declared.items()])


def print_plan(plan: Plan, speed: float | None) -> None:
    """Cells with parameters, tokens, FLOPs and estimated hours, and totals."""
    from posenc import cost
    from posenc.backbone.config import BackboneConfig
    from posenc.checked import validate

    table = Table(title=f"{plan.suite.name} at scale {plan.suite.scale}: {len(plan.cells)} cells")
    for column in ("cell", "backend", "parameters", "positional", "tokens", "training FLOPs", "hours"):
        table.add_column(column, justify="left" if column in ("cell", "backend") else "right", overflow="fold")
    total_flops = total_hours = 0.0
    rates = set()
    names = {cell.id: cell.name for cell in plan.cells}
    for cell in plan.cells:
        name = Text(cell.name + (f"\n  after {names[cell.parent]}" if cell.parent else ""))
        if cell.why_not:
            table.add_row(name, Text(cell.why_not), *[""] * 5)
            continue
        backbone = validate(BackboneConfig, cell.config["backbone"], {}, "cell")
        config = cell.config
        tokens, flops = 0, 0.0
        for part, length in portions(config):
            parameters, per_token = cost.count(backbone, config["encoding"]["name"], length, config["max_length"])
            tokens, flops = tokens + part, flops + 3 * per_token * part
        device = "cuda" if config["scale"] == "paper" else config["runtime"]["device"]  # nobody trains those on a CPU
        rate = speed or DEFAULT_SPEED[device]
        rates.add(rate)
        hours = flops / rate / 1e12 / 3600
        total_flops, total_hours = total_flops + flops, total_hours + hours
        counts = (f"{parameters['total']:,}", f"{parameters['positional']:,}", f"{tokens:,}")
        table.add_row(name, cell.backend, *counts, f"{flops:.2e}", f"{hours:.2f}")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
    reached = " or ".join(f"{rate:g}" for rate in sorted(rates))
    console.print(
        f"together {total_flops:.2e} FLOPs, {total_hours:.2f} hours one after another at {reached} TFLOP/s"
        + ("" if speed else " (0.02: one core; 100: a GPU in bf16; --speed sets it)")
    )
    missing = {cell.config["data"]["source"] for cell in plan.cells if cell.config["data"]["digest"] == "not at hand"}
    for source in sorted(missing):
        console.print(f"data {source!r} is not at hand: running needs --data DIR", highlight=False)


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
