"""Softmax attention as the textbook writes it, in any precision: what every backend is held against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from posenc.api.autocast import without_autocast
from posenc.attention.softmax.biases import bare_biases
from posenc.attention.softmax.call import Call, Needs

_watching: ContextVar[list[Tensor] | None] = ContextVar("_watching", default=None)


@contextmanager
def watched() -> Iterator[list[Tensor]]:
    """The weights (B,H,L,S) of every attention that `attend` works out within, in their order."""
    found: list[Tensor] = []
    token = _watching.set(found)
    try:
        yield found
    finally:
        _watching.reset(token)


def why_not(needs: Needs) -> str | None:
    """It can do everything."""
    return None


def weights(queries: Tensor, keys: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """softmax(scale * q . k + bias) over the keys, (B,H,L,S), computed in float32 at the least.

    `bias` (B or 1, H or 1, L, S) is added to the scaled scores; -inf hides a key, False in a boolean one too.
    """
    with without_autocast(queries.device):
        return _scores(queries, keys, scale, bias).softmax(dim=-1)


def _scores(queries: Tensor, keys: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    wide = torch.promote_types(queries.dtype, torch.float32)
    return _hide_or_add(scale * (queries.to(wide) @ keys.to(wide).transpose(-1, -2)), bias)


def _hide_or_add(scores: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None:
        return scores
    return scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias.to(scores.dtype)


def scores_of(call: Call) -> Tensor:
    """The scores (B,H,L,S) of a layer before the softmax, whatever its encoding does to them.

    -inf where a query may not look; in float32 at the least.
    """
    queries, keys, encoding, context = call.queries, call.keys, call.encoding, call.context
    if not (call.overrides("pair_scores") or call.overrides("change_scores")):
        table = call.table()
        if table is None and call.causal:
            table = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool, device=queries.device).tril()
        with without_autocast(queries.device):
            return _scores(queries, keys, call.scale, table)
    assert encoding is not None and context is not None and call.raw_queries is not None and call.raw_keys is not None
    wide = torch.promote_types(queries.dtype, torch.float32)
    with without_autocast(queries.device):
        queries, keys = queries.to(wide), keys.to(wide)
        own = encoding.overrides("pair_scores")
        scores = encoding.pair_scores(queries, keys, context) if own else queries @ keys.transpose(-1, -2)
        raw = call.raw_queries.to(wide), call.raw_keys.to(wide)
        scores = _hide_or_add(call.scale * scores, bare_biases(encoding, *raw, context))
        if encoding.overrides("change_scores"):
            scores = encoding.change_scores(scores, *raw, context)
        return scores.masked_fill(~context.visible, -torch.inf)


def weights_of(call: Call) -> Tensor:
    """The attention weights (B,H,L,S) of a layer."""
    scores = scores_of(call)
    with without_autocast(scores.device):
        return scores.softmax(dim=-1)


def attend(call: Call) -> Tensor:
    """Attention's output (B,H,L,K). Dropout draws one number for each weight, whatever the encoding."""
    dropped = nn.functional.dropout(weights_of(call), call.dropout).to(call.values.dtype)
    if not torch.compiler.is_compiling() and (seen := _watching.get()) is not None:
        seen.append(dropped.detach())
    output = dropped @ call.values
    if call.overrides("mix_values") and call.encoding is not None and call.context is not None:
        output = output + call.encoding.mix_values(dropped, call.context)
    return output
