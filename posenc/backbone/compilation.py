"""torch.compile as training uses it: the plain form's numbers, or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config

from posenc.common.errors import NotPossibleError

SHAPES = 64
"""How many shapes one function may be compiled for; by torch's default 8, and a training of stages has its own each."""


def compiled(function: Callable[..., Any], device: str, graphs: bool) -> Callable[..., Any]:
    """The function through inductor; `graphs`: recorded as CUDA graphs too.

    Each shape is compiled for itself, whole: a part that cannot be is an error, never a slower path. Dropout draws
    what it draws in the plain form, and no kernel is chosen by a measurement, which a resumed run would make anew.

    Raises:
        NotPossibleError: inductor cannot make code for this device here.
    """
    _require_compiler(device)
    torch._dynamo.config.recompile_limit = SHAPES
    # Gradients in the precision of what they are of, as without compiling; by default all would be in autocast's.
    torch._functorch.config.backward_pass_autocast = "off"
    options: dict[str, Any] = {"fallback_random": True, "shape_padding": False}
    if graphs:  # what cannot be recorded as one graph would otherwise run without, and say so in a log alone
        options |= {"triton.cudagraphs": True, "triton.cudagraph_or_error": True, "graph_partition": False}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def _require_compiler(device: str) -> None:
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise NotPossibleError("runtime.compile: inductor needs Triton for a GPU, and it finds none that works")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise NotPossibleError(
            "runtime.compile: inductor needs a C++ compiler for a CPU (g++, or the one that CXX names): none here"
        ) from None
