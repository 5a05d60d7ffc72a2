"""The optimiser of every cell, and its learning rate by step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from posenc.backbone.transformer import is_positional
from posenc.config.task import TrainingConfig


def rate(training: TrainingConfig, step: int) -> float:
    """The learning rate of a step, counted from 1."""
    if step <= training.warmup:
        return training.learning_rate * step / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    factor = {
        "constant": 1.0,
        "cosine": 0.55 + 0.45 * math.cos(math.pi * done),
        "linear": 1.0 - done,
        "inverse_square_root": math.sqrt(max(1, training.warmup) / step),
    }[training.schedule]
    return training.learning_rate * factor


def make_optimiser(
    model: nn.Module, training: TrainingConfig, learning_rate: Tensor | None = None
) -> torch.optim.AdamW:
    """AdamW; decay on the backbone's matrices alone (see TrainingConfig).

    On a GPU it is one kernel; a CPU keeps torch's plain form, since the kernel sums in another order.

    Args:
        learning_rate: (), where it is read from memory at each step, as a CUDA graph needs it.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.dim() == 2 and not is_positional(name) and not name.endswith("embedding.weight")
        (decayed if matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    on_card = next(model.parameters()).device.type == "cuda"
    return torch.optim.AdamW(
        groups, lr=training.learning_rate if learning_rate is None else learning_rate, betas=training.betas,
        eps=training.epsilon, fused=on_card or None, capturable=on_card and learning_rate is not None,
    )  # fmt: skip
