"""Where encodings' code lies: classes in files that no package brings, and what a plug-in's code is known by."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from posenc.common.errors import PluginError

_loaded: dict[str, Any] = {}
"""Modules made from files, by their digests and paths: a file that has changed is another module."""


@contextlib.contextmanager
def quiet_output() -> Iterator[None]:
    """What is printed meanwhile goes to standard error: standard output is for what the command answers."""
    kept = None
    with contextlib.suppress(OSError, ValueError, AttributeError):  # one of the two is closed, or is no file
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def read(path: Path, name: str, where: str = "") -> bytes:
    """The source in a file.

    Raises:
        PluginError: there is none, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        place = f" ({where})" if where else ""
        cause = getattr(error, "strerror", None) or str(error)
        raise PluginError(f"encoding {name!r}{place}: {path} cannot be read: {cause}") from None


def digest_of_file(path: Path, name: str, where: str = "") -> str:
    """SHA-256 (hex) of a file with encodings: part of the identity of each."""
    return hashlib.sha256(read(path, name, where)).hexdigest()


def module_of_file(path: Path, name: str, where: str = "") -> Any:
    """The module in a file, run once as long as the file stays the same.

    Raises:
        PluginError: it cannot be read. What the file itself raises passes through.
    """
    source = read(path, name, where)
    whole = os.path.abspath(path)
    known = f"{hashlib.sha256(source).hexdigest()[:16]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
    if known not in _loaded:
        title = f"posenc_file_{known}"
        spec = importlib.util.spec_from_loader(title, loader=None, origin=str(path))
        if spec is None:
            raise ImportError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(spec)
        module.__file__ = whole
        sys.modules[title] = module  # dataclasses and annotations look their module up there
        try:
            # Compiled from the very bytes that were digested: no cached bytecode, no second read.
            exec(compile(source, str(path), "exec"), module.__dict__)
        except BaseException:
            del sys.modules[title]
            raise
        _loaded[known] = module
    return _loaded[known]


@cache
def digest_of_package(module: str) -> str | None:
    """SHA-256 (hex) of all Python files of the package, or of the module alone, that `module` belongs to.

    Nothing is imported. None where its files cannot be found (a zip archive, an extension).
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [(file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py")]
    if not folders and spec.origin and spec.origin.endswith(".py"):
        files = [(Path(spec.origin).name, Path(spec.origin))]
    whole = hashlib.sha256()
    try:
        for title, file in sorted(files):
            whole.update(f"{title}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return None
    return whole.hexdigest() if files else None
