"""What an encoding's biases and its context add to scores: by distance as a line, or laid out as a table of L x S."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding


def hidden_pairs(context: Context) -> Tensor | None:
    """`context.visible`; None where a query may see all, or all before it and itself."""
    plain = context.mask is None and context.segments is None and context.window is None
    return None if plain and context.queries == context.keys else context.visible


def by_index(encoding: Encoding, context: Context) -> bool:
    """Whether positions differ exactly as the places of tokens do, wherever a query may look."""
    return context.coordinates is None and not encoding.overrides("positions")


def _bare_line(encoding: Encoding, context: Context) -> tuple[Tensor, Tensor]:
    """Distances from 1 - L - offset to S - 1 - offset, and the bias (H, L + S - 1) of each."""
    distances = torch.arange(1 - context.queries - context.offset, context.keys - context.offset, device=context.device)
    return distances, encoding.distance_bias(distances, context)


def distance_line(encoding: Encoding, context: Context) -> Tensor | None:
    """The bias of each distance from 1 - L - offset to S - 1 - offset, (H, L + S - 1); None where there is none.

    -inf where a causal query must not look, and beyond the window. With the default positions, positions differ exactly
    as indices do wherever a query may look, so one line serves padding and packed rows too.
    """
    biased = encoding.overrides("distance_bias")
    if not biased and context.window is None:
        return None

    def line() -> Tensor:
        if biased:
            distances, bias = _bare_line(encoding, context)
        else:
            first, last = 1 - context.queries - context.offset, context.keys - context.offset
            distances = torch.arange(first, last, device=context.device)
            bias = torch.zeros(context.stack.heads, len(distances), device=context.device)
        if context.stack.causal:
            bias = bias.masked_fill(distances > 0, -torch.inf)
        return bias if context.window is None else bias.masked_fill(distances.abs() >= context.window, -torch.inf)

    return context.once(encoding, ("line", context.window), line) if encoding.shared or not biased else line()


def _laid_out(line: Tensor, keys: int) -> Tensor:
    """(H, L + S - 1) along the diagonals of (1,H,L,S)."""
    return line.unfold(1, keys, 1).flip(1)[None]


def _of_pairs(encoding: Encoding, context: Context) -> Tensor:
    """The encoding's `distance_bias` (B or 1, H, L, S), asked for at the distance of each pair."""
    distances = context.key_positions[:, None] - context.query_positions[:, :, None]  # (B,L,S,A)
    asked = distances.flatten(0, 2) if distances.shape[-1] > 1 else distances.flatten()
    return encoding.distance_bias(asked, context).unflatten(1, distances.shape[:3]).transpose(0, 1)


def distance_table(encoding: Encoding, context: Context) -> Tensor:
    """The encoding's `distance_bias` laid out as (B or 1, H, L, S), -inf where a causal query must not look.

    Distances are asked for once, L + S - 1 of them, and laid out along the diagonals.
    """
    if by_index(encoding, context) and (line := distance_line(encoding, context)) is not None:
        return _laid_out(line, context.keys)
    bias = _of_pairs(encoding, context)
    if context.stack.causal:
        index = torch.arange(context.keys, device=context.device)
        bias = bias.masked_fill(index > index[context.offset :, None], -torch.inf)
    return bias


def score_table(encoding: Encoding, queries: Tensor, keys: Tensor, context: Context) -> Tensor | None:
    """All that is added to the scaled scores: biases, and -inf where a query may not look.

    None means: nothing but, perhaps, the plain causal triangle, which a backend makes by itself.
    """
    table = None
    if encoding.overrides("distance_bias"):

        def made() -> Tensor:
            bias, seen = distance_table(encoding, context), hidden_pairs(context)
            return bias if seen is None else bias.masked_fill(~seen, -torch.inf)

        table = context.once(encoding, ("table", context.window), made) if encoding.shared else made()
    if encoding.overrides("score_bias"):
        scores = encoding.score_bias(queries, keys, context)
        if table is None:
            seen = hidden_pairs(context)
            if seen is None and context.stack.causal:
                seen = context.visible
            scores = scores if seen is None else scores + _shut(seen, context, scores.dtype)
        table = scores if table is None else table + scores
    return hidden_pairs(context) if table is None else table


def _shut(seen: Tensor, context: Context, dtype: torch.dtype) -> Tensor:
    """-inf where a query may not look, else 0, (B or 1, 1, L, S).

    Added, it costs the backward pass nothing; filling in would clear the gradients of pairs where they are 0 already.
    """

    def made() -> Tensor:
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)

    return context.once(_shut, (context.window, dtype), made)


def bare_biases(encoding: Encoding, queries: Tensor, keys: Tensor, context: Context) -> Tensor | None:
    """The biases alone, (B or 1, H, L, S): those of pairs that are hidden too, as `change_scores` is to see them."""
    table = None
    if encoding.overrides("distance_bias"):
        if by_index(encoding, context):
            table = _laid_out(_bare_line(encoding, context)[1], context.keys)
        else:
            table = _of_pairs(encoding, context)
    if encoding.overrides("score_bias"):
        scores = encoding.score_bias(queries, keys, context)
        table = scores if table is None else table + scores
    return table
