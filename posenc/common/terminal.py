"""What goes to a terminal: whatever names, reasons and files hold, nothing of it acts there."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from posenc.common.text import harmless


class Terminal(Console):
    """rich's console, in which text is neither markup nor control: only rich itself colours and moves."""

    def __init__(self, **given: Any) -> None:
        super().__init__(markup=False, **given)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def of_width(width: int) -> Terminal:
    """Standard output, as wide as its terminal; elsewhere of a width of its own, so that logs are all alike."""
    return Terminal(width=None if sys.stdout.isatty() else width)
