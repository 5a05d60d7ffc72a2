"""With what a result was made: code, versions, hardware, memory."""

from __future__ import annotations

import gc
import os
import platform
import resource
import subprocess
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from posenc.allocator import release_freed_memory

PACKAGES = ("posenc", "torch", "numpy", "pandas", "scipy", "datasets", "mlflow", "xformers", "ray")


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """The commit of the source tree that runs, and whether it had changes; None where it is no git checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return {"commit": None, "dirty": None}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can matter; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """Processor, cores that this process may use, system, and the GPU where one is used."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: what platform knows must do
    gpu = None
    if device == "cuda":
        import torch

        gpu = torch.cuda.get_device_name()
    return {"cpu": processor, "cores": cores(), "system": f"{platform.system()} {platform.machine()}", "gpu": gpu}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


def reset_peak_memory(device: str) -> None:
    """Let the next `peak_memory` count from now (Linux and CUDA; elsewhere it counts from the process's start)."""
    gc.collect()  # a compiled model holds itself, and would count until Python looks
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    release_freed_memory()
    with suppress(OSError):  # not Linux, or not allowed: the figure is then the process's own peak
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """Bytes at most since `reset_peak_memory`: of the GPU's memory on cuda, else of the process's resident memory."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
