"""What pages have of the code, as Markdown, by the name that stands in a page: `<!-- derived: encodings -->`."""

from __future__ import annotations

from collections.abc import Callable

from derived import classes, commands, encodings, names, schema

MAKERS: dict[str, Callable[[], str]] = {
    "encodings": encodings.every,
    "hooks": encodings.hooks,
    "task-keys": schema.task,
    "suite-keys": schema.suite,
    "tasks": names.tasks,
    "suites": names.suites,
    "objectives": names.objectives,
    "metrics": names.metrics,
    "sources": names.sources,
    "backends": names.backends,
    "sections": names.sections,
    "columns": names.columns,
    "bibtex": names.bibtex,
    "commands": commands.every,
    "statuses": commands.statuses,
    "extras": commands.extras,
    "functions": classes.functions,
    "plug-ins": classes.plug_ins,
    "model": classes.model,
    "errors": classes.errors,
}
