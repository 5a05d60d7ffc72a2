"""What a device reaches at most, measured in the same run: products of large matrices, and copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from posenc.bench.timing import synchroniser

SIDE = {"cuda": 8192, "cpu": 512}
"""Of the square matrices that are multiplied."""
NUMBERS = {"cuda": 2**28, "cpu": 2**24}
"""Of the float32 row that is copied: larger than caches."""
REPEATS = 6


@dataclass(frozen=True)
class Rates:
    """What a second holds.

    Attributes:
        flops: of a matrix product, a multiply-add as two. copied: bytes that a copy reads and writes, each counted.
    """

    flops: float
    copied: float


def measure(device: str, dtype: str) -> Rates:
    """Medians of a few repeats, in the precision of the passes."""
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    side, numbers = SIDE[device], NUMBERS[device]
    left, right = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    row = torch.zeros(numbers, device=device)
    other = torch.empty_like(row)
    product = _seconds(lambda: left @ right, device)
    copy = _seconds(lambda: other.copy_(row), device)
    return Rates(2.0 * side**3 / product, 2.0 * row.nbytes / copy)


def _seconds(work: Callable[[], object], device: str) -> float:
    synchronise, found = synchroniser(device), []
    for repeat in range(REPEATS + 2):
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        if repeat >= 2:
            found.append(time.perf_counter() - start)
    return statistics.median(found)
