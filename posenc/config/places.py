"""Where tasks and suites are written: in posenc, in other packages, or in a file named by its path."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from posenc.api.entry_points import brought, folder_of, own_package
from posenc.common.errors import ConfigError, UnknownNameError
from posenc.common.paths import content
from posenc.common.toml import read_toml


@dataclass(frozen=True)
class TaskFile:
    """Where a task is written.

    Attributes:
        package: that brings it. path_given: whether it was named by its path, and no package brings it.
    """

    path: Path
    package: str
    path_given: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of a file named by its path: part of its cells' identity; else versions tell."""
        return sha256(self.path.read_bytes()).hexdigest() if self.path_given else ""


CLAIMS = "claims"
"""The folder of the suites in which posenc's claims lie."""


def available(kind: str) -> dict[str, Path]:
    """The tasks, suites or claims that packages bring, by name. `glue/mrpc` stands in a folder of its own.

    Those of other packages have the name of their entry point before their own: `mine/ptb`.
    """
    folder = content("suites") / CLAIMS if kind == CLAIMS else content(kind)
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}
    if kind == "suites":
        found = {name: path for name, path in found.items() if not name.startswith(f"{CLAIMS}/")}
    if kind == "tasks":
        for name, file in brought_tasks().items():
            found.setdefault(name, file.path)
    return found


def brought_tasks() -> dict[str, TaskFile]:
    """The tasks of other packages: each entry point of `posenc.tasks` names a folder of TOML, as a module has it.

    Nothing is imported.
    """
    found: dict[str, TaskFile] = {}
    for entry in brought("posenc.tasks"):
        folder = folder_of(entry.target)
        if folder is None:
            continue
        for path in sorted(folder.rglob("*.toml")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            found.setdefault(f"{entry.name}/{name}", TaskFile(path, entry.package))
    return found


def is_path(name: str) -> bool:
    """Whether a task or suite is named by the path of its TOML."""
    return name.endswith(".toml")


def task_file(name: str, where: str = "") -> TaskFile:
    """Where a task is written, by its name or path.

    Raises:
        UnknownNameError: no such task. ConfigError: no such file.
    """
    if is_path(name):
        path = Path(os.path.abspath(Path(name).expanduser()))
        if not path.is_file():
            raise ConfigError(f"task {name}{f' ({where})' if where else ''}: no such file")
        return TaskFile(path, "a file", path_given=True)
    known = available("tasks")
    if name not in known:
        raise UnknownNameError("task", name, known, where)
    return brought_tasks().get(name) or TaskFile(known[name], own_package())


def task_name(given: str) -> str:
    """A task's own name, where it may have been named by its path; "scratch", which is none, as it is.

    Raises:
        ConfigError: the file has none.
    """
    if not is_path(given):
        return given
    name = read_toml(task_file(given).path).get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{given}: name is missing")
    return name


def relocated_task(name: str, folder: Path) -> str:
    """A task as written in a file of `folder`: a relative path starts there, and becomes whole."""
    return os.path.abspath(folder / Path(name).expanduser()) if is_path(name) else name
