"""Attention's backends as tests call them: one layer's heads, with a table or an encoding, and what is chosen."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.softmax import reference
from posenc.attention.softmax.call import Call, Needs
from posenc.attention.softmax.kernel import attend, choose


def softmax_attention(
    queries: Tensor, keys: Tensor, values: Tensor, *, backend: str, scale: float, causal: bool,
    table: Tensor | None = None, encoding: Encoding | None = None, context: Context | None = None, dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """Attention's output (B,H,L,K): with a table in its place, or of an encoding that rotates nothing."""
    raw: dict[str, Any] = {"raw_queries": queries, "raw_keys": keys} if encoding else {}
    call = Call(
        queries=queries, keys=keys, values=values, scale=scale, causal=causal, dropout=dropout, given=table,
        encoding=encoding, context=context, **raw,
    )  # fmt: skip
    return attend(backend, call)


def choose_backend(asked: str, encoding: Encoding, dropout: float, device: str, gradients: bool = False) -> str:
    return choose(asked, Needs(encoding, dropout, device, gradients))


def call_of(encoding: Encoding, context: Context) -> Call:
    """A call whose heads nobody looks at."""
    none: Any = None
    return Call(
        queries=none, keys=none, values=none, scale=1.0, causal=encoding.stack.causal, encoding=encoding,
        context=context,
    )  # fmt: skip


def textbook(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float, bias: Tensor | None = None) -> Tensor:
    """Explicit attention: what a backend is held against."""
    return reference.weights(queries, keys, scale, bias).to(values.dtype) @ values
