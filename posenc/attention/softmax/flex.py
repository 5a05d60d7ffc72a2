"""Softmax attention by FlexAttention: biases by distance are read from their line, score by score, in the kernel.

No table of L x S is made, of biases or of what may be seen (`sight`). On a GPU the kernel is compiled for what it is
given, whole, or it is an error: torch's own unfused form, which lays out all scores, never takes its place. On a CPU
torch computes it as written, pair by pair, and without gradients: that serves to check it. Shaw's form enters by its
key term in the kernel; what its values need, the weights of the few keys nearer than `clip`, are made again from the
kernel's logarithm of each row's sum. `line`, `near` and `sums` are those of posenc.attention.softmax.blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import AuxRequest, flex_attention

from posenc.api.blame import said
from posenc.api.context import Context
from posenc.attention.softmax import blocks
from posenc.attention.softmax.biases import distance_line
from posenc.attention.softmax.call import Call, Needs
from posenc.attention.softmax.flex_options import OPTIONS, Kind, Options, options_for
from posenc.attention.softmax.sight import BLOCK, Sight
from posenc.common.errors import NotPossibleError

WITHOUT_GRADIENTS = "has no backward pass on a CPU, where it runs without gradients"
BOTH_WAYS = "has no Shaw's form both ways: not built, as it needs the sum of all weights far ahead"
SHAPES = 64
"""How many kinds of call are compiled in a process before it is an error."""
COPIES = 32
"""Of the line, where its gradient is summed: see `_spread`."""
TRIED = 2 * BLOCK
"""Tokens of the pass by which kernel options are tried: more than one block."""


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
        NotPossibleError: gradients on a CPU; a table, where there is no encoding; no kernel that fits.
    """
    encoding, context = call.encoding, call.context
    # An encoding may rotate in float32: the kernel must get what autocast would give it, the values' precision.
    parts = (call.queries.to(call.values.dtype), call.keys.to(call.values.dtype), call.values)
    if encoding is None or context is None:
        return flex_cross(*parts, scale=call.scale, sight=_sight_without_encoding(call))
    # Windows are hidden pairs here, not numbers of the line: whole blocks of keys are left out.
    biased = encoding.overrides("distance_bias")
    line = distance_line(encoding, context) if biased else None

    def attended(near: Tensor | None = None, clip: int = 0) -> tuple[Tensor, Tensor | None]:
        return flex_by_distance(*parts, context, scale=call.scale, line=line, near=near, clip=clip)

    return blocks.in_shaws_form(call, attended)


def _sight_without_encoding(call: Call) -> Sight:
    queries = call.queries.shape[2]
    if call.memory is not None:
        return Sight.over(call.memory, queries)
    if call.given is not None:
        raise NotPossibleError("not possible: backend 'flex' takes no table, of biases or of what may be seen")
    return Sight(queries=queries, keys=call.keys.shape[2], causal=call.causal)


@cache
def _compiled() -> Callable[..., Any]:
    import torch._dynamo.config

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    return torch.compile(flex_attention, fullgraph=True)


def _spread(line: Tensor) -> Tensor:
    """(R,H,N), the line R times, for a query to read the copy i mod R.

    The backward pass adds each pair's gradient to its distance's number, one after another where they fall on the same:
    128 queries of a block hold 128 pairs of each distance. Copies set them apart; they are summed at the end.
    """
    return line.expand(COPIES, *line.shape).contiguous() if line.requires_grad else line[None]


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
    if near is not None and not context.stack.causal:
        raise NotPossibleError(f"not possible: backend 'flex' {BOTH_WAYS}")
    sight = Sight.of(context)
    wide = torch.promote_types(queries.dtype, torch.float32)
    score = score_by_distance(
        None if line is None else line.to(wide), None if near is None else near.to(wide), clip, sight
    )
    block_mask = context.once(flex_by_distance, ("mask", context.window), lambda: sight.kept_mask(queries.device))
    out, aux = _call(queries, keys, values, score, block_mask, scale, (line is not None, near is not None))
    if near is None:
        return out, None
    return out, _near_weights(queries, keys, context, scale, line, near.to(wide), aux.lse).to(values.dtype)


def score_by_distance(
    line: Tensor | None, near: Tensor | None, clip: int, sight: Sight
) -> Callable[..., Tensor] | None:  # fmt: skip
    """What FlexAttention does to each score: adds the line's number of its distance, and the near one's."""
    if line is None and near is None:
        return None
    first, offset = sight.queries - 1, sight.offset  # the line's index of distance -offset of the first query
    lines = None if line is None else _spread(line)
    copies = 1 if lines is None else lines.shape[0]

    def score(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if lines is not None:
            score = score + lines[i % copies, h, j - i + first]
        if near is not None:
            place = j - i - offset + clip - 1
            inside = (place >= 0) & (place < clip)
            score = score + torch.where(inside, near[b, h, i, place.clamp(0, clip - 1)], 0.0)
        return score

    return score


def flex_cross(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float, sight: Sight) -> Tensor:
    """Attention's output (B,H,L,K) without an encoding."""
    out: Tensor = _call(queries, keys, values, None, sight.kept_mask(queries.device), scale)[0]
    return out


def _call(
    queries: Tensor, keys: Tensor, values: Tensor, score: Callable[..., Tensor] | None, block_mask: Any, scale: float,
    added: tuple[bool, bool] = (False, False),
) -> Any:  # fmt: skip
    """The kernel: compiled on a GPU, as written on a CPU; inside torch.compile, compiled with what surrounds it.

    `added`: whether `score` reads a line, and near numbers.
    """
    gradients = torch.is_grad_enabled() and queries.requires_grad
    if queries.device.type == "cpu" and gradients:
        raise NotPossibleError(f"not possible: backend 'flex' {WITHOUT_GRADIENTS}")
    given: dict[str, Any] = {
        "score_mod": score,
        "block_mask": block_mask,
        "scale": scale,
        "return_aux": AuxRequest(lse=True),
    }
    if queries.device.type == "cpu":
        return flex_attention(queries, keys, values, **given)
    if torch.compiler.is_compiling():  # nothing can be tried in here: by count, two stages fit with a bias
        given["kernel_options"] = OPTIONS["two stages"] if any(added) else {}
        return flex_attention(queries, keys, values, **given)
    kind = Kind(str(queries.device), queries.dtype, (queries.shape[-1], values.shape[-1]), *added, gradients)
    options = options_for(kind, _attempt)
    try:
        return _compiled()(queries, keys, values, kernel_options=options, **given)
    except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
        raise NotPossibleError(f"not possible: backend 'flex' here: {_cause(error)}") from error


def _attempt(kind: Kind, options: Options) -> None:
    """One pass of a kind over tiny tensors."""

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=kind.device, requires_grad=kind.gradients)

    sight, (width, value_width) = Sight(queries=TRIED, keys=TRIED, causal=True), kind.widths
    with torch.inference_mode(False), torch.set_grad_enabled(kind.gradients):
        line = zeros(1, 2 * TRIED - 1) if kind.line else None
        near = zeros(1, 1, TRIED, 4) if kind.near else None
        heads = [zeros(1, 1, TRIED, size, dtype=kind.precision) for size in (width, width, value_width)]
        out, _ = _compiled()(
            *heads, score_mod=score_by_distance(line, near, 4, sight), scale=1.0,
            block_mask=sight.kept_mask(heads[0].device), return_aux=AuxRequest(lse=True), kernel_options=options,
        )  # fmt: skip
        if kind.gradients:
            out.float().sum().backward()


def _cause(error: Exception) -> str:
    """What went wrong, as a line."""
    if isinstance(error, torch._dynamo.exc.FailOnRecompileLimitHit):
        return f"over {SHAPES} kinds of calls (lengths, precisions, forms) were asked for in one process"
    return said(error)


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
    seen = Sight.of(context).pair()
    batch = torch.arange(queries.shape[0], device=keys.device)[:, None, None]
    visible = seen(batch, batch, (index - offset)[None], key.clamp_min(0)[None]) & (key >= 0)
    return (scores - sums[..., None]).exp().masked_fill(~visible[:, None], 0.0)
