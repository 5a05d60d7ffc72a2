"""The group of all commands: what it prints of errors, and where nobody reads."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from posenc.common.errors import PosencError
from posenc.common.text import as_json, harmless

CLOSED_PIPE = 141
"""What a shell says of a program that wrote to a pipe nobody reads any more (128 + SIGPIPE)."""
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def echo(text: object, *, err: bool = False) -> None:
    """A line for people, in which nothing of what files and packages say acts on a terminal."""
    click.echo(harmless(text), err=err)


def in_lines(head: str, text: str) -> str:
    """A text behind a head, folded under itself at the terminal's width; one line where there is no terminal."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()):
        return head + text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, max(width, len(head) + 20), initial_indent=head, subsequent_indent=" " * len(head))


def echo_json(value: Any) -> None:
    """A value for programs: the whole of what a command prints on standard output."""
    click.echo(as_json(value))


@contextmanager
def silent_when_closed() -> Iterator[None]:
    """End as usual tools do where nobody reads what is said, `posenc status | head -1`: no word, status 141."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:  # rich exits by itself
        if not isinstance(error if isinstance(error, BrokenPipeError) else error.__context__, BrokenPipeError):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # what is still held back would fail at the end of the process
        sys.exit(CLOSED_PIPE)


class Group(click.Group):
    """Prints a PosencError in a line or two and exits with 2; 130 after Ctrl-C, with how to go on.

    It ends silently where nobody reads what it says.
    """

    def make_context(self, *arguments: Any, **given: Any) -> click.Context:
        with silent_when_closed():  # --help is printed here
            return super().make_context(*arguments, **given)

    def invoke(self, ctx: click.Context) -> Any:
        from posenc.common.text import masked

        try:
            with silent_when_closed():
                return super().invoke(ctx)
        except PosencError as error:
            echo(masked(f"posenc: {error}"), err=True)
            ctx.exit(error.exit_status)
        except KeyboardInterrupt:
            command = masked(shlex.join(["posenc", *sys.argv[1:]]))
            how = {"run": f"; `{command}` again goes on where it stopped", "report": f"; `{command}` makes it again"}
            click.echo(f"\nposenc: stopped{how.get(ctx.invoked_subcommand or '', '')}", err=True)
            ctx.exit(130)
