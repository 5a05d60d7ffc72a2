"""Real training steps of tasks: milliseconds, the share of them that the card works, launches, tokens and FLOPs."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from posenc.api.blame import said
from posenc.bench.rates import Rates
from posenc.bench.timing import synchroniser
from posenc.config.settings import Settings
from posenc.objectives.work import of_run
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.training.cell_terms import CellTerms
from posenc.training.loop import Loop

Row = dict[str, Any]
TASKS = (
    ("enwik8", "softmax", "rope"), ("enwik8", "softmax", "t5"), ("enwik8", "softmax", "shaw"),
    ("enwik8", "performer", "rope"), ("multi30k", "softmax", "rope"), ("mlm", "softmax", "rope"),
    ("glue/sst2", "softmax", "rope"),
)  # fmt: skip
WARM, TIMED, PROFILED = 5, 20, 5
"""Steps before the clock, under it, and under the profiler."""


def measure(
    task: str, attention: str, encoding: str, device: str, *, scale: str, data: Path | None, compile: str,
    reached: Rates, steps: tuple[int, int, int] = (WARM, TIMED, PROFILED),
) -> Row:  # fmt: skip
    """A row; where it cannot run, with its reason."""
    row: Row = {"task": task, "scale": scale, "attention": attention, "encoding": encoding, "compile": compile}
    precision = "bfloat16" if device == "cuda" else "float32"
    # From scratch: a step takes as long from another task's model, which would be planned too.
    changes = {"runtime.device": device, "runtime.precision": precision, "runtime.compile": compile,
               "backbone.attention": attention, "start": "scratch"}  # fmt: skip
    try:
        chosen = Selection(scale=scale, encodings=[encoding], seeds=[0], changes=changes)
        (cell,) = make(find_suite(task), chosen).cells
        if cell.why_not:
            return row | {"reason": cell.why_not}
        with tempfile.TemporaryDirectory() as folder:
            loop = Loop(cell, CellTerms(suite=task, store=Path(folder), data=data), lambda: False)
            return (
                row
                | {"precision": precision, "backend": cell.backend}
                | _timed(loop, cell.settings, device, reached, steps)
            )
    except Exception as error:
        return row | {"reason": said(error)}


def _timed(
    loop: Loop, settings: Settings, device: str, reached: Rates, steps: tuple[int, int, int]
) -> Row:  # fmt: skip
    if loop.runtime.compile != "none" or device == "cuda":
        loop.warm_up(1)
    with loop.batches.ahead(loop.seed, range(1, sum(steps) + 1)):
        return _stepped(loop, settings, device, reached, steps)


def _stepped(loop: Loop, settings: Settings, device: str, reached: Rates, steps: tuple[int, int, int]) -> Row:
    warm, timed, profiled = steps
    synchronise, number = synchroniser(device), 0
    for _ in range(warm):
        loop.step(number := number + 1)
    synchronise()
    seen, start = loop.seen, time.perf_counter()
    for _ in range(timed):
        loop.step(number := number + 1)
    synchronise()
    seconds = (time.perf_counter() - start) / timed
    tokens = (loop.seen - seen) / timed
    work = of_run(loop.objective, settings)
    row: Row = {
        "milliseconds": 1000 * seconds, "tokens_a_second": tokens / seconds, "parameters": loop.parameters["total"],
        "works": None, "launches": None, "flops": None, "matrix_share": None, "reason": None,
    }  # fmt: skip
    if work.tokens:
        row["flops"] = 3 * work.flops(settings) / work.tokens * tokens / seconds
        row["matrix_share"] = row["flops"] / reached.flops
    if device == "cuda":
        row |= _profiled(loop, number, profiled, seconds)
    return row


def _profiled(loop: Loop, number: int, steps: int, seconds: float) -> Row:
    """The time that kernels run, over an unprofiled step's; and how many are launched in a step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(steps):
            loop.step(number := number + 1)
        torch.cuda.synchronize()
    kernels = [event for event in found.key_averages() if event.device_type.name == "CUDA"]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6 / steps
    return {"works": busy / seconds, "launches": sum(event.count for event in kernels) / steps}
