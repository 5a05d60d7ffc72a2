"""What torch.compile needs before a cell can train by it."""

from __future__ import annotations

import torch

from posenc.errors import NotPossibleError

SHAPES = 64
"""How many shapes one function may be compiled for; by torch's default 8, and a training of stages has its own each."""


def require_compiler(device: str) -> None:
    """Raise NotPossibleError where inductor cannot make code for this device; allow a shape for each stage."""
    if device == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise NotPossibleError("runtime.compile: inductor needs Triton for a GPU, and it finds none that works")
    else:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise NotPossibleError(
                "runtime.compile: inductor needs a C++ compiler for a CPU (g++, or the one that CXX names): none here"
            ) from None
    torch._dynamo.config.recompile_limit = SHAPES
