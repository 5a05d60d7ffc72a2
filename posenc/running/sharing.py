"""How many cells share a GPU where nobody said: by the machine's cores and the card's memory.

Small models leave most of a card idle: what limits them is how fast their processes start kernels. So cells share it,
as many as there are cores to feed it, and as fit into its memory.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence

from posenc.config.settings import Settings
from posenc.plan.cell import Cell

CORES = 2
"""Cores of a cell on a GPU: its loop, and the thread that makes its batches, with all that the driver wants."""
BASE = 1.5e9
"""Bytes of a process on a GPU before it has a model: context, loaded kernels, libraries' workspaces."""
USED = 0.8
"""The share of what is free that cells are laid out for: what they take is estimated."""


def memory_of(settings: Settings) -> float:
    """Bytes of GPU memory that a cell takes, estimated.

    Parameters with gradients and AdamW's two means: 16 bytes each. What a pass keeps of a layer: s b h (34 + 5 a s / h)
    bytes in half precision (Korthikanti et al. 2022, equation 1), twice that in float32; and its logits thrice.
    """
    shape, training = settings.backbone, settings.training
    stacks = 2 if shape.form == "encoder-decoder" else 1
    matrices = (8 if stacks == 2 else 4) * shape.width**2 + 2 * shape.width * shape.feedforward
    parameters = stacks * shape.layers * matrices + 2 * shape.vocabulary * shape.width
    bytes_each = 1.0 if settings.runtime.precision == "bfloat16" else 2.0
    passes = [(stage.length, stage.batch / stage.accumulate) for stage in training.stages]
    passes = passes or [(settings.length, training.batch / training.accumulate)]
    longest = max(settings.max_length, settings.length * max(settings.evaluation.length_factors))
    kept = 0.0
    for length, rows in passes:
        layer = length * rows * (34 * shape.width + 5 * shape.heads * length) * bytes_each
        kept = max(kept, stacks * shape.layers * layer + 12.0 * length * rows * shape.vocabulary)
    scored = 12.0 * max(settings.evaluation.batch_tokens, longest) * max(shape.vocabulary, shape.width)
    return BASE + 16.0 * parameters + max(kept, scored)


def cells_a_gpu(cells: Sequence[Cell], cores: int, gpus: Sequence[str]) -> tuple[int, str]:
    """How many cells run at a time on each GPU, and the rule in a line.

    Args:
        gpus: as CUDA_VISIBLE_DEVICES names them.
    """
    told = "--jobs N changes it"
    if any(cell.settings.runtime.processes > 1 for cell in cells):
        return 1, f"a cell at a time on its GPUs, since several processes train it; {told}"
    need = max(memory_of(cell.settings) for cell in cells)
    free = free_memory(gpus)
    if free is None:
        return 1, f"a cell at a time on each GPU, since nvidia-smi does not tell how much memory is free; {told}"
    threads = max(CORES, *(cell.settings.runtime.threads for cell in cells))
    by_cores, by_memory = cores // (threads * len(gpus)), math.floor(USED * free / need)
    waiting = math.ceil(len(cells) / len(gpus))
    count = max(1, min(by_cores, by_memory, waiting))
    return count, (
        f"{count} cells at a time on each GPU: {cores} cores give {max(1, by_cores)} at {threads} a cell,"
        f" {free / 1e9:.0f} GB free give {max(1, by_memory)} at up to {need / 1e9:.1f} GB, cells {waiting}; {told}"
    )


def free_memory(gpus: Sequence[str]) -> float | None:
    """Bytes that are free on the fullest of these GPUs, as nvidia-smi tells; None where it does not."""
    asked = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits", f"--id={','.join(gpus)}"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        found = [float(line) * 2**20 for line in done.stdout.split()]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    return min(found) if done.returncode == 0 and len(found) == len(gpus) else None
