"""What an encoding is, in a row: its definition, what it declares, how much it learns. Nothing is measured."""

from __future__ import annotations

from typing import Any

from posenc.api import registry
from posenc.api.encoding import HOOKS, Encoding
from posenc.api.stack import Stack
from posenc.common.errors import PosencError

SHAPE = {"layers": 4, "heads": 4, "width": 256, "head_width": 64, "max_length": 512}
"""Of the stack whose parameters are counted where none is given: that of `posenc bench`."""


def facts(encoding: str, stack: Stack | None = None) -> list[dict[str, Any]]:
    """For each encoding that a text names (`rope`, `sinusoidal+rope`), what it is.

    Args:
        stack: what it serves; without one, a stack of SHAPE in a direction and of as many axes as it is defined for.

    Raises:
        PosencError: it cannot be made.
    """
    return [_facts(str(spec), stack) for spec in registry.parse(encoding)]


def rows() -> list[dict[str, Any]]:
    """The facts of every known encoding, in the order of their names; those that fail have a row with `broken`."""
    found = []
    for name in sorted(registry.entries()):
        if name in registry.NEED_OTHERS:
            continue
        try:
            found += facts(name)
        except PosencError as error:
            found.append({"encoding": name, "broken": str(error)})
    return found


def _facts(text: str, stack: Stack | None) -> dict[str, Any]:
    made = registry.create(text, stack or _stack_for(text))
    kind = type(made)
    return {
        "encoding": text,
        "title": kind.title,
        "formula": kind.formula,
        "paper": kind.paper,
        "hooks": [hook for hook in HOOKS if made.overrides(hook)],
        "directions": sorted(made.directions),
        "parameters": sum(parameter.numel() for parameter in made.parameters()),
        "axes": made.axes,
        "max_length": made.max_length,
        "softmax": made.softmax_reason or "yes",
        "linear": made.why_not("performer") or made.linear_form,
        "cached_decoding": made.cached_decoding,
        "package": registry.describe(text)["package"],
    }


def _stack_for(text: str) -> Stack:
    kind: type[Encoding] = registry.load(registry.parse(text)[0].name)
    shape: dict[str, Any] = {**SHAPE, "causal": "causal" in kind.directions, "axes": kind.axes or 1}
    return Stack(**shape)
