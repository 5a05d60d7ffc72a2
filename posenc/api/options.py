"""Options, the keywords of a class's `__init__`: of which type each is, and whether a value is of it."""

from __future__ import annotations

import inspect
import types
import typing
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from posenc.api.spec import Nested


@dataclass(frozen=True)
class Option:
    """One option: its type as annotated and its default."""

    name: str
    type: Any
    default: Any


def options_of(kind: type[Any], by_place: bool = False) -> dict[str, Option]:
    """The keyword-only parameters of a class's `__init__`; `by_place`: also those that may be given by place."""
    kinds = {inspect.Parameter.KEYWORD_ONLY, *([inspect.Parameter.POSITIONAL_OR_KEYWORD] if by_place else [])}
    try:
        hints = typing.get_type_hints(kind.__init__)
    except Exception:  # an annotation that exists for type checkers alone: then any value may be given
        hints = {}
    return {
        parameter.name: Option(parameter.name, hints.get(parameter.name, object), parameter.default)
        for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]
        if parameter.kind in kinds
    }


def type_name(wanted: Any) -> str:
    """An option's type as people write it."""
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")


def fitted(value: Any, wanted: Any) -> Any:
    """`value` as the annotated type, integers taken where floats are; a TypeError where it is not of it."""
    if wanted is Nested and isinstance(value, str):
        return Nested(value)
    origin = typing.get_origin(wanted)
    if origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in typing.get_args(wanted)):
            return value
        raise TypeError
    if origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(wanted):
            with suppress(TypeError):
                return fitted(value, choice)
        raise TypeError
    plain = origin or wanted
    if plain is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise TypeError from None
    if type(value) is int and not -(2**63) <= value < 2**63:  # what a tensor can hold, or count
        raise TypeError
    if not isinstance(plain, type):  # Any, a type variable: nothing to hold it to
        return value
    if not isinstance(value, plain) or (isinstance(value, bool) and plain not in (bool, object)):
        raise TypeError
    return value


def short(value: Any) -> str:
    """A value as an error shows it."""
    return text if len(text := repr(value)) <= 60 else f"{text[:40]}..."


def allowed(wanted: Any) -> str:
    """What may be given for an option of a type, in words."""
    if wanted is Nested:
        return "an encoding"
    return f"{type_name(wanted)}, of at most 64 bits" if wanted is int else type_name(wanted)
