"""An encoding as people write it: `rope`, `rope(base=500000)`, `sinusoidal+rope`, `./mine.py:Mine(base=5)`.

One encoding may be given to another, by place or as an option: `layers(rope(base=500000), none, every=4)`.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posenc.common.errors import ConfigError

if TYPE_CHECKING:
    from posenc.api.encoding import Encoding
    from posenc.api.stack import Stack

NAME = r"[A-Za-z][A-Za-z0-9_-]*"
FILE = r"[^()+,'\"]+\.py:[^\W\d]\w*"
"""A class in a file: `./mine.py:Mine`."""
FORM = "write NAME, NAME(option=value), NAME+NAME, NAME(NAME, NAME), or ./FILE.py:CLASS for a class in a file"


class Nested(str):
    """An encoding as written that is given to another one: called with a stack, it is made.

    The annotation of such an option, and its default: `bias: Nested = Nested("kerple")`.
    """

    def __repr__(self) -> str:
        return str(self)

    def __call__(self, stack: Stack) -> Encoding:
        from posenc.api.registry import create

        return create(str(self), stack)


@dataclass(frozen=True)
class Spec:
    """One encoding as written: its name (of an entry, or `FILE.py:CLASS`), encodings given by place, and options."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    arguments: tuple[Nested, ...] = ()

    def __str__(self) -> str:
        inside = ", ".join([*self.arguments, *(f"{key}={value!r}" for key, value in self.options)])
        return f"{self.name}({inside})" if inside else self.name

    @property
    def file(self) -> tuple[Path, str] | None:
        """The file and the class in it; None of a name."""
        path, colon, attribute = self.name.rpartition(":")
        return (Path(path), attribute) if colon else None


def parse(text: str, where: str = "") -> list[Spec]:
    """`sinusoidal+rope(base=500000)` to its parts.

    Raises:
        ConfigError: it cannot be read.
    """
    place = f" ({where})" if where else ""
    specs = []
    for part in split(text, "+"):
        match = re.fullmatch(rf"({NAME}|{FILE})\s*(?:\((.*)\))?", part.strip(), flags=re.DOTALL)
        if not match:
            raise ConfigError(f"encoding {text!r}{place} cannot be read: {FORM}")
        name, inside = match.groups()
        try:
            arguments, options = _given(inside or "")
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            raise ConfigError(f"options ({inside}) of encoding {name!r}{place} cannot be read: {FORM}") from None
        specs.append(Spec(shortest(name), tuple(sorted(options.items())), arguments))
    return specs


def every(text: str, where: str = "") -> Iterator[Spec]:
    """The parts of an encoding as written, and all that is given to them as an encoding."""
    for spec in parse(text, where):
        yield spec
        for nested in (*spec.arguments, *(value for _, value in spec.options if isinstance(value, Nested))):
            yield from every(nested, where)


def _given(inside: str) -> tuple[tuple[Nested, ...], dict[str, Any]]:
    """`rope, none, every=4` as encodings and a dictionary; a SyntaxError, ValueError or TypeError where it is none."""
    arguments: list[Nested] = []
    options: dict[str, Any] = {}
    for key, text in _pieces(inside):
        if key is None:
            if options:
                raise ValueError("what has no name comes first")
            arguments.append(_nested(text))
        elif key in options:
            raise ValueError("each option is given once")
        else:
            try:
                options[key] = ast.literal_eval(text)
            except (SyntaxError, ValueError):
                options[key] = _nested(text)
    return tuple(arguments), options


def _pieces(inside: str) -> Iterator[tuple[str | None, str]]:
    """What stands between commas, with its key where it has one; a comma at the end is allowed."""
    pieces = split(inside, ",")
    for number, piece in enumerate(pieces, 1):
        if number == len(pieces) and not piece.strip():
            return
        match = re.fullmatch(r"\s*([^\W\d]\w*)\s*=(.*)", piece, flags=re.DOTALL)
        yield (match[1], match[2].strip()) if match else (None, piece.strip())


def _nested(text: str) -> Nested:
    try:
        return Nested("+".join(map(str, parse(text))))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def shortest(name: str, folder: Path | None = None) -> str:
    """A name as it is; a file's path from where the program runs, whole where it lies outside: one file, one name.

    Args:
        folder: what a relative path starts from; by default where the program runs.
    """
    path, colon, attribute = name.rpartition(":")
    if not colon:
        return name
    found = Path(os.path.abspath((folder or Path()) / Path(path).expanduser()))
    with_dots = os.path.relpath(found)
    return f"{found.as_posix() if with_dots.startswith('..') else Path(with_dots).as_posix()}:{attribute}"


def relocated(text: str, folder: Path) -> str:
    """An encoding as written in a file of `folder`, whose relative paths start there, for where the program runs.

    What names no file is left as it was written.
    """
    if ".py:" not in text:
        return text
    parts = []
    for part in split(text, "+"):
        match = re.fullmatch(rf"({NAME}|{FILE})\s*\((.*)\)|({FILE})", part.strip(), flags=re.DOTALL)
        if match is None:
            parts.append(part)
        elif match[3]:
            parts.append(shortest(match[3], folder))
        else:
            pieces = [(key, relocated(piece, folder)) for key, piece in _pieces(match[2])]
            inside = ", ".join(piece if key is None else f"{key}={piece}" for key, piece in pieces)
            parts.append(f"{shortest(match[1], folder)}({inside})")
    return "+".join(parts)


def split(text: str, separator: str) -> list[str]:
    """A text at each separator outside parentheses and quotes."""
    parts, depth, quote, escaped = [""], 0, "", False
    for character in text:
        if quote:
            quote = "" if character == quote and not escaped else quote
            escaped = character == "\\" and not escaped
        elif character in "'\"":
            quote = character
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
        if character == separator and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts
