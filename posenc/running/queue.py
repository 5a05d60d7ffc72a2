"""Which cell runs next: in the plan's order, each after the one that it starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from posenc.plan.cell import Cell

TRIES = 2
"""How often a cell is tried whose worker is killed: once more after the first time."""


class Schedule:
    """The cells that are still to run.

    Args:
        cells: in the order wanted.
        ended: the status of cells that ended before, by id.
    """

    def __init__(self, cells: Sequence[Cell], ended: Mapping[str, str]) -> None:
        self._waiting = list(cells)
        self._status = dict(ended)
        self._tries: Counter[str] = Counter()
        self._left = {cell.id for cell in cells}

    def take(self) -> Cell | None:
        """The next cell that can start now, None where none can."""
        for index, cell in enumerate(self._waiting):
            if cell.parent is None or self._status.get(cell.parent) == "done":
                self._tries[cell.id] += 1
                return self._waiting.pop(index)
        return None

    def again(self, cell: Cell) -> bool:
        """Put a cell whose worker was killed first in the row once more; False where it has had its tries."""
        if self._tries[cell.id] >= TRIES:
            return False
        self._waiting.insert(0, cell)
        return True

    def end(self, cell: Cell, status: str) -> None:
        """A cell has its record."""
        self._status[cell.id] = status
        self._left.discard(cell.id)

    @property
    def unfinished(self) -> bool:
        """Whether a cell has no record yet."""
        return bool(self._left)

    def barred(self) -> list[Cell]:
        """Take out the cells that can never start, since their parent ended otherwise than well."""
        found = [cell for cell in self._waiting if cell.parent and self._status.get(cell.parent, "done") != "done"]
        self._waiting = [cell for cell in self._waiting if cell not in found]
        return found
