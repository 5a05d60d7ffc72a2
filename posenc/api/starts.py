"""How parameters start: drawn in float32 on the CPU, so that a seed gives the same start on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normal_(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill a parameter from N(0, std^2) in place, drawn in float32 on the CPU whatever its device and dtype.

    So the same seed gives the same start on every device.
    """
    with torch.no_grad():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float32) * std)


def uniform_(tensor: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill a parameter from U(-bound, bound) in place, drawn as `normal_` draws."""
    with torch.no_grad():
        tensor.copy_((torch.rand(tensor.shape, generator=generator, dtype=torch.float32) * 2 - 1) * bound)


def xavier_uniform_(tensor: Tensor, generator: torch.Generator) -> None:
    """Glorot and Bengio's uniform start for a matrix (outputs, inputs)."""
    uniform_(tensor, math.sqrt(6.0 / (tensor.shape[0] + tensor.shape[1])), generator)
