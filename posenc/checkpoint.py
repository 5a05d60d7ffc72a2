"""Where a long cell goes on: its state on disk, written whole or not at all, read without running any code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from posenc.errors import StoreError
from posenc.store import write_atomically

SECONDS = 60.0
"""Training seconds between two checkpoints: what a killed cell loses at most."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dictionaries of them."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, cell_id: str) -> dict[str, Any] | None:
    """What `save` wrote for this cell; None where there is none.

    Raises:
        StoreError: it is damaged, holds more than plain values, or belongs to another cell.
    """
    if not path.is_file():
        return None
    advice = "`--rerun failed` starts the cell anew"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"checkpoint {path} cannot be used ({first}): {advice}") from None
    if not isinstance(state, dict) or state.get("cell") != cell_id:
        raise StoreError(f"checkpoint {path} is not of cell {cell_id}: {advice}")
    return state
