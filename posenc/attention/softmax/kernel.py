"""Softmax attention with any encoding, through one of several backends, each a file with `why_not` and `attend`.

Backends:
    reference   explicit weights; any precision, any encoding
    sdpa        torch's scaled_dot_product_attention
    blocks      blocks of queries, one after another; biases by distance, and Shaw's form, without a table of L x S
    flex        FlexAttention; the same without a table, in one kernel on CUDA; without gradients on a CPU
    xformers    memory-efficient attention, CUDA only; packed rows without biases as block-diagonal masks
`auto` is a fixed rule, never a measurement: on a CPU `blocks` for biases by distance and Shaw's form where it can; else
`reference` where the weights or all scores are needed, and `sdpa` for all others.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.kernel import Kernel, LayerCache, Memory
from posenc.attention.softmax import blocks, reference, sdpa, xformers
from posenc.attention.softmax.call import Call, Needs
from posenc.common.errors import NotPossibleError, UnknownNameError

_FILES: dict[str, ModuleType] = {"reference": reference, "sdpa": sdpa, "blocks": blocks, "xformers": xformers}
BACKENDS = ("auto", "reference", "sdpa", "blocks", "flex", "xformers")
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
        return "reference" if needs.explicit else "sdpa"
    if (reason := _file(asked).why_not(needs)) is not None:
        raise NotPossibleError(f"not possible: backend {asked!r} {reason}")
    return asked


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
            encoding, self.dropout, queries.device.type, call.queries.requires_grad, context.coordinates is not None
        )
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
        given = None if memory.seen is None else memory.seen.expand(-1, 1, queries.shape[2], -1)
        # No hook runs here, so the weights are needed only where dropout falls on them.
        backend = "reference" if self.dropout else ("sdpa" if self.asked == "auto" else self.asked)
        call = Call(
            queries=queries, keys=keys, values=values, scale=queries.shape[-1] ** -0.5, causal=False,
            dropout=self.dropout if self.training else 0.0, given=given,
        )  # fmt: skip
        return attend(backend, call)
