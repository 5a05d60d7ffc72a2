"""TOML to dataclasses, checked key by key: an error names the value, what is allowed, and where it was written."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from posenc.errors import ConfigError

T = TypeVar("T")
STRICT: dict[str, object] = {"extra": "forbid", "strict": True}
"""How pydantic is to read the dataclasses: no unknown key, no "3" for 3."""


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    Raises:
        ConfigError: it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None


def validate(kind: type[T], value: Mapping[str, Any], where: Mapping[tuple[str, ...], str], source: str) -> T:
    """`value` as a `kind`, every key known and of its type.

    Args:
        where: for keys not written in `source` at their own place, where they were written.

    Raises:
        ConfigError: naming the value, what is allowed, and where it was written.
    """
    from pydantic import TypeAdapter, ValidationError

    if path := _not_finite(value):
        raise ConfigError(f"{where.get(path, source)}: {'.'.join(path)}: a finite number is wanted")
    try:
        # As JSON, strict checking takes a table for a dataclass and a list for a tuple, and still no "3" for 3.
        return TypeAdapter(kind).validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        # A misspelt key makes the right one "missing" as well: the misspelling is what helps.
        first = min(error.errors(), key=lambda found: found["type"] != "unexpected_keyword_argument")
        path = tuple(str(part) for part in first["loc"])
        place = next((where[path[:n]] for n in range(len(path), 0, -1) if path[:n] in where), source)
        key = ".".join(path)
        if first["type"] == "unexpected_keyword_argument":
            near = difflib.get_close_matches(path[-1], _siblings(kind, path), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            allowed = ", ".join(_siblings(kind, path))
            raise ConfigError(f"{place}: unknown key {key}{hint} allowed: {allowed}") from None
        given = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise ConfigError(f"{place}: {key}{given}: {first['msg']}") from None
    except ConfigError as error:  # raised by a dataclass's own checks, whose message begins with the key
        path = tuple(str(error).split(" ", 1)[0].split("."))
        raise ConfigError(f"{where.get(path, source)}: {error}") from None


def _not_finite(value: Any, path: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """The path of the first number that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return path
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, item in items if (found := _not_finite(item, (*path, str(key))))), None)


def _siblings(kind: Any, path: tuple[str, ...]) -> list[str]:
    """The keys allowed beside the last of `path`."""
    for part in path[:-1]:
        if part.isdigit():
            kind = typing.get_args(kind)[0] if typing.get_args(kind) else kind
        else:
            kind = typing.get_type_hints(kind)[part]
    return list(getattr(kind, "__dataclass_fields__", {}))


def parse_value(text: str) -> Any:
    """The value of `--set key=value`: TOML where it is that, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
