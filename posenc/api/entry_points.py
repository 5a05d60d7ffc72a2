"""What posenc has by name and what other packages bring by entry points: encodings, objectives, sources of data, tasks.

Entries are texts (`module:Class`) until they are asked for, so listing names imports nothing, and one broken plug-in
never stops the others.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from posenc.api import source_code
from posenc.common.errors import PluginError, UnknownNameError


@dataclass(frozen=True)
class Entry:
    """Where something comes from: `target` is `module:Class`, `package` a distribution and its version."""

    name: str
    target: str
    package: str


def in_folder(folder: Path, package: str) -> dict[str, str]:
    """Name to `module:Class` of what stands in a package's folder: each class that says `name = "..."`.

    The files are read, not imported.
    """
    found = {}
    for file in sorted(folder.glob("*.py")):
        text, kind = file.read_text(encoding="utf-8"), ""
        for match in re.finditer(r'^class (\w+)|^    name = "([^"]+)"$', text, flags=re.MULTILINE):
            kind = match[1] or kind
            if match[2]:
                found[match[2]] = f"{package}.{file.stem}:{kind}"
    return found


def brought(group: str) -> list[Entry]:
    """What other packages bring. Each is read by itself, so that one without metadata stops no other."""
    return list(_brought(group, tuple((place, _changed(place)) for place in sys.path)))


def _changed(place: str) -> int:
    """When something was last installed in a folder; 0 where there is none."""
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=16)
def _brought(group: str, _: tuple[tuple[str, int], ...]) -> tuple[Entry, ...]:
    """Read once for each state of the path: to read the metadata of some hundred packages takes 20 ms."""
    found: list[Entry] = []
    packages: set[str | None] = set()
    for distribution in metadata.distributions():
        points = [point for point in distribution.entry_points if point.group == group]
        if not points:
            continue
        name: str | None = None
        version = ""
        with suppress(Exception):  # an installation cut off half-way: what is raised depends on who reads it
            name, version = distribution.name, distribution.version
        known = re.sub(r"[-_.]+", "-", name).lower() if name else name  # one package, however it is spelt (PEP 503)
        if known and known in packages:  # further down the path: the first is the one that is imported
            continue
        packages.add(known)
        package = f"{name} {version}" if name else "an unknown package"
        found += [Entry(point.name, point.value.replace(" ", ""), package) for point in points]
    return tuple(found)


@cache
def own_package() -> str:
    """`posenc 0.1.0`."""
    try:
        return f"posenc {metadata.version('posenc')}"
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "posenc 0+source"


def installed(kind: str, group: str, built_in: Mapping[str, str]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Built-in and plug-in entries, and what is wrong with names that two packages claim.

    Args:
        kind: what they are called in errors. group: of entry points. built_in: names to targets.
    """
    found = {name: Entry(name, target, own_package()) for name, target in built_in.items()}
    clashes: dict[str, str] = {}
    for entry in sorted(brought(group), key=lambda entry: (entry.name, entry.target)):
        first = found.get(entry.name)
        if first and (first.target, first.package) != (entry.target, entry.package):
            clashes[entry.name] = (
                f"{kind} {entry.name!r} is claimed by {first.target} of {first.package}"
                f" and by {entry.target} of {entry.package}: rename or uninstall one"
            )
        found.setdefault(entry.name, entry)
    return found, clashes


def imported(entry: Entry, kind: str, module: Callable[[], Any] | None = None) -> Any:
    """What an entry names. What it prints while it is imported goes to standard error.

    Args:
        module: makes the module that it is an attribute of; without it, the module is imported by its name.

    Raises:
        PluginError: it cannot be imported; the package and the cause are named.
    """
    try:
        with source_code.quiet_output():
            place, _, attribute = entry.target.rpartition(":") if module else entry.target.partition(":")
            whole = module() if module else importlib.import_module(place)
            return functools.reduce(getattr, attribute.split("."), whole)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # a plug-in may fail in any way, and must name itself when it does
        where = f"{kind} {entry.name!r} of {entry.package} cannot be loaded from {entry.target}"
        raise PluginError(f"{where}: {type(error).__name__}: {error}") from error


def folder_of(module: str) -> Path | None:
    """The folder of a module, by its dotted name; nothing is imported. None where it is not found."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    places = [Path(place).joinpath(*inner) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((place for place in places if place.is_dir()), None)


class Registry:
    """One kind of thing by name: posenc's own and those that other packages bring.

    Args:
        kind: what it is called in errors: "objective". group: of entry points.
        built_in: names to `module:Class`.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self.kind, self.group, self.built_in = kind, group, built_in

    @cached_property
    def _installed(self) -> tuple[dict[str, Entry], dict[str, str]]:
        return installed(self.kind, self.group, self.built_in)

    def entries(self) -> dict[str, Entry]:
        """Every known one by name; nothing is imported."""
        return self._installed[0]

    def entry(self, name: str, where: str = "") -> Entry:
        """Where a name comes from; nothing is imported.

        Raises:
            UnknownNameError: nothing has it. PluginError: two packages claim it.
        """
        found, clashes = self._installed
        if name in clashes:
            raise PluginError(clashes[name])
        if name not in found:
            raise UnknownNameError(self.kind, name, found, where)
        return found[name]

    def load(self, name: str, where: str = "") -> Any:
        """What a name stands for.

        Raises:
            UnknownNameError, PluginError: as `entry`, or its module cannot be imported.
        """
        return imported(self.entry(name, where), self.kind)

    def code(self, name: str) -> dict[str, str]:
        """What the code of another package's entry is known by, by its name: a digest of all its files.

        Nothing is imported. Of posenc's own there is none: records tell posenc's commit.
        """
        if name in self.built_in or name not in self.entries():
            return {}
        return {name: source_code.digest_of_package(self.entry(name).target.partition(":")[0]) or "unknown"}
