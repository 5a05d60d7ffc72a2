"""What is freed stays with the process while it trains, and counts in no other cell's memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

NAME, VERSION = platform.libc_ver()
pytestmark = pytest.mark.skipif(
    NAME != "glibc" or tuple(map(int, VERSION.split("."))) < (2, 35),
    reason="mallopt is glibc's, and keeps 100 MB in one piece from 2.35 on",
)

CODE = """
import resource, sys
import torch
from posenc.common.memory import keep_freed_memory
from posenc.records.provenance import peak_memory, reset_peak_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(25_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(5):  # until the heap has found its size
    faults()
print(faults())
reset_peak_memory("cpu")
print(peak_memory("cpu"))
kept = torch.ones(50_000_000)
del kept
print(peak_memory("cpu"))
"""


def run(mode: str) -> tuple[int, int, int]:
    done = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True)
    faults, start, peak = map(int, done.stdout.split())
    return faults, start, peak


@pytest.mark.slow
def test_freed_memory_is_kept_and_the_next_cell_starts_without_it() -> None:
    faults, start, peak = run("default")
    assert faults > 100, "without it every tensor of 100 MB is asked for anew, or this test shows nothing"
    assert peak - start > 150e6
    kept_faults, kept_start, kept_peak = run("keep")
    assert kept_faults < faults / 10
    assert kept_start < start + 50e6, "the 100 MB that were freed count no more"
    assert kept_peak - kept_start > 150e6
