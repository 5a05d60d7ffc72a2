"""What there is, for people: lists, descriptions and findings, as the command line prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from posenc.api import registry
from posenc.api.entry_points import own_package
from posenc.common.errors import ConfigError, PosencError, UnknownNameError
from posenc.common.toml import read_toml
from posenc.config.places import CLAIMS, available, brought_tasks
from posenc.plan.selection import Selection, find_suite

if TYPE_CHECKING:
    from posenc.properties.check import Finding


def rows(kind: str) -> list[dict[str, str]]:
    """Name, what it is, and package of every encoding, task, suite or claim. A broken plug-in is a row that says so."""
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
    """An encoding's documentation and declarations, or the TOML of a task, suite or claim.

    Raises:
        UnknownNameError: nothing has this name.
    """
    for kind in ("suites", "tasks", CLAIMS):
        path = available(kind).get(name)
        if path:
            return f"# {path}\n{path.read_text(encoding='utf-8')}"
    spec = registry.parse(name)[0] if ".py:" in name else registry.Spec(name)
    if not spec.file and name not in registry.entries():
        known = [one for kind in ("tasks", "suites", CLAIMS) for one in available(kind)]
        raise UnknownNameError("name", name, [*registry.entries(), *known])
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


def lengths_scored(suite: str, longest: int) -> list[int]:
    """The lengths in tokens at which a suite's cells are scored, up to `longest`.

    Raises:
        PosencError: no such suite, or something is wrong in it.
    """
    from posenc.plan.plan import make

    cells = [cell.settings for cell in make(find_suite(suite, "--suite"), Selection(), need_data=False).cells]
    found = {longer for cell in cells for longer in cell.evaluation.lengths(cell.length)}
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
