"""Rows of tokens as hooks see them: how long an example is, and what stood before a token in it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.context import Context


def example_lengths(context: Context) -> Tensor:
    """How many real tokens each key's example has: (B or 1, S), or (B or 1, 1) where rows hold one each."""
    if context.segments is None:
        return context.lengths[:, None]
    same = context.segments[:, :, None] == context.segments[:, None, :]
    if context.mask is not None:
        same = same & context.mask[:, None, :]
    return same.sum(-1)


def skewed(products: Tensor, start: int, count: int) -> Tensor:
    """Each row (...,R,C) from one column earlier than the row before it, the first from `start`: (...,R,count).

    By reading on in memory: C must be more than `count`. What is read beyond a row's ends is another row's. So a column
    for each distance becomes one for each token, many times faster than by `gather` and its gradient.
    """
    rows, columns = products.shape[-2:]
    line = products.flatten(-2).narrow(-1, start, rows * (columns - 1))
    return line.unflatten(-1, (rows, columns - 1))[..., :count]


def filled(x: Tensor, multiple: int) -> Tensor:
    """(B,N) made as long as a multiple of a number by its last column: torch pads no integers so on every device."""
    missing = -x.shape[1] % multiple
    return torch.cat((x, x[:, -1:].expand(-1, missing)), dim=1) if missing else x


def before(x: Tensor, back: int, segments: Tensor | None) -> Tensor:
    """What stood so many tokens before, (B,S,any); 0 before a row begins, or one of its packed segments (B,S)."""
    if not back:
        return x
    moved = functional.pad(x, (0, 0, back, 0))[:, : x.shape[1]]
    if segments is not None:
        same = segments == functional.pad(segments, (back, 0), value=-1)[:, : x.shape[1]]
        moved = moved * same[..., None]
    return moved


def summed(x: Tensor, segments: Tensor | None) -> Tensor:
    """The sum of each token and all before it, (B,S,...); anew in each packed segment (B,S).

    By a difference of sums: in float64, so that the digits of short ones are not lost.
    """
    sums = x.cumsum(1)
    if segments is None:
        return sums
    index = torch.arange(x.shape[1], device=x.device).expand_as(segments)
    first = functional.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True)
    starts = torch.where(first, index, 0).cummax(1).values
    before_it = (sums - x).gather(1, starts.view(*starts.shape, *[1] * (x.dim() - 2)).expand_as(x))
    return sums - before_it


def convolved(x: Tensor, taps: Tensor, segments: Tensor | None) -> Tensor:
    """A causal convolution by channel of x (B,S,C) with taps (C,W), the last of which is a token's own.

    Padding must be 0 in x: it is no token before the first. Each packed segment begins anew.
    """
    width = taps.shape[-1]
    return sum((taps[:, width - 1 - back] * before(x, back, segments) for back in range(width)), torch.zeros(()))
