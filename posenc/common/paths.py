"""Where the files lie that people edit: tasks, suites, and the report's templates."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def content(kind: str) -> Path:
    """The folder `tasks`, `suites` or `reports`: in an installed package beside its code, else in the repository."""
    installed = _PACKAGE / "_content" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind
