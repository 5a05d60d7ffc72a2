"""What a report was made from and which files it wrote: by this it is known as its own, and whether it is up to date.

Nothing heavy is imported here: to see that nothing has changed takes no pandas and no figure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from posenc.api import sections
from posenc.api.source_code import digest_of_package
from posenc.common.errors import StoreError
from posenc.common.files import canonical
from posenc.common.paths import content
from posenc.records.store import Store

LIST = "files.json"
"""Beside the report: {"inputs": digest, "files": names, "unread": lines, "undrawn": letters}."""
WRITTEN = ("index.html", "report.md")


def inputs(store: Store) -> str:
    """The digest (hex) of all that a report is made from: manifest, cells' files, bench, code, libraries."""
    found = sha256()
    for path in (*store.manifest_paths, store.folder.parent / "bench.json", *_files_of_cells(store)):
        found.update(f"{os.path.relpath(path, store.folder.parent)}\0".encode())
        found.update(_digest_of(path))
    own = content("reports")
    for path in sorted([*Path(__file__).parent.rglob("*.py"), *own.glob("*.*"), *own.glob("templates/*")]):
        found.update(path.read_bytes())
    for entry in sections.entries().values():  # those of other packages, and what their code is known by
        if entry.target != sections.BUILT_IN.get(entry.name):
            code = digest_of_package(entry.target.partition(":")[0])
            found.update(canonical([entry.name, entry.target, entry.package, code]).encode())
    for package in ("posenc", "matplotlib", "pandas", "scipy", "seaborn"):
        found.update(metadata.version(package).encode())
    return found.hexdigest()


def _digest_of(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except (FileNotFoundError, NotADirectoryError):
        return b"none"
    except OSError as error:  # the report names it
        return f"not readable: {error.errno}".encode()


def _files_of_cells(store: Store) -> Iterable[Path]:
    for cell in store.read_manifest()["cells"]:
        folder = store.cell_folder(cell["id"])
        yield from (folder / name for name in ("record.json", "curve.jsonl", "items.npz"))


def read(output: Path) -> dict[str, Any] | None:
    """What a report in this folder says of itself; None where none is there."""
    try:
        told = json.loads((output / LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("files"), list):
        return None
    return told


def is_fresh(store: Store, output: Path) -> bool:
    """Whether a report of these very inputs lies in the folder, whole."""
    told = read(output)
    if told is None or not all(isinstance(name, str) and (output / name).is_file() for name in told["files"]):
        return False
    return bool(told.get("inputs") == inputs(store)) and not _can_be_drawn_now(told.get("undrawn"))


def _can_be_drawn_now(letters: Any) -> bool:
    """Whether a font has been installed since."""
    if not isinstance(letters, list) or not letters:
        return False
    from posenc.report.figures import fonts

    return fonts.undrawn("".join(map(str, letters))) != letters


def require_own(store: Store, output: Path) -> None:
    """The folder must be new, a report's, or the store's own: what somebody else wrote there is not written over.

    Raises:
        StoreError: a file of the user's has a name that a report writes.
    """
    told = read(output)
    if told is not None or output.absolute().is_relative_to(store.folder):
        return
    for name in WRITTEN:
        if (output / name).exists():
            raise StoreError(
                f"{output / name} was not written by a report: name another folder with --output, or move the file"
            )


def superseded(output: Path, names: Iterable[str]) -> list[Path]:
    """Files that an earlier report listed and this one does not write: beside this one they would only mislead."""
    told = read(output) or {"files": []}
    old = {name for name in told["files"] if isinstance(name, str)} - {*names}
    inside = [output / name for name in sorted(old) if not Path(name).is_absolute() and ".." not in Path(name).parts]
    return [path for path in inside if path.is_file()]
