"""Tensors without memory, and optimisers, without PyTorch's compiler.

Much of what torch does on the meta device, and all of an optimiser, is Python that it marks "not to be compiled" when
it is first called; for that mark alone it imports `torch._dynamo`, which takes seconds. Nothing is compiled where a
model is only counted, nor in an optimiser's step.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"


class _StandIn(ModuleType):
    """In the compiler's place: the mark changes nothing; asked for anything else, the compiler itself answers."""

    def __init__(self) -> None:
        super().__init__(COMPILER)
        self.marked: list[Any] = []

    def disable(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        """The function as it is, noted: torch keeps what it gets here on the function."""
        self.marked.append(function)
        return function

    def graph_break(self) -> None:
        """Where compiled code would end: an optimiser's step says so even where there is none."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.leave()
        return getattr(importlib.import_module(COMPILER), name)

    def leave(self) -> None:
        """Be gone, and every mark with it: the compiler, once it is there, makes its own."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        while self.marked:
            with suppress(AttributeError):
                delattr(self.marked.pop(), "__dynamo_disable")


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within, what only marks itself does not load the compiler. Where it is loaded, nothing changes.

    The numbers are the same: it saves the time alone. Where another torch goes another way, it saves nothing.
    """
    if COMPILER in sys.modules:
        yield
        return
    stand_in = _StandIn()
    sys.modules[COMPILER] = stand_in
    try:
        yield
    finally:
        stand_in.leave()
