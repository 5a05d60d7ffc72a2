"""The curve of a cell: what it wrote while it trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posenc.common.errors import StorageError
from posenc.common.files import canonical, write_atomically


class Curve:
    """The cell's curve file: a row an event, each whole line written at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> int:
        """Forget what was written after a step: the cell goes on from there. Returns how many rows were damaged.

        Those are left out: a row is for people, and no number of the cell hangs on it.
        """
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        steps = [_step_of(line) for line in lines]
        kept = [line for line, own in zip(lines, steps, strict=True) if own is not None and own <= step]
        write_atomically(self.path, b"".join(line + b"\n" for line in kept))
        return steps.count(None)

    def append(self, row: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(canonical(row) + "\n")
        except OSError as error:
            raise StorageError(self.path, error) from None


def _step_of(line: bytes) -> int | None:
    """The step of a row; None where it is no row."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if isinstance(step, int) and not isinstance(step, bool) else None
