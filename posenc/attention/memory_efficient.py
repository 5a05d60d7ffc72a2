"""xformers' memory-efficient attention, CUDA only: with a bias, with the causal triangle, or of packed rows.

xformers is loaded only where it is asked for: it takes seconds, and has no CPU operator.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posenc.errors import NotPossibleError


def _ops() -> Any:
    try:
        from xformers import ops
    except ImportError as error:
        raise NotPossibleError(f"not possible: backend 'xformers' cannot be imported: {error}") from None
    return ops


def attend(queries: Tensor, keys: Tensor, values: Tensor, table: Tensor | None, triangle: bool, scale: float) -> Tensor:
    """Attention's output (B,H,L,K); `table` (B or 1, H or 1, L, S) is added to the scores, or bool."""
    ops = _ops()
    bias = ops.LowerTriangularMask() if triangle else None
    if table is not None:
        if table.dtype == torch.bool:
            table = torch.zeros_like(table, dtype=queries.dtype).masked_fill(~table, -torch.inf)
        # Its kernels read bias rows in steps of 8: rows are laid out in a wider buffer and cut back.
        length = table.shape[-1]
        padded = functional.pad(table, (0, -length % 8))
        bias = padded.expand(queries.shape[0], queries.shape[1], -1, -1).contiguous()[..., :length]
    heads_last = (part.transpose(1, 2) for part in (queries, keys, values))
    return ops.memory_efficient_attention(*heads_last, attn_bias=bias, scale=scale).transpose(1, 2)


def packed_bias(segments: Tensor, causal: bool) -> Any:
    """The block-diagonal mask of packed rows (B,L), all rows one after another: a block for each example.

    Raises:
        NotPossibleError: an example whose tokens do not stand together.
    """
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    fresh = torch.ones_like(segments, dtype=torch.bool)
    fresh[:, 1:] = segments[:, 1:] != segments[:, :-1]
    ordered = segments.sort(dim=1).values
    if int(fresh.sum()) != segments.shape[0] + int((ordered[:, 1:] != ordered[:, :-1]).sum()):
        raise NotPossibleError("not possible: backend 'xformers' with a packed example whose tokens stand apart")
    starts = [*fresh.flatten().nonzero().flatten().tolist(), segments.numel()]
    bias = BlockDiagonalMask.from_seqlens([end - start for start, end in pairwise(starts)])
    return bias.make_causal() if causal else bias


def attend_packed(
    queries: Tensor, keys: Tensor, values: Tensor, segments: Tensor, causal: bool, scale: float, cache: dict[Any, Any]
) -> Tensor:
    """Attention's output (B,H,L,K) of packed rows: no pair of two examples is computed. The mask lives in `cache`."""
    ops = _ops()
    if "packed" not in cache:
        cache["packed"] = packed_bias(segments, causal)
    rows, heads, length, _ = queries.shape
    one = (part.transpose(1, 2).reshape(1, rows * length, heads, -1) for part in (queries, keys, values))
    out: Tensor = ops.memory_efficient_attention(*one, attn_bias=cache["packed"], scale=scale)
    return out.reshape(rows, length, heads, -1).transpose(1, 2)
