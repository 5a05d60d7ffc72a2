"""What Python code calls and subclasses: signatures and docstrings, as directives of Sphinx's Python domain."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Iterable
from typing import Any

import posenc
from derived.text import body, first, table
from posenc import trained
from posenc.api import context, encoding, metric, objective, sections, stack
from posenc.common import errors as failures
from posenc.properties import check
from posenc.report import view
from posenc.running import driver

FENCE = "`" * 5


def _directive(kind: str, signature: str, text: str, *inner: str) -> str:
    inside = "\n\n".join([text, *inner]).strip()
    fence = FENCE + "`" * (2 if inner else 0)
    return f"{fence}{{py:{kind}}} {signature}\n\n{inside}\n{fence}"


def _signature(function: Any, name: str) -> str:
    """As it is written; the alias of a type as what it stands for, and a default function by its name."""
    found = inspect.signature(function)
    around = vars(sys.modules[function.__module__])
    shown = []
    for one in found.parameters.values():
        if one.name in ("self", "cls") or one.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        hint = one.annotation
        if isinstance(hint, str) and hint in around and not isinstance(around[hint], type):
            hint = str(around[hint]).replace("collections.abc.", "").replace("typing.", "")
        text = one.name if hint is inspect.Parameter.empty else f"{one.name}: {hint}"
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in shown):
            shown.append("*")
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            text = f"*{text}"
        if one.default is not inspect.Parameter.empty:
            default = one.default.__name__ if callable(one.default) else repr(one.default)
            text += f" = {default}"
        shown.append(text)
    back = found.return_annotation
    return f"{name}({', '.join(shown)})" + (f" -> {back}" if isinstance(back, str) else "")


def _function(function: Any, name: str, kind: str = "function") -> str:
    return _directive(
        kind, _signature(function, name), body(function.__doc__, list(inspect.signature(function).parameters))
    )


def _class(kind: type, name: str, members: Iterable[str] = ()) -> str:
    fields = typing.get_type_hints(kind) if "Attributes:" in (kind.__doc__ or "") else {}
    names = [*fields, *(key for key, value in vars(kind).items() if _getter(value))]
    inner = []
    for member in members:
        found = inspect.getattr_static(kind, member)
        if getter := _getter(found):
            inner.append(_directive("property", member, body(getter.__doc__)))
        else:
            inner.append(_function(getattr(kind, member), member, "method"))
    return _directive("class", name, body(kind.__doc__, names), *inner)


def _getter(value: Any) -> Any:
    """The function behind a property; None of anything else."""
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property) else None


def _own(kind: type) -> list[str]:
    """The public methods and properties of a class that say what they are, as they stand in it."""
    found = []
    for name, value in vars(kind).items():
        plain = _getter(value) or getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(plain) and plain.__doc__:
            found.append(name)
    return found


def functions() -> str:
    """Those of `posenc` itself, with what a run gives."""
    names = ("run", "load_records", "load", "create", "register")
    found = [_function(getattr(posenc, name), f"posenc.{name}") for name in names]
    return "\n\n".join([*found, _class(driver.Outcome, "posenc.running.driver.Outcome")])


def model() -> str:
    """A kept model."""
    return _class(trained.Trained, "posenc.trained.Trained", _own(trained.Trained))


def plug_ins() -> str:
    """What the author of a plug-in subclasses or is handed."""
    found = [
        _class(encoding.Encoding, "posenc.Encoding", _own(encoding.Encoding)),
        _class(context.Context, "posenc.Context", _own(context.Context)),
        _class(stack.Stack, "posenc.Stack"),
        _class(objective.Objective, "posenc.api.objective.Objective", _own(objective.Objective)),
        _class(objective.Scored, "posenc.api.objective.Scored"),
        _class(metric.Metric, "posenc.api.metric.Metric"),
        _class(sections.ReportSection, "posenc.api.sections.ReportSection", _own(sections.ReportSection)),
        _class(sections.Section, "posenc.api.sections.Section"),
        _class(view.View, "posenc.report.view.View", _own(view.View)),
        _function(check.measure, "posenc.properties.check.measure"),
    ]
    return "\n\n".join([*found, _declared()])


def _declared() -> str:
    """What an encoding may declare, with the default."""
    rows = [
        (f"`{name}`", f"`{sorted(value) if isinstance(value, frozenset) else value!r}`")
        for name in typing.get_type_hints(encoding.Encoding)
        if name in vars(encoding.Encoding) and not name.startswith("_")
        for value in [getattr(encoding.Encoding, name)]
    ]
    return "An encoding declares these; each has a default:\n\n" + table(("declaration", "default"), rows)


def errors() -> str:
    """Every error that bad input can cause."""
    found = [
        (f"`{name}`", f"`{kind.__base__.__name__}`", first(kind.__doc__))
        for name, kind in vars(failures).items()
        if isinstance(kind, type) and issubclass(kind, failures.PosencError)
    ]
    return table(("error", "is a", "meaning"), found)
