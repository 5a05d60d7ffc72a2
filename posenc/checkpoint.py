"""Weights on disk: where a long cell goes on, and what another cell starts from.

Written whole or not at all, read without running any code.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posenc.errors import StoreError
from posenc.store import write_atomically

SECONDS = 60.0
"""Seconds of training between two checkpoints, by default: what a killed cell loses at most."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dictionaries of them.

    Raises:
        StorageError: the disk is full; what lay there before still lies there.
    """
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
    state = _read(path, advice)
    if not isinstance(state, dict) or state.get("cell") != cell_id:
        raise StoreError(f"checkpoint {path} is not of cell {cell_id}: {advice}")
    return state


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of named tensors, whatever their device."""
    found = sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def load_weights(path: Path, wanted: str) -> dict[str, Tensor]:
    """Weights that `save` wrote, held to the digest that their cell's record has of them.

    Raises:
        StoreError: they are missing, damaged, or not those of the record.
    """
    advice = "`--rerun all` trains that cell again"
    if not path.is_file():
        raise StoreError(f"the weights {path} are not there: {advice}")
    weights = _read(path, advice)
    tensors = isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())
    if not tensors or digest(weights) != wanted:
        raise StoreError(f"the weights {path} are not those that the record beside them tells of: {advice}")
    loaded: dict[str, Tensor] = weights
    return loaded


def _read(path: Path, advice: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"checkpoint {path} cannot be used ({first}): {advice}") from None
