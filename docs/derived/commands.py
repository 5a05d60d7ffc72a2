"""The command line, its exit statuses and the extras, from the code."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import click

from derived.text import code, table
from posenc.cli import commands as cli


def every() -> str:
    """Each command with its options."""
    top = click.Context(cli.main, info_name="posenc")
    found = []
    for name, command in cli.main.commands.items():
        context = click.Context(command, info_name=name, parent=top)
        usage = command.get_usage(context).removeprefix("Usage: ")
        rows = [
            (code(record[0]), record[1])
            for parameter in command.params
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
        ]
        lines = [f"### posenc {name}", f"```text\n{usage}\n```", inspect.cleandoc(command.help or "")]
        found.append("\n\n".join([*lines, *([table(("option", "meaning"), rows)] if rows else [])]))
    return "\n\n".join(found)


def statuses() -> str:
    """The exit statuses, as the command line's own file says them."""
    said = " ".join((cli.__doc__ or "").split())
    rows = re.findall(r"(\d+) ([^;.]+)[;.]", said.partition("Exit status: ")[2])
    return table(("exit status", "meaning"), [(code(number), text) for number, text in rows])


def extras() -> str:
    """The optional dependencies of the package."""
    project = Path(__file__).parent.parent.parent / "pyproject.toml"
    found = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return table(
        ("extra", "brings"), [(code(f"posenc[{name}]"), ", ".join(map(code, wants))) for name, wants in found.items()]
    )
