"""Softmax attention as the textbook writes it, in any precision: what every backend is held against."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Precision as written, whatever surrounds it; "meta", where FLOPs are counted, knows no autocast."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


def weights(queries: Tensor, keys: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """softmax(scale * q . k + bias) over the keys, (B,H,L,S), computed in float32 at the least.

    `bias` (B or 1, H or 1, L, S) is added to the scaled scores; -inf hides a key, False in a boolean one too.
    """
    wide = torch.promote_types(queries.dtype, torch.float32)
    with without_autocast(queries.device):
        scores = scale * (queries.to(wide) @ keys.to(wide).transpose(-1, -2))
        if bias is not None:
            scores = scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias.to(wide)
        return scores.softmax(dim=-1)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, *, scale: float, bias: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Attention's output (B,H,L,K) and its weights (B,H,L,S), for an encoding that mixes values of its own.

    Dropout falls on the weights and draws one number for each, whatever the encoding.
    """
    probabilities = nn.functional.dropout(weights(queries, keys, scale, bias), dropout).to(values.dtype)
    return probabilities @ values, probabilities
