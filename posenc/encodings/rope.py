"""Rotary position embedding (Su et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack

AT_ONCE = 2**18
"""Numbers that are turned at once where a narrow type is widened: 1 MB of float32, a core's cache."""


def rotate_pairs(x: Tensor, turns: Tensor) -> Tensor:
    """Turn channels (2i, 2i+1) of x (..., L, K) by angles whose cosine and sine are `turns` (..., L, R/2, 2), R <= K.

    The sparse product of equation (34). Channels from R on stay as they are. In float32 at the least: bf16 and
    fp16 are widened and rounded once, at the end.
    """
    rotated = 2 * turns.shape[-2]
    first = x[..., :rotated]
    if torch.compiler.is_compiling():  # plain arithmetic, which a compiler makes one pass over memory of
        even, odd = first.to(turns.dtype).unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = turns.unbind(-1)
        turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)
    elif x.dtype != turns.dtype and x.device.type == "cpu" and not turns.requires_grad:
        turned = _Narrow.apply(first, turns)
    else:
        turned = _multiplied(first.to(turns.dtype), turns).to(x.dtype)
    return turned if rotated == x.shape[-1] else torch.cat((turned, x[..., rotated:]), dim=-1)


def _multiplied(x: Tensor, turns: Tensor) -> Tensor:
    """Pairs of channels times cosine and sine, as complex numbers: the quickest single operation that torch has."""
    return torch.view_as_real(_pairs(x) * torch.view_as_complex(turns)).flatten(-2)


def _pairs(x: Tensor) -> Tensor:
    """x (..., K) as complex numbers (..., K/2): a view, where x lies in memory as one needs."""
    return torch.view_as_complex((x if _holds_pairs(x) else x.contiguous()).unflatten(-1, (-1, 2)))


def _holds_pairs(x: Tensor) -> bool:
    """Whether the two channels of each pair stand together, and no pair at an odd place."""
    return x.stride(-1) == 1 and all(stride % 2 == 0 for stride in (*x.stride()[:-1], x.storage_offset()))


class _Narrow(torch.autograd.Function):
    """The product for bf16 and fp16 on a CPU: widened, multiplied and rounded some rows at a time, within the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, turns: Tensor) -> Tensor:
        ctx.save_for_backward(turns)
        out = torch.empty_like(x)
        length = x.shape[-2]
        step = max(1, AT_ONCE * length // max(1, x.numel()))
        order = torch.preserve_format if _holds_pairs(x) else torch.contiguous_format
        # One for all, since a fresh one would not be cached.
        buffer = torch.empty_like(x[..., :step, :], dtype=turns.dtype, memory_format=order)
        for first in range(0, length, step):
            rows = slice(first, first + step)
            wide = buffer[..., : length - first, :]
            pairs = torch.view_as_complex(wide.copy_(x[..., rows, :]).unflatten(-1, (-1, 2)))
            pairs *= torch.view_as_complex(turns[..., rows, :, :])
            out[..., rows, :] = wide
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (turns,) = ctx.saved_tensors
        return _Narrow.apply(grad, turns * turns.new_tensor([1.0, -1.0])), None  # turned back


def turned(
    x: Tensor, positions: Tensor, context: Context, owner: Encoding, key: object, turns: Callable[[Tensor], Tensor]
) -> Tensor:
    """x (B,H,L,any) with pairs turned by `turns(positions)`: cos and sin (B or 1, H or 1, L, R/2, 2), best in float64.

    For a pass's own positions a table of all keys is made once, kept under `key`: queries are the last of the keys.
    What differs by layer or by side has that in its key.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if positions is not context.query_positions and positions is not context.key_positions:
        return rotate_pairs(x, turns(positions).to(dtype))  # a subclass's own
    table = context.once(owner, (key, dtype), lambda: turns(context.key_positions).to(dtype))
    return rotate_pairs(x, table[:, :, table.shape[2] - positions.shape[1] :])


class Rope(Encoding):
    """q_m = R_m W_q x_m, k_n = R_n W_k x_n: channel pairs turned by m theta_i (equations 14, 15 and 34).

    theta_i = base^(-2(i-1)/K), pairs (2i-1, 2i) interleaved as in the paper. Llama's and NeoX's layout of two
    halves is this one up to a permutation of channels. The whole head is turned; some libraries turn a half or a
    quarter. Angles are built in float64: in float32 they are off by 2.5e-4 at position 2,048, in bf16 by 8.

    In a Performer the heads are rotated before the random features (the paper's code does this; "inside").
    `rope_outside` is equation (19).

    Options:
        base: the longest wavelength is 2 pi times this.
        fraction: the part of the head's channels that is turned, from the first on.
    """

    name = "rope"
    look = ("rotary", 0)
    title = "rotates queries and keys by their positions"
    paper = "Su et al. 2021, arXiv:2104.09864, equations 14, 15 and 34"
    formula = "(R_i q).(R_j k), R_p turns pairs by p theta_c"
    relative = True
    keeps_norms = True
    linear_form: ClassVar[str | None] = "inside"

    def __init__(self, stack: Stack, *, base: float = 10000.0, fraction: float = 1.0) -> None:
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: must be more than 0 and at most 1")
        self.base, self.fraction = base, fraction
        if self.linear_form != "outside":  # what is turned there are features, not heads
            self.rotated(stack.head_width)

    def rotated(self, width: int) -> int:
        """How many of `width` channels are turned: an even number, or a ValueError."""
        channels = round(width * self.fraction)
        if abs(channels - width * self.fraction) > 1e-6 or channels % 2 or not channels:
            given = f"{width * self.fraction:g} channels ({self.fraction:g} of {width})"
            raise ValueError(f"{given}: must be an even number")
        return channels

    def frequencies(self, rotated: int, device: torch.device) -> Tensor:
        """theta of each pair of the `rotated` channels: float64 (R/2,)."""
        exponents = torch.arange(0, rotated, 2, dtype=torch.float64, device=device) / rotated
        return self.base**-exponents

    def turns(self, positions: Tensor, width: int) -> Tensor:
        """cos and sin of m theta for positions (B or 1, L, 1) and `width` channels: float64 (B or 1, 1, L, R/2, 2)."""
        frequencies = self.frequencies(self.rotated(width), positions.device)
        angles = positions[..., 0].double()[:, None, :, None] * frequencies
        return torch.stack((angles.cos(), angles.sin()), dim=-1)

    def _rotate(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        width = x.shape[-1]
        return turned(x, positions, context, self, ("turns", width), lambda at: self.turns(at, width))

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(keys, positions, context)


class RopeOutside(Rope):
    """RoPE on a Performer's features, in the numerator alone (equation 19).

    sum_n (R_m phi(q_m))^T (R_n phi(k_n)) v_n / sum_n phi(q_m)^T phi(k_n): weights can be negative and need not
    sum to 1. The number of features must be even. Softmax attention has no features, so it has no such form.
    """

    name = "rope_outside"
    look = ("rotary", 1)
    title = "rotates a Performer's features, in the numerator alone"
    paper = "Su et al. 2021, arXiv:2104.09864, equation 19"
    formula = "(R_i f(q)).(R_j f(k)) above, f(q).f(k) below"
    linear_form = "outside"
    softmax_reason = "not possible: equation (19) rotates a Performer's features, and softmax attention has none"

    def why_not_features(self, features: int) -> str | None:
        try:
            self.rotated(features)
        except ValueError as error:
            return f"not possible: it turns features by pairs, and {error}"
        return None
