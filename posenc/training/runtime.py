"""Where and how precisely a cell computes: device, threads, repeatable results, autocast; its model as it starts.

What else a GPU run needs: `posenc.training.graphs` (a whole step as one CUDA graph), `posenc.backbone.compilation`
(Inductor) and `posenc.attention.softmax.kernel` (which backend). What a task may ask for stands in `RuntimeConfig` of
`posenc.config.task`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.common.memory import keep_freed_memory
from posenc.config.settings import Settings
from posenc.config.task import RuntimeConfig

NOT_REPEATABLE = (
    "on a GPU some kernels add in no fixed order (the backward passes of attention): a cell that runs again may differ"
    " in its last digits"
)


def require_device(device: str) -> None:
    """Raise NotPossibleError where the device is not there; no other is taken in its place."""
    if device == "cuda" and not torch.cuda.is_available():
        raise NotPossibleError("torch finds no GPU on this machine for device 'cuda'")


def set_up(runtime: RuntimeConfig) -> None:
    """Threads, and results that repeat to the bit.

    Raises:
        NotPossibleError: the device is not there; no other is taken in its place.
    """
    require_device(runtime.device)
    torch.set_num_threads(runtime.threads)
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with this
    # On CUDA some kernels (attention's backward with a bias) have no repeatable form. The run says so once
    # (`NOT_REPEATABLE`), not each library in each worker.
    _use_deterministic_algorithms(warn_only=runtime.device == "cuda")
    warnings.filterwarnings("ignore", message=r"(?is).*determinis")
    # Else each new tensor is written twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _use_deterministic_algorithms(*, warn_only: bool) -> None:
    """As torch.use_deterministic_algorithms, which loads Inductor for its part: 3 seconds of each worker's start.

    Here Inductor's flag waits in the environment, where Inductor looks when it is loaded.
    """
    torch.set_deterministic_debug_mode("warn" if warn_only else "error")
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
    inductor: Any = sys.modules.get("torch._inductor.config")
    if inductor is not None:
        inductor.deterministic = True


@contextmanager
def without_subnormals() -> Iterator[None]:
    """On the CPU numbers below the smallest normal one (1.2e-38 in float32) count as 0 meanwhile.

    Intel's processors take many times as long over them, and a softmax whose bias falls with distance (ALiBi, FoX) is
    full of them. Scores and weights are the same: beside any other weight such a number is far below rounding.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def forget_compiled() -> None:
    """Drop what torch.compile made for the cell before in this process: it would count against this one's limits."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and loading it takes seconds
        torch._dynamo.reset()


def make_model(settings: Settings) -> Transformer:
    """The cell's model as it starts, on its device."""
    runtime = settings.runtime
    model = Transformer(settings.backbone, settings.encoding_name, settings.max_length, runtime.backend)
    return model.to(runtime.device).initialise(settings.seed)


@contextmanager
def precision(runtime: RuntimeConfig) -> Iterator[None]:
    """Autocast to bf16 where the cell asks for it."""
    with torch.autocast(runtime.device, torch.bfloat16, enabled=runtime.precision == "bfloat16"):
        yield
