"""The keys of a task's and a suite's TOML, from the dataclasses that read them."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from typing import Any

from derived.text import code, first, parts, said, table
from posenc.backbone.config import BackboneConfig
from posenc.config.card import Card, Reported
from posenc.config.claim import Against, Claim, Comparison, Published
from posenc.config.data import DataConfig
from posenc.config.suite import Grid, Suite, Times
from posenc.config.task import EvaluationConfig, RuntimeConfig, Stage, Task, TrainingConfig


def kind_of(hint: Any) -> str:
    """A type as people write TOML."""
    if dataclasses.is_dataclass(hint):
        return "a table"
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(f'`"{one}"`' for one in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(kind_of(one) for one in inner if one is not type(None))
    if origin in (list, tuple):
        if origin is tuple and Ellipsis not in inner:
            return f"{len(inner)} of: {kind_of(inner[0])}"
        return f"a list of: {kind_of(inner[0])}"
    if origin is dict:
        return f"a table of: {kind_of(inner[1])}"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(hint, "any value")


def default_of(field: dataclasses.Field[Any]) -> str:
    """A key's default as TOML, or that it must be there."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    if value is None:
        return "none"
    if dataclasses.is_dataclass(value):
        return "its defaults"
    return code(_toml(value))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return "{}" if value == {} else str(value)


def keys(kind: Any, prefix: str = "") -> str:
    """What a dataclass says of itself, and a table of its keys."""
    hints, doc = typing.get_type_hints(kind), parts(kind.__doc__)
    fields = dataclasses.fields(kind)
    told = said(doc.get("Attributes", ""), [field.name for field in fields])
    rows = [
        (
            f"`{prefix}{field.name}`",
            kind_of(hints[field.name]),
            default_of(field),
            told.get(field.name) or _of(hints, field),
        )
        for field in fields
    ]
    return f"{doc['']}\n\n{table(('key', 'must be', 'default', 'meaning'), rows)}\n"


def _of(hints: dict[str, Any], field: dataclasses.Field[Any]) -> str:
    """What a table's own class says of itself."""
    hint = hints[field.name]
    inner = [one for one in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(one)]
    return first(inner[0].__doc__) if inner else ""


def _all(kinds: dict[str, tuple[Any, str]]) -> str:
    return "\n".join(f"### {title}\n\n{keys(kind, prefix)}" for title, (kind, prefix) in kinds.items())


def task() -> str:
    """Every table of a task's TOML."""
    return _all(
        {
            "The task": (Task, ""),
            "data": (DataConfig, "data."),
            "backbone": (BackboneConfig, "backbone."),
            "training": (TrainingConfig, "training."),
            "training.stages": (Stage, ""),
            "evaluation": (EvaluationConfig, "evaluation."),
            "runtime": (RuntimeConfig, "runtime."),
            "card": (Card, "card."),
            "card.reported": (Reported, ""),
        }
    )


def suite() -> str:
    """Every table of a suite's TOML."""
    return _all(
        {
            "The suite": (Suite, ""),
            "grid": (Grid, ""),
            "times": (Times, ""),
            "A claim": (Claim, ""),
            "compare, of a claim": (Comparison, ""),
            "against, of a comparison": (Against, ""),
            "published": (Published, ""),
        }
    )


def settable() -> set[str]:
    """Every dotted key of a task that has a place in the schema."""
    found: set[str] = set()

    def walk(kind: Any, prefix: str) -> None:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            found.add(f"{prefix}{field.name}")
            if dataclasses.is_dataclass(hints[field.name]):
                walk(hints[field.name], f"{prefix}{field.name}.")

    walk(Task, "")
    return {key for key in found if re.match(r"length|start|data|backbone|training|evaluation|runtime", key)}
