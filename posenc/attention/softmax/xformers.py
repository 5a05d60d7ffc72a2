"""xformers' memory-efficient attention, CUDA only: with a bias, with the causal triangle, or of packed rows.

xformers is loaded only where it is asked for: it takes seconds, and has no CPU operator.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.context import Context
from posenc.attention.softmax.call import Call, Needs
from posenc.common.errors import NotPossibleError


def _ops() -> Any:
    try:
        from xformers import ops
    except ImportError as error:
        raise NotPossibleError(f"not possible: backend 'xformers' cannot be imported: {error}") from None
    return ops


def why_not(needs: Needs) -> str | None:
    """Why it cannot; None where it can."""
    if needs.explicit:
        return f"never shows attention weights, and {needs.explicit}"
    return None if needs.device == "cuda" else f"has no operator for device {needs.device!r}, only for cuda"


def attend(call: Call) -> Tensor:
    """Attention's output (B,H,L,K). Its kernels want a table in the queries' precision: in bf16 biases are rounded."""
    queries, keys, values = call.queries, call.keys, call.values
    if call.context is not None and packed_alone(call):
        return attend_packed(queries, keys, values, call.causal, call.scale, call.context)
    table = call.table()
    ops = _ops()
    bias = ops.LowerTriangularMask() if call.causal and table is None else None
    if table is not None:
        if table.dtype == torch.bool:
            table = torch.zeros_like(table, dtype=queries.dtype).masked_fill(~table, -torch.inf)
        table = table.to(queries.dtype)
        # Its kernels read bias rows in steps of 8: rows are laid out in a wider buffer and cut back.
        length = table.shape[-1]
        padded = functional.pad(table, (0, -length % 8))
        bias = padded.expand(queries.shape[0], queries.shape[1], -1, -1).contiguous()[..., :length]
    heads_last = (part.transpose(1, 2) for part in (queries, keys, values))
    return ops.memory_efficient_attention(*heads_last, attn_bias=bias, scale=call.scale).transpose(1, 2)


def packed_alone(call: Call) -> bool:
    """Whether packed rows are all that hides a key, but causality, and nothing is added to the scores."""
    context = call.context
    plain = context is not None and context.mask is None and context.window is None and context.offset == 0
    added = call.overrides("distance_bias") or call.overrides("score_bias")
    return plain and context is not None and context.segments is not None and not added


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
    queries: Tensor, keys: Tensor, values: Tensor, causal: bool, scale: float, context: Context
) -> Tensor:
    """Attention's output (B,H,L,K) of packed rows: no pair of two examples is computed."""
    ops, segments = _ops(), context.segments
    assert segments is not None
    bias = context.once(attend_packed, "mask", lambda: packed_bias(segments, causal))
    rows, heads, length, _ = queries.shape
    one = (part.transpose(1, 2).reshape(1, rows * length, heads, -1) for part in (queries, keys, values))
    out: Tensor = ops.memory_efficient_attention(*one, attn_bias=bias, scale=scale)
    return out.reshape(rows, length, heads, -1).transpose(1, 2)
