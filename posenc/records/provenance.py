"""With what a result was made: code, versions, hardware, memory."""

from __future__ import annotations

import gc
import os
import platform
import re
import resource
import subprocess
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from posenc.common.memory import release_freed_memory

PACKAGES = ("posenc", "torch", "numpy", "pandas", "scipy", "datasets", "mlflow", "xformers", "ray")


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """The commit of the source tree that runs, and whether it had changes; None where it is no git checkout.

    It is asked of the tree that holds this file, whatever repository a hook or a worktree has set in GIT_DIR and its
    like, and of none but one that knows this file.
    """
    here = Path(__file__).resolve()
    root = here.parents[2]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # `status` is only read

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], env=environment, capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    known = git("ls-files", "--error-unmatch", str(here.relative_to(root)))
    if top is None or Path(top).resolve() != root or known is None:
        return {"commit": None, "dirty": None}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can matter; those not installed are left out.

    torch's is its own word, which names the build (2.14.1+cu130) where the package's does not.
    """
    import torch

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "torch": str(torch.__version__)}


def hardware(device: str) -> dict[str, Any]:
    """Processor with the instructions that torch uses of it, cores that this process may use, system.

    Where a GPU is used, its name, its driver, and the CUDA and cuDNN that torch was built with; else None.
    """
    import torch

    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass  # not Linux: what platform knows must do
    on_gpu = device == "cuda"
    cudnn = torch.backends.cudnn.version() if on_gpu else None
    return {
        "cpu": processor,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "driver": _driver() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": None if cudnn is None else str(cudnn),
    }


NVIDIA = Path("/proc/driver/nvidia/version")


def _driver() -> str | None:
    """The version of NVIDIA's kernel driver: by what it says of itself, else by nvidia-smi; None where neither does."""
    with suppress(OSError):
        if found := re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", NVIDIA.read_text()):
            return found[1]
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[0]
    return None


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
