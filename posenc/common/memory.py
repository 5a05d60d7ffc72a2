"""Memory: what the C library's allocator keeps from step to step and gives back between cells; how much is free."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""mallopt's names for how much free memory at its end the heap keeps, and for the size that never enters the heap."""


def keep_freed_memory() -> None:
    """Let this process keep freed memory, where the C library is glibc; elsewhere nothing changes.

    By default tensors of more than 32 MB go back to the system when they are freed, and smaller ones now and then. The
    next step asks for them again, page by page, each filled with zeros: time that grows with their size, faster than
    the arithmetic does. No number changes. glibc before 2.35 keeps no more than 32 MB in one piece.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Both or none: a trim threshold alone would fix the other one at its start, 128 KB.
        if mallopt(MMAP_THRESHOLD, 2**30) or mallopt(MMAP_THRESHOLD, 2**25):
            mallopt(TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Give what is kept back to the system, so that resident memory is memory in use."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


MACHINE, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that a process can still have, of the machine and of its control group (a container's limit); None where
    the system does not say.
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        (line,) = (line for line in MACHINE.read_text().splitlines() if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    for folder, most, used in (
        (GROUP, "memory.max", "memory.current"),
        (GROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError, KeyError):  # "max" where there is no limit
            limit, taken = (int((folder / name).read_text()) for name in (most, used))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            found.append(max(0, limit - taken + int(stat["inactive_file"])))  # files read once give way
    return min(found, default=None)
