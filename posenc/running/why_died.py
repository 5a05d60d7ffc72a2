"""Why a worker process died, in words that help."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from posenc.common.text import size
from posenc.running.forecast import number_of, parts_of, table_of


def cause(status: int | None, config: Mapping[str, Any], free: int | None) -> str:
    """What is said of a worker that has ended by itself.

    Args:
        status: its exit status; below 0 the signal that killed it. config: of the cell that it held.
        free: bytes of memory that were free when it took that cell.
    """
    if status is None or status >= 0:
        return f"exit status {status}"
    said = f"killed by signal {-status}"
    if status != -signal.SIGKILL:
        return said
    said += ": running out of memory is the usual cause"
    if free is not None:
        said += f"; {size(free)} were free when the cell started"
    if table_of(config, "runtime").get("device") != "cuda":  # there, what a batch takes lies on the card
        needed, rows, length = asked(config)
        said += f", and it asked for about {size(needed)}, with {rows:,.0f} rows of {length:,.0f} tokens at once"
        said += " (training.accumulate makes them fewer, --jobs how many cells run)"
    return said


def asked(config: Mapping[str, Any]) -> tuple[float, float, float]:
    """Bytes that a step of training takes about, and the rows and their length in tokens that it holds at once.

    Weights, their gradients and AdamW's two moments; the activations that the backward pass reads, as PyTorch keeps
    them in a pre-norm layer without dropout; logits, their softmax and its gradient.
    """
    backbone, training, runtime = (table_of(config, key) for key in ("backbone", "training", "runtime"))
    width, layers = number_of(backbone, "width", 64), number_of(backbone, "layers", 1)
    feedforward, vocabulary = number_of(backbone, "feedforward", 4 * width), number_of(backbone, "vocabulary", 256)
    outputs = number_of(backbone, "outputs", 0)
    weights = layers * (4 * width**2 + 2 * width * feedforward) + vocabulary * width
    token = layers * (8 * width + 2 * feedforward) + (0 if outputs else 3 * vocabulary)
    each = 2 if runtime.get("precision") == "bfloat16" else 4
    found = []
    for part in parts_of(training):
        split = max(1.0, number_of(part, "accumulate", 1)) * max(1.0, number_of(runtime, "processes", 1))
        rows, length = number_of(part, "batch", 1) / split, number_of(part, "length", number_of(config, "length", 1))
        found.append((16 * weights + each * rows * length * token, rows, length))
    return max(found)
