"""Keys that came after the first results: cells' identities hold them only where they say something new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LATER: dict[str, Any] = {
    "backbone.convolution": 0,
    "backbone.scale": "sqrt",
    "backbone.embedding_norm": False,
    "backbone.patch": [],
    "backbone.channels": 1,
    "training.shift": 0,
    "training.flip": False,
    "data.files": {},
    "data.format": "",
    "data.header": True,
    "data.columns": {},
    "data.labels": [],
    "data.options": {},
    "task_source": "",
    "objective_package": "",
    "evaluation.min_tokens": 1,
    "evaluation.rows": 500,
    "evaluation.stride": 0,
}
"""Keys that came after the first results, with their defaults: they are part of a cell's identity where they differ."""
IN_FIRST_DEFINITIONS = (
    "backbone.convolution", "data.files", "data.format", "data.header", "data.columns", "data.labels",
    "evaluation.min_tokens",
)  # fmt: skip
"""Those of LATER that suites' definitions have had from the first on, whatever their values."""


def without_defaults(config: Mapping[str, Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """A configuration, or a task, without the keys of LATER that are at their defaults; those of `but` stay."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for key, default in LATER.items():
        *table, name = key.split(".")
        place = result[table[0]] if table else result
        if key not in but and name in place and place[name] == default:
            del place[name]
    return result
