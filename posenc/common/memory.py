"""The C library's allocator: what a step frees is kept for the next one, and given back between cells."""

from __future__ import annotations

import ctypes
from contextlib import suppress

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
