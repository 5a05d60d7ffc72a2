"""Softmax attention with any encoding, through one of several backends.

Backends:
    reference   explicit weights; any precision, any encoding
    sdpa        torch's scaled_dot_product_attention
    blocks      blocks of queries, one after another; biases by distance, and Shaw's form, without a table of L x S
    flex        FlexAttention; the same without a table, in one kernel on CUDA; without gradients on a CPU
    xformers    memory-efficient attention, CUDA only; packed rows without biases as block-diagonal masks
`auto` is a fixed rule, never a measurement: `reference` where dropout falls on the weights; on a CPU `blocks` for
biases by distance and Shaw's form; else `reference` where an encoding mixes values, and `sdpa` for all others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from posenc.attention import memory_efficient, reference
from posenc.attention.blocks import block_attention
from posenc.encoding import Context, Encoding
from posenc.errors import NotPossibleError, UnknownNameError

BACKENDS = ("auto", "reference", "sdpa", "blocks", "flex", "xformers")
BY_DISTANCE = ("blocks", "flex")
"""Those that take biases by distance, and Shaw's form, without a table: see `distance_attention`."""


def choose_backend(asked: str, encoding: Encoding, dropout: float, device: str, training: bool = False) -> str:
    """The backend taken where `asked` was asked for; `training` where gradients are wanted.

    Raises:
        NotPossibleError: the backend asked for cannot do it; no other is taken in its place.
    """
    if asked not in BACKENDS:
        raise UnknownNameError("backend", asked, BACKENDS)
    needs = "its values need the weights" if encoding.overrides("mix_values") else ""
    needs = needs or ("dropout falls on the weights" if dropout else "")
    if asked == "auto":
        by_distance = encoding.overrides("distance_bias") or encoding.overrides("clipped_vectors")
        if by_distance and device == "cpu" and not dropout and why_no_blocks(encoding) is None:
            return "blocks"
        return "reference" if needs else "sdpa"
    if asked in BY_DISTANCE and not dropout:
        if (reason := why_no_blocks(encoding)) is not None:
            raise NotPossibleError(f"not possible: backend {asked!r} has no form of it: {reason}")
        if asked == "flex" and encoding.overrides("clipped_vectors") and not encoding.stack.causal:
            raise NotPossibleError("not built: backend 'flex' with Shaw's form both ways")
        if asked == "flex" and training and device == "cpu":
            raise NotPossibleError(
                "not possible: backend 'flex' has no backward pass on a CPU, where it runs without gradients"
            )
        return asked
    if asked != "reference" and needs:
        raise NotPossibleError(f"not possible: backend {asked!r} never shows attention weights, and {needs}")
    if asked == "xformers" and device != "cuda":
        raise NotPossibleError(f"not possible: backend 'xformers' has no operator for device {device!r}, only for cuda")
    return asked


def why_no_blocks(encoding: Encoding) -> str | None:
    """Why an encoding has no form without a table of L x S; None where it has one."""
    pairs = encoding.overrides("score_bias") or encoding.overrides("mix_values")
    if pairs and not encoding.overrides("clipped_vectors"):
        return "what it adds to scores or values is neither a bias by distance nor of Shaw's form"
    if (pairs or encoding.overrides("distance_bias")) and encoding.overrides("positions"):
        return "its positions do not differ as the places of tokens do"
    return None


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


def visible_memory(mask: Tensor | None, segments: Tensor | None, memory_segments: Tensor | None) -> Tensor | None:
    """Which token of another stack's output each query may see, (B,1,1 or L,S) bool; None where it may see all.

    A query that has nothing to see (its source is nothing but padding, or it stands at the unused end of a packed row)
    sees all, so that no row is empty: its output is never used.

    Args:
        mask: (B,S), True at real tokens. segments, memory_segments: (B,L) and (B,S), alike for what belongs together.
    """
    seen = None if mask is None else mask[:, None, None]
    if segments is not None and memory_segments is not None:
        own = (segments[:, :, None] == memory_segments[:, None, :])[:, None]
        seen = own if seen is None else seen & own
    return seen if seen is None else seen | ~seen.any(dim=-1, keepdim=True)


def distance_line(encoding: Encoding, context: Context) -> Tensor:
    """The encoding's `distance_bias` at each distance from 1 - L - offset to S - 1 - offset, (H, L + S - 1).

    -inf where a causal query must not look. With the default positions, positions differ exactly as indices do
    wherever a query may look, so one line serves padding and packed rows too.
    """
    if "distance_line" not in context.cache:
        offset = context.offset
        distances = torch.arange(1 - context.queries - offset, context.keys - offset, device=context.device)
        line = encoding.distance_bias(distances, context)
        context.cache["distance_line"] = line.masked_fill(distances > 0, -torch.inf) if context.stack.causal else line
    known: Tensor = context.cache["distance_line"]
    return known


def distance_table(encoding: Encoding, context: Context) -> Tensor:
    """The encoding's `distance_bias` laid out as (B or 1, H, L, S), -inf where a causal query must not look.

    Distances are asked for once, L + S - 1 of them, and laid out along the diagonals.
    """
    keys = context.keys
    if encoding.overrides("positions"):
        distances = context.key_positions[:, None, :, 0] - context.query_positions[:, :, None, 0]
        bias = encoding.distance_bias(distances.flatten(), context).unflatten(1, distances.shape).transpose(0, 1)
        if context.stack.causal:
            index = torch.arange(keys, device=context.device)
            bias = bias.masked_fill(index > index[context.offset :, None], -torch.inf)
        return bias
    return distance_line(encoding, context).unfold(1, keys, 1).flip(1)[None]


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
        return memory_efficient.attend(queries, keys, values, table, triangle, scale)
    if backend in BY_DISTANCE:
        if table is not None and table.dtype != torch.bool:
            raise NotPossibleError(f"not possible: backend {backend!r} takes no table of biases")
        if backend == "flex":
            from posenc.attention.flex import flex_cross  # loaded only where it is asked for

            return flex_cross(queries, keys, values, scale=scale, causal=triangle, seen=table)
        return block_attention(queries, keys, values, scale=scale, causal=triangle, seen=table)[0]
    if triangle:
        table = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool, device=queries.device).tril()
    output, weights = reference.attend(queries, keys, values, scale=scale, bias=table, dropout=dropout)
    if encoding is not None and context is not None and encoding.overrides("mix_values"):
        output = output + encoding.mix_values(weights, context)
    return output


def is_packed_alone(encoding: Encoding, context: Context) -> bool:
    """Whether packed rows are all that hides a key, but causality, and nothing is added to the scores."""
    added = encoding.overrides("distance_bias") or encoding.overrides("score_bias")
    return context.segments is not None and context.mask is None and context.offset == 0 and not added


def distance_attention(
    encoding: Encoding,
    raw_queries: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    context: Context,
    backend: str,
) -> Tensor:
    """Attention's output (B,H,L,K) by `blocks` or `flex`: biases by distance, and Shaw's form, without a table.

    Args:
        raw_queries: as projected, for Shaw's form. queries, keys: already rotated.
    """
    line = distance_line(encoding, context) if encoding.overrides("distance_bias") else None
    causal, scale = encoding.stack.causal, encoding.score_scale

    def attend(near: Tensor | None = None, clip: int = 0) -> tuple[Tensor, Tensor | None]:
        parts = (queries, keys, values)
        if backend == "flex":
            from posenc.attention.flex import flex_by_distance  # loaded only where it is asked for

            return flex_by_distance(*parts, context, scale=scale, line=line, near=near, clip=clip)
        seen = visible(context)
        return block_attention(*parts, scale=scale, causal=causal, line=line, near=near, clip=clip, seen=seen)

    if not encoding.overrides("clipped_vectors"):
        return attend()[0]
    key_table, value_table = (table.to(values.dtype) for table in encoding.clipped_vectors(context))
    clip = key_table.shape[0] // 2
    # By difference from the vector of distance -clip: a causal query sees distances up to 0 alone.
    distances = slice(1, clip + 1) if causal else slice(1, None)
    near = raw_queries @ (key_table[distances] - key_table[:1]).T
    output, sums = attend(near, clip)
    assert sums is not None
    return output + sums @ (value_table[distances] - value_table[:1]) + value_table[0]
