"""Softmax attention by torch's scaled_dot_product_attention: its own choice among its kernels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from posenc.attention.softmax.call import Call, Needs


def why_not(needs: Needs) -> str | None:
    """Why it cannot; None where it can."""
    return f"never shows attention weights, and {needs.explicit}" if needs.explicit else None


def attend(call: Call) -> Tensor:
    """Attention's output (B,H,L,K). Its kernels want a table in the queries' precision: in bf16 biases are rounded."""
    table = call.table()
    if table is not None and table.is_floating_point():
        table = table.to(call.queries.dtype)
    triangle = call.causal and table is None
    return functional.scaled_dot_product_attention(
        call.queries, call.keys, call.values, attn_mask=table, is_causal=triangle, scale=call.scale
    )
