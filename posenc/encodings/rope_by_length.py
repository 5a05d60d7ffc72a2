"""RoPE whose frequencies depend on the length of the example at hand: dynamic NTK, LongRoPE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posenc.api.encoding import Context
from posenc.api.rows import example_lengths
from posenc.api.stack import Stack
from posenc.encodings.rope import Rope, turned


class _ByLength(Rope):
    """RoPE by frequencies of each example's own length: its real tokens, or those of its packed segment.

    Nothing is kept between passes: a long example leaves no trace in a later short one. (Implementations that grow a
    table with the longest row so far do.) As one more token changes how all before it are turned, cached keys would be
    wrong: it decodes without a cache.
    """

    cached_decoding = False

    def __init__(self, stack: Stack, *, base: float, factor: float, original: int) -> None:
        super().__init__(stack, base=base)
        if factor < 1:
            raise ValueError(f"factor={factor}: must be at least 1")
        if original < 0:
            raise ValueError(f"original={original}: must be a length, or 0 for that of training")
        self.factor, self.original = factor, original or stack.max_length

    def by_length(self, lengths: Tensor) -> Tensor:
        """theta for examples of these lengths (...): float64 (..., K/2)."""
        raise NotImplementedError

    def _table(self, positions: Tensor, context: Context) -> Tensor:
        lengths = example_lengths(context)
        if lengths.shape[1] > 1:
            lengths = lengths[:, lengths.shape[1] - positions.shape[1] :]
        angles = positions[..., 0].double()[..., None] * self.by_length(lengths)  # (B or 1, L, K/2)
        return torch.stack((angles.cos(), angles.sin()), dim=-1)[:, None]

    def _rotate(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        return turned(x, positions, context, self, "turns", lambda at: self._table(at, context))


class RopeDynamic(_ByLength):
    """NTK-aware scaling by the length: base (f L'/L0 - (f - 1))^(K/(K-2)), L' = max(L, L0), L the example's length.

    Up to the original length L0 it is RoPE.

    Options:
        base: as RoPE's. factor: f; original: L0, 0 for the length of training.
    """

    name = "rope_dynamic"
    look = ("rotary", 8)
    title = "RoPE with a base that grows with the example's length (dynamic NTK)"
    paper = "emozilla 2023; Peng et al. 2023, arXiv:2309.00071, section 3.3; transformers' code"
    formula = "RoPE with base (f L'/L0 - (f - 1))^(K/(K-2)), L' = max(L, L0)"

    def __init__(self, stack: Stack, *, base: float = 10000.0, factor: float = 4.0, original: int = 0) -> None:
        super().__init__(stack, base=base, factor=factor, original=original)

    def by_length(self, lengths: Tensor) -> Tensor:
        width = self.stack.head_width
        longer = lengths.clamp_min(self.original).double() / self.original
        grown = self.base * (self.factor * longer - (self.factor - 1)) ** (width / max(width - 2, 1))
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=lengths.device) / width
        return grown[..., None] ** -exponents


class LongRope(_ByLength):
    """theta_c / short_c up to the original length L0, theta_c / long_c beyond; scores (1 + ln f / ln L0) sharper.

    The authors search for both lists of factors with an evolutionary search on the model at hand. Without one, short
    factors are 1, and long ones go from 1 to f evenly over the pairs, slow ones interpolated most; lists that were
    found may be set as `short_factors` and `long_factors` (K/2,). Queries times keys get 1 + ln f / ln L0 at every
    length, as the released code has it.

    Options:
        base: as RoPE's. factor: f, how many times longer rows get. original: L0, 0 for the length of training.
    """

    name = "longrope"
    look = ("rotary", 10)
    title = "RoPE with one list of factors up to the original length and another beyond"
    paper = "Ding et al. 2024, arXiv:2402.13753, equations 3 and 5; transformers' code"
    short_factors: Tensor
    long_factors: Tensor
    formula = "RoPE with theta_c / (short_c or long_c by length), s (1 + ln f / ln L0)"

    def __init__(self, stack: Stack, *, base: float = 10000.0, factor: float = 4.0, original: int = 0) -> None:
        super().__init__(stack, base=base, factor=factor, original=original)
        if self.original < 2:
            raise ValueError(f"original={self.original}: must be at least 2 tokens")
        pairs = stack.head_width // 2
        evenly = torch.arange(pairs, dtype=torch.float64) / max(pairs - 1, 1)
        self.register_buffer("short_factors", torch.ones(pairs, dtype=torch.float64), persistent=False)
        self.register_buffer("long_factors", 1 + (factor - 1) * evenly, persistent=False)

    @property
    def score_scale(self) -> float:
        return self.stack.scale() * (1 + math.log(self.factor) / math.log(self.original))

    def by_length(self, lengths: Tensor) -> Tensor:
        theta = self.frequencies(self.stack.head_width, lengths.device)
        short, long = theta / self.short_factors.double(), theta / self.long_factors.double()
        return torch.where((lengths > self.original)[..., None], long, short)
