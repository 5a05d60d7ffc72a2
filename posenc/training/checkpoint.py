"""Weights on disk: where a long cell goes on, and what another cell starts from.

Written whole or not at all, all of it on the CPU, read without running any code. A checkpoint holds its own digest: one
with a flipped bit would be read without a word and train on to other numbers.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from posenc.common.errors import StorageError, StoreError
from posenc.common.files import write_atomically

MAGIC = b"posenc checkpoint 1\n"
"""How a checkpoint begins; then 64 hex digits of SHA-256 over what follows them."""


def on_cpu(value: Any) -> Any:
    """The same with every tensor on the CPU: what a GPU made can be read, and averaged, without one."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: on_cpu(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(one) for one in value)
    return value


def previous(path: Path) -> Path:
    """Where the checkpoint before lies, until the next is whole."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, texts, lists and dictionaries of them; the one before is kept beside it.

    Raises:
        StorageError: the disk is full; what lay there before still lies there.
    """
    if path.is_file():
        try:
            os.replace(path, previous(path))
        except OSError as error:
            raise StorageError(path, error) from None
    write_atomically(path, lambda file: _sealed(on_cpu(state), file))


class _Summed(io.RawIOBase):
    """A file that is only written to, the digest of what was, and why it could not be, which torch says in its way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sum = file, sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self.sum.update(part)
        try:
            return self.file.write(part)
        except OSError as error:
            self.error = error
            raise


def _streamed(value: Any, file: BinaryIO) -> str:
    """Write as torch does, a tensor at a time. Returns the digest of what was written."""
    summed = _Summed(file)
    try:
        torch.save(value, cast(BinaryIO, summed))
    except RuntimeError:
        if summed.error is not None:
            raise summed.error from None
        raise
    return summed.sum.hexdigest()


def _sealed(state: dict[str, Any], file: BinaryIO) -> None:
    """Write a state and before it, once that is known, its digest."""
    file.write(MAGIC + bytes(64))
    found = _streamed(state, file)
    file.seek(len(MAGIC))
    file.write(found.encode())


def load(path: Path, cell_id: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest state that `save` wrote for this cell and that is whole, if any; and why newer ones were refused."""
    refused: list[str] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            return _checked(candidate, cell_id), refused
        except StoreError as error:
            refused.append(str(error))
    return None, refused


def remove(path: Path) -> None:
    """Delete a cell's checkpoints."""
    for one in (path, previous(path)):
        one.unlink(missing_ok=True)


def _checked(path: Path, cell_id: str) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"checkpoint {path} cannot be read ({error.strerror})") from None
    head, raw = len(MAGIC) + 64, content[len(MAGIC) + 64 :]
    if content[:head] != MAGIC + sha256(raw).hexdigest().encode():
        raise StoreError(f"checkpoint {path} is not what was written: damaged, or another program's")
    state = _read(io.BytesIO(raw), path, "")
    if not isinstance(state, dict) or state.get("cell") != cell_id:
        raise StoreError(f"checkpoint {path} is not of cell {cell_id}")
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write named tensors, on the CPU, as `torch.load` reads them.

    Raises:
        StorageError: the disk is full; what lay there before still lies there.
    """
    write_atomically(path, lambda file: _streamed(on_cpu(dict(weights)), file))


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of named tensors, whatever their device."""
    found = sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def load_weights(path: Path, wanted: str) -> dict[str, Tensor]:
    """Weights that `save_weights` wrote, held to the digest that their cell's record has of them.

    Raises:
        StoreError: they are missing, damaged, or not those of the record.
    """
    advice = "`--rerun all` trains that cell again"
    if not path.is_file():
        raise StoreError(f"the weights {path} are not there: {advice}")
    weights = _read(path, path, f": {advice}")
    tensors = isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values())
    if not tensors or digest(weights) != wanted:
        raise StoreError(f"the weights {path} are not those that the record beside them tells of: {advice}")
    loaded: dict[str, Tensor] = weights
    return loaded


def _read(source: Path | io.BytesIO, path: Path, advice: str) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"checkpoint {path} cannot be used ({first}){advice}") from None
