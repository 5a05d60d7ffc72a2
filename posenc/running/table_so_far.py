"""In a terminal, the table so far after each seed: a first comparison stands long before the suite has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.text import Text

from posenc.plan.cell import Cell
from posenc.records.store import Store
from posenc.report import terminal_table
from posenc.running.progress import Progress


class SoFar:
    """Watches the seeds of a run's cells.

    Args:
        cells: those that are to run.
    """

    def __init__(self, progress: Progress, store: Store, cells: Iterable[Cell]) -> None:
        self.progress, self.store = progress, store
        self.left = Counter(cell.config.get("seed") for cell in cells)
        self.seeds = len(self.left)

    def ended(self, cell: Cell) -> None:
        """A cell has ended. Where it was the last of its seed, and not of the run, the table is shown."""
        seed = cell.config.get("seed")
        self.left[seed] -= 1
        waiting = sum(count > 0 for count in self.left.values())
        if self.left[seed] == 0 and waiting and self.progress.console.is_terminal:
            self.progress.show(
                Text(f"\nSo far, with seed {seed}: {self.seeds - waiting} of {self.seeds} seeds are done")
            )
            try:
                self.progress.show(terminal_table(self.store))
            except Exception as error:  # the run goes on, and its report will say what is wrong
                self.progress.say(f"the table so far cannot be made: {error}")
