"""Peak memory of one pass, in a process of its own: `python -m posenc.bench.memory`, asked and answered in JSON."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from posenc.common.errors import PosencError

SLACK = 120.0
"""Seconds beyond a limit on compiling: starting, and the passes themselves."""


def peak_bytes(request: dict[str, Any], limit: float = 0.0) -> int:
    """What one pass takes at its peak beyond what stood before it (the model, the program), in bytes.

    Args:
        request: key of the subject, encoding, attention, backend, device, dtype, shape, kind, threads, and
            compile where it is not none.
        limit: seconds that compiling may take, where it is compiled; 0: any.

    Raises:
        PosencError: the process failed; its last line says how. It took too long.
    """
    timeout = limit + SLACK if limit and request.get("compile", "none") != "none" else None
    command = [sys.executable, "-m", "posenc.bench.memory"]
    try:
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise PosencError(f"peak memory of {request['key']} was not measured within {timeout:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PosencError(f"peak memory of {request['key']} cannot be measured: {last}")
    return int(done.stdout.strip().splitlines()[-1])


def _resident() -> int:
    """Bytes of this process's resident memory now; 0 where the system does not say (then the whole peak counts)."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    return 0


def _measure(request: dict[str, Any]) -> int:
    import torch

    from posenc.bench.shape import Shape
    from posenc.bench.subjects import make_pass, subjects
    from posenc.common.memory import release_freed_memory
    from posenc.records.provenance import peak_memory, reset_peak_memory

    torch.set_num_threads(request["threads"])
    shape, device = Shape(**request["shape"]), request["device"]
    one = ([request["encoding"]], [request["attention"]], request["backend"], device)
    found = subjects(*one, shape, request["kind"], True)
    subject = next(subject for subject in found if subject.key == request["key"])
    work = make_pass(subject, shape, request["kind"], device, request["dtype"], request.get("compile", "none"))
    # A row of few tokens first: what is made once and for all (threads, kernels, scratch space) is no part of a pass.
    replace(work, tokens=work.tokens[:1, :16])()
    if request.get("compile", "none") != "none":
        work()  # nor is compiling, which is done for each shape
    work.model.zero_grad(set_to_none=True)
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
    else:
        release_freed_memory()
        before = _resident()
    reset_peak_memory(device)
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return max(peak_memory(device) - before, 0)


if __name__ == "__main__":
    print(_measure(json.load(sys.stdin)))
