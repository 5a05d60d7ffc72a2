"""What goes to a terminal: whatever names, reasons and files hold, nothing of it acts there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from posenc.common.text import harmless


class Terminal(Console):
    """rich's console, in which text is neither markup nor control: only rich itself colours and moves."""

    def __init__(self, **given: Any) -> None:
        super().__init__(markup=False, **given)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def of_width(width: int) -> Terminal:
    """Standard output, as wide as its terminal or as COLUMNS says; elsewhere of a width of its own, so that logs are
    all alike.
    """
    return Terminal(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else width)


def natural_width(renderable: RenderableType, console: Console, options: ConsoleOptions | None = None) -> int:
    """How many columns something takes where nothing of it is folded."""
    wide = (options or console.options).update(max_width=100_000)
    return Measurement.get(console, wide, renderable).maximum


def not_shown(columns: Sequence[str]) -> str:
    """What is said of columns that were left out."""
    return f"Not shown, for want of room: {', '.join(columns)}. A wider terminal shows them, and --json."


def fitted(
    make: Callable[[Sequence[str]], Table], columns: Sequence[str], spare: Sequence[str], console: Console
) -> tuple[Table, list[str]]:
    """A table with as many of its columns as a terminal has room for.

    Args:
        make: the table, of some of `columns`. spare: those that may be left out, the first to go first.

    Returns:
        The table, and the columns that were left out.
    """
    left = list(columns)
    waiting = list(spare)
    table = make(left)
    while waiting and natural_width(table, console) > console.width:
        left.remove(waiting.pop(0))
        table = make(left)
    return table, [column for column in columns if column not in left]
