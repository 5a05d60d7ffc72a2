"""Softmax attention with any encoding, through one of several backends, each a file with `why_not` and `attend`.

Backends:
    reference   explicit weights; any precision, any encoding
    sdpa        torch's scaled_dot_product_attention
    blocks      blocks of queries, one after another; biases by distance, and Shaw's form, without a table of L x S
    flex        FlexAttention; the same without a table, in one kernel on CUDA; without gradients on a CPU
    xformers    memory-efficient attention, CUDA only; packed rows without biases as block-diagonal masks
`auto` is a fixed rule, never a measurement: biases by distance and Shaw's form go by `blocks` on a CPU, and on a GPU by
`flex` from 4,096 tokens on, where these can; else `reference` where the weights or all scores are needed, and `sdpa`
for all others.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from posenc.api.blame import said
from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import Kernel, LayerCache, Memory
from posenc.attention.softmax import blocks, reference, sdpa, xformers
from posenc.attention.softmax.call import Call, Needs
from posenc.common.errors import NotPossibleError, PosencError, UnknownNameError

_FILES: dict[str, ModuleType] = {"reference": reference, "sdpa": sdpa, "blocks": blocks, "xformers": xformers}
BACKENDS = ("auto", "reference", "sdpa", "blocks", "flex", "xformers")
FLEX_FROM = 4096
"""Tokens from which on `auto` takes flex on a GPU for what has a form without a table.

A layer's table is H x L x S numbers: made in float32, cast, read and, in a step, its gradient written and summed along
the diagonals: some 20 bytes a pair. At 4 heads and 1,024 tokens that is 84 MB, at 4,096 1.3 GB, at 8,192 5.4 GB: by an
H200's 4.8 TB/s, 0.02, 0.3 and 1.1 ms a layer. A step of T5 over `none` by the table was measured on one as 3.4 at
2 x 8,192. Below, a table costs little, and flex costs the seconds of compiling a kernel for each shape. xformers reads
a table too: `auto` takes it nowhere, as long as no measurement shows that it wins."""
ROUNDS_BIASES = ("sdpa", "xformers")
"""Backends whose kernels take biases in the precision of queries and keys alone: in bf16 they are rounded."""


def _file(backend: str) -> ModuleType:
    if backend == "flex":  # loaded only where it is asked for
        return import_module("posenc.attention.softmax.flex")
    return _FILES[backend]


def choose(asked: str, needs: Needs) -> str:
    """The backend taken where `asked` was asked for.

    Raises:
        NotPossibleError: the backend asked for cannot do it; no other is taken in its place.
    """
    if asked not in BACKENDS:
        raise UnknownNameError("backend", asked, BACKENDS)
    if asked == "auto":
        if needs.by_distance and needs.device == "cpu" and blocks.why_not(needs) is None:
            return "blocks"
        long = needs.device == "cuda" and needs.tokens >= FLEX_FROM
        if needs.by_distance and long and _file("flex").why_not(needs) is None:
            return "flex"
        return "reference" if needs.explicit else "sdpa"
    if (reason := _file(asked).why_not(needs)) is not None:
        raise NotPossibleError(f"not possible: backend {asked!r} {reason}")
    return asked


@cache
def fails_here(backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Why a backend cannot run in this process, by one try on tiny tensors, forward and backward; None where it can."""
    parts = (torch.zeros(1, 2, 16, 16, dtype=dtype, device=device, requires_grad=device != "cpu") for _ in range(3))
    queries, keys, values = parts
    call = Call(queries=queries, keys=keys, values=values, scale=1.0, causal=True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            out = attend(backend, call)
            if out.requires_grad:
                out.float().sum().backward()
    except PosencError as error:
        return str(error)
    except Exception as error:  # whatever a library, or a kernel that is not there, raises
        return f"not possible: backend {backend!r} fails here on tiny tensors: {said(error)}"
    return None


def require_kernel(backend: str, device: str, dtype: torch.dtype) -> None:
    """Try a backend that needs a kernel of its own, before anything trains. On a machine without a GPU a plan for one
    is taken as it is.

    Raises:
        NotPossibleError: it cannot run here; with the cause.
    """
    here = device == "cuda" and torch.cuda.is_available() and backend in ("flex", "xformers")
    if here and (reason := fails_here(backend, device, dtype)) is not None:
        raise NotPossibleError(reason)


def attend(backend: str, call: Call) -> Tensor:
    """Attention's output (B,H,L,K) by a backend that `choose` gave."""
    out: Tensor = _file(backend).attend(call)
    return out


class Softmax(Kernel):
    """Softmax attention by the backend asked for."""

    def __init__(self, *, causal: bool, backend: str, dropout: float) -> None:
        super().__init__()
        self.causal, self.asked, self.dropout = causal, backend, dropout

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        call = self.call(queries, keys, values, encoding, context, cache)
        needs = Needs(
            encoding, self.dropout, queries.device.type, call.queries.requires_grad, context.coordinates is not None,
            0 if context.offset else context.keys,  # one kernel a step of decoding would be compiled
        )  # fmt: skip
        return attend(choose(self.asked, needs), call)

    def call(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Call:  # fmt: skip
        """What a backend gets of queries, keys and values (B,H,L,K) as projected."""
        raw_queries, raw_keys = queries, keys
        queries = encoding.rotate_query(raw_queries, context.query_positions, context)
        keys = encoding.rotate_key(raw_keys, context.query_positions, context)  # the new keys stand at the queries
        if cache is not None:
            keys, raw_keys, values = cache.append(keys, raw_keys, values)
        return Call(
            queries=queries, keys=keys, values=values, scale=encoding.score_scale, causal=self.causal,
            dropout=self.dropout if self.training else 0.0, encoding=encoding, context=context,
            raw_queries=raw_queries, raw_keys=raw_keys,
        )  # fmt: skip

    def cross(self, queries: Tensor, keys: Tensor, values: Tensor, memory: Memory) -> Tensor:
        # No hook runs here, so the weights are needed only where dropout falls on them.
        backend = "reference" if self.dropout else ("sdpa" if self.asked == "auto" else self.asked)
        call = Call(
            queries=queries, keys=keys, values=values, scale=queries.shape[-1] ** -0.5, causal=False,
            dropout=self.dropout if self.training else 0.0, memory=memory,
        )  # fmt: skip
        return attend(backend, call)
