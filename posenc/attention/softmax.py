"""Softmax attention with any encoding, through one of several backends.

Backends:
    reference   explicit weights; any precision, any encoding
    sdpa        torch's scaled_dot_product_attention
    xformers    memory-efficient attention, CUDA only
`auto` is a fixed rule, never a measurement: `reference` where the weights themselves are needed (an encoding that
mixes values, as Shaw's; dropout on the weights), else `sdpa`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from posenc.attention import reference
from posenc.encoding import Context, Encoding
from posenc.errors import NotPossibleError, UnknownNameError

BACKENDS = ("auto", "reference", "sdpa", "xformers")


def choose_backend(asked: str, encoding: Encoding, dropout: float, device: str) -> str:
    """The backend taken where `asked` was asked for.

    Raises:
        NotPossibleError: the backend asked for cannot do it; no other is taken in its place.
    """
    if asked not in BACKENDS:
        raise UnknownNameError("backend", asked, BACKENDS)
    needs = "its values need the weights" if encoding.overrides("mix_values") else ""
    needs = needs or ("dropout falls on the weights" if dropout else "")
    if asked == "auto":
        return "reference" if needs else "sdpa"
    if asked != "reference" and needs:
        raise NotPossibleError(f"not possible: backend {asked!r} never shows attention weights, and {needs}")
    if asked == "xformers" and device != "cuda":
        raise NotPossibleError(f"not possible: backend 'xformers' has no operator for device {device!r}, only for cuda")
    return asked


def visible(context: Context) -> Tensor | None:
    """Which key each query may see, (B or 1, 1, L, S) bool; None where it may see all, or all before it and itself.

    A query at padding sees itself, so that no row is empty: its output is never used.
    """
    if context.mask is None and context.segments is None and context.queries == context.keys:
        return None
    if "visible" not in context.cache:
        index = torch.arange(context.keys, device=context.device)
        query = index[context.offset :, None]
        seen = (index <= query)[None] if context.stack.causal else torch.ones_like(index <= query)[None]
        if context.segments is not None:
            seen = seen & (context.segments[:, context.offset :, None] == context.segments[:, None, :])
        if context.mask is not None:
            seen = (seen & context.mask[:, None, :]) | (index == query)
        context.cache["visible"] = seen[:, None]
    table: Tensor = context.cache["visible"]
    return table


def distance_table(encoding: Encoding, context: Context) -> Tensor:
    """The encoding's `distance_bias` laid out as (B or 1, H, L, S), -inf where a causal query must not look.

    Distances are asked for once, L + S - 1 of them, and laid out along the diagonals: with the default
    positions, positions differ exactly as indices do wherever a query may look.
    """
    queries, keys = context.queries, context.keys
    if encoding.overrides("positions"):
        distances = context.key_positions[:, None, :, 0] - context.query_positions[:, :, None, 0]
        bias = encoding.distance_bias(distances.flatten(), context).unflatten(1, distances.shape).transpose(0, 1)
        if context.stack.causal:
            index = torch.arange(keys, device=context.device)
            bias = bias.masked_fill(index > index[context.offset :, None], -torch.inf)
        return bias
    distances = torch.arange(1 - queries - context.offset, keys - context.offset, device=context.device)
    line = encoding.distance_bias(distances, context)
    if context.stack.causal:
        line = line.masked_fill(distances > 0, -torch.inf)
    return line.unfold(1, keys, 1).flip(1)[None]


def score_table(encoding: Encoding, queries: Tensor, keys: Tensor, context: Context) -> Tensor | None:
    """All that is added to the scaled scores: biases, and -inf where a query may not look.

    None means: nothing but, perhaps, the plain causal triangle, which a backend makes by itself.
    """
    table = None
    if encoding.overrides("distance_bias"):
        if "distance_table" not in context.cache:
            bias, seen = distance_table(encoding, context).to(queries.dtype), visible(context)
            context.cache["distance_table"] = bias if seen is None else bias.masked_fill(~seen, -torch.inf)
        table = context.cache["distance_table"]
    if encoding.overrides("score_bias"):
        scores = encoding.score_bias(queries, keys, context).to(queries.dtype)
        if table is None:
            seen = visible(context)
            if seen is None and context.stack.causal:
                seen = torch.ones(context.queries, context.keys, dtype=torch.bool, device=context.device).tril()
            scores = scores if seen is None else scores.masked_fill(~seen, -torch.inf)
        table = scores if table is None else table + scores
    return visible(context) if table is None else table


def softmax_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    table: Tensor | None,
    causal: bool,
    scale: float,
    backend: str,
    dropout: float = 0.0,
    encoding: Encoding | None = None,
    context: Context | None = None,
) -> Tensor:
    """Attention's output (B,H,L,K) for queries and keys already rotated.

    Args:
        table: what `score_table` gave; where it is None and `causal`, the triangle is meant.
        encoding, context: given where the encoding mixes values.
    """
    triangle = causal and table is None
    if backend == "sdpa":
        return functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=table, is_causal=triangle, scale=scale
        )
    if backend == "xformers":
        return _xformers(queries, keys, values, table, triangle, scale)
    if triangle:
        table = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool, device=queries.device).tril()
    output, weights = reference.attend(queries, keys, values, scale=scale, bias=table, dropout=dropout)
    if encoding is not None and context is not None and encoding.overrides("mix_values"):
        output = output + encoding.mix_values(weights, context)
    return output


def _xformers(
    queries: Tensor, keys: Tensor, values: Tensor, table: Tensor | None, triangle: bool, scale: float
) -> Tensor:
    try:
        from xformers import ops  # loaded only where it is asked for: it takes seconds, and has no CPU operator
    except ImportError as error:
        raise NotPossibleError(f"not possible: backend 'xformers' cannot be imported: {error}") from None
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
