"""TOML to dataclasses, checked key by key: an error names the value, what is allowed, and where it was written."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import typing
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from posenc.common.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

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
        where: for keys not written in `source` at their own place, where they were written, the last one last.

    Raises:
        ConfigError: naming the value, what is allowed, and where it was written.
    """
    from pydantic import ValidationError

    if found := _no_number(value):
        path, wrong = found
        raise ConfigError(f"{where.get(path, source)}: {'.'.join(path)}: {wrong}")
    try:
        # As JSON, strict checking takes a table for a dataclass and a list for a tuple, and still no "3" for 3.
        read = _adapter(kind).validate_json  # type: ignore[arg-type]  # a class has a hash
        return cast(T, read(json.dumps(value, default=str)))
    except ValidationError as error:
        # A misspelt key makes the right one "missing" as well: the misspelling is what helps.
        first = min(error.errors(), key=lambda found: found["type"] != "unexpected_keyword_argument")
        path = tuple(str(part) for part in first["loc"])
        place = next((where[path[:n]] for n in range(len(path), 0, -1) if path[:n] in where), source)
        key = ".".join(
            part for part in path if (part.isidentifier() and not part[0].isupper()) or "." in part or part.isdigit()
        )
        if first["type"] == "unexpected_keyword_argument":
            siblings = _siblings(kind, path)
            near = difflib.get_close_matches(path[-1], siblings, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise ConfigError(f"{place}: unknown key {key}{hint} allowed: {', '.join(siblings)}") from None
        given = "" if first["type"] == "missing" else f" = {first['input']!r}"
        raise ConfigError(f"{place}: {key}{given}: {first['msg']}") from None
    except ConfigError as error:  # raised by a dataclass's own checks, whose message names the keys
        named = {tuple(key.split(".")) for key in re.findall(r"\w+(?:\.\w+)*", str(error))}
        written = [place for key, place in where.items() if key in named]  # what was written last made it wrong
        raise ConfigError(f"{written[-1] if written else source}: {error}") from None


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """pydantic's reader of a dataclass: making one takes longer than reading."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _no_number(value: Any, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], str] | None:
    """The path of the first number that a machine has no room for, and what it must be."""
    if isinstance(value, float) and not math.isfinite(value):
        return path, "must be a finite number"
    if isinstance(value, int) and abs(value) >= 2**63:
        return path, f"must have at most 64 bits, and {value} has more"
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    return next((found for key, item in items if (found := _no_number(item, (*path, str(key))))), None)


def _siblings(kind: Any, path: tuple[str, ...]) -> list[str]:
    """The keys allowed beside the last of `path`, which may name a member of a union by its type's name."""
    for part in path[:-1]:
        members = [one for one in typing.get_args(kind) if getattr(one, "__name__", "") == part]
        if members and not dataclasses.is_dataclass(kind):
            kind = members[0]
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif part.isdigit():
            kind = typing.get_args(kind)[0] if typing.get_args(kind) else kind
        else:
            kind = typing.get_type_hints(kind).get(part)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def parse_value(text: str) -> Any:
    """The value of `--set key=value`: TOML where it is that, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
