"""Softmax attention by FlexAttention: biases by distance are read from their line, score by score, in the kernel.

No table of L x S is made. On a GPU the kernel is compiled for what it is given; on a CPU torch computes it as
written, pair by pair, and without gradients: that serves to check it. Shaw's form enters by its key term in the
kernel; what its values need, the weights of the few keys nearer than `clip`, are made again from the kernel's
logarithm of each row's sum. `line`, `near` and `sums` are those of posenc.attention.softmax.blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

from posenc.api.context import Context
from posenc.attention.softmax import blocks
from posenc.attention.softmax.biases import distance_line
from posenc.attention.softmax.call import Call, Needs
from posenc.common.errors import NotPossibleError

WITHOUT_GRADIENTS = "has no backward pass on a CPU, where it runs without gradients"
BOTH_WAYS = "has no Shaw's form both ways: not built, as it needs the sum of all weights far ahead"


def why_not(needs: Needs) -> str | None:
    """Why it cannot; None where it can."""
    if (reason := blocks.why_not(needs)) is not None:
        return reason
    if needs.overrides("clipped_vectors") and needs.encoding and not needs.encoding.stack.causal:
        return BOTH_WAYS
    return WITHOUT_GRADIENTS if needs.gradients and needs.device == "cpu" else None


def attend(call: Call) -> Tensor:
    """Attention's output (B,H,L,K).

    Raises:
        NotPossibleError: gradients on a CPU; a table of biases, where there is no encoding.
    """
    parts, encoding, context = (call.queries, call.keys, call.values), call.encoding, call.context
    if encoding is None or context is None:
        return flex_cross(*parts, scale=call.scale, causal=blocks.plain_triangle(call), seen=call.given)
    # Windows are hidden pairs here, not numbers of the line: whole blocks of keys are left out.
    biased = encoding.overrides("distance_bias")
    line = distance_line(encoding, context) if biased else None

    def attended(near: Tensor | None = None, clip: int = 0) -> tuple[Tensor, Tensor | None]:
        return flex_by_distance(*parts, context, scale=call.scale, line=line, near=near, clip=clip)

    return blocks.in_shaws_form(call, attended)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def allowed(context: Context) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """Which pairs may meet, as FlexAttention asks: causality, padding and packed rows; None where all may."""
    mask, segments, causal, offset = context.mask, context.segments, context.stack.causal, context.offset
    window = context.window
    if mask is None and segments is None and window is None and not causal:
        return None

    def pair(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        at = i + offset
        seen = j <= at if causal else j >= 0
        if window is not None:
            seen = seen & (at - j < window) & (j - at < window)
        if segments is not None:
            seen = seen & (segments[b, at] == segments[b, j])
        if mask is not None:
            seen = (seen & mask[b, j]) | (j == at)
        return seen

    return pair


def flex_by_distance(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    context: Context,
    *,
    scale: float,
    line: Tensor | None = None,
    near: Tensor | None = None,
    clip: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Attention's output (B,H,L,K), and `sums` where `near` is given.

    Raises:
        NotPossibleError: gradients on a CPU; Shaw's form both ways.
    """
    _require_backward(queries)
    if near is not None and not context.stack.causal:
        raise NotPossibleError(f"not possible: backend 'flex' {BOTH_WAYS}")
    first = context.queries - 1  # the line's index of distance -offset of the first query
    wide = torch.promote_types(queries.dtype, torch.float32)
    line = None if line is None else line.to(wide)
    near = None if near is None else near.to(wide)

    def score(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if line is not None:
            score = score + line[h, j - i + first]
        if near is not None:
            place = j - i - context.offset + clip - 1
            inside = (place >= 0) & (place < clip)
            score = score + torch.where(inside, near[b, h, i, place.clamp(0, clip - 1)], 0.0)
        return score

    def block_mask() -> Any:
        pair = allowed(context)
        rows = None if context.mask is None and context.segments is None else queries.shape[0]
        return pair and create_block_mask(pair, rows, None, context.queries, context.keys, device=queries.device)

    plain = line is None and near is None
    out, aux = _call(queries)(
        queries,
        keys,
        values,
        score_mod=None if plain else score,
        block_mask=context.once(flex_by_distance, ("mask", context.window), block_mask),
        scale=scale,
        return_aux=AuxRequest(lse=True),
    )
    if near is None:
        return out, None
    return out, _near_weights(queries, keys, context, scale, line, near, aux.lse).to(values.dtype)


def flex_cross(
    queries: Tensor, keys: Tensor, values: Tensor, *, scale: float, causal: bool, seen: Tensor | None
) -> Tensor:
    """Attention's output (B,H,L,K) without an encoding: `seen` (B or 1, 1, L, S) bool, or the causal triangle."""
    _require_backward(queries)

    def pair(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return j <= i if seen is None else seen[b if seen.shape[0] > 1 else 0, 0, i, j]

    mask = None
    if causal or seen is not None:
        rows = None if seen is None else queries.shape[0]
        mask = create_block_mask(pair, rows, None, queries.shape[2], keys.shape[2], device=queries.device)
    out: Tensor = _call(queries)(queries, keys, values, block_mask=mask, scale=scale)
    return out


def _require_backward(queries: Tensor) -> None:
    if queries.device.type == "cpu" and torch.is_grad_enabled() and queries.requires_grad:
        raise NotPossibleError(f"not possible: backend 'flex' {WITHOUT_GRADIENTS}")


def _call(queries: Tensor) -> Callable[..., Any]:
    """The kernel: compiled on a GPU, as written on a CPU; inside torch.compile, compiled with what surrounds it."""
    if queries.device.type == "cpu" or torch.compiler.is_compiling():
        plain: Callable[..., Any] = flex_attention
        return plain
    return _compiled()


def _near_weights(
    queries: Tensor, keys: Tensor, context: Context, scale: float, line: Tensor | None, near: Tensor, sums: Tensor
) -> Tensor:
    """The weights of the keys at the distances of `near`, causal: (B,H,L,T). `sums` is the logarithm of each row's."""
    clip, offset = near.shape[-1], context.offset
    windows = functional.pad(keys.to(near.dtype), (0, 0, clip - 1, 0)).unfold(2, clip, 1)[:, :, offset:]  # (B,H,L,K,T)
    scores = ((queries.to(near.dtype) * scale)[..., None, :] @ windows)[..., 0, :] + near
    if line is not None:
        last = context.keys - 1  # the line's index of distance 0
        padded = functional.pad(line, (clip - 1, 0))  # a line may be shorter than `clip`
        scores = scores + padded[:, None, last : last + clip]
    index = torch.arange(context.queries, device=keys.device)[:, None] + offset
    key = index + torch.arange(1 - clip, 1, device=keys.device)
    seen = allowed(context)
    assert seen is not None  # a causal context has one
    batch = torch.arange(queries.shape[0], device=keys.device)[:, None, None]
    visible = seen(batch, batch, (index - offset)[None], key.clamp_min(0)[None]) & (key >= 0)
    return (scores - sums[..., None]).exp().masked_fill(~visible[:, None], 0.0)
