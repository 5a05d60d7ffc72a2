"""xPos: RoPE whose scores decay with distance (Sun et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from posenc.api.encoding import Context
from posenc.api.stack import Stack
from posenc.encodings.rope import Rope, turned

LONGEST = 32_768
"""Tokens: a key's largest scale is 3.5^(n / 512), and float32 ends at 3.4e38, after 36,000."""


class XPos(Rope):
    """Re sum_c q_c conj(k_c) e^{i n theta_c} zeta_c^(n / scale_base), zeta_c = (2c/K + 0.4) / 1.4, n = i - j.

    RoPE, with queries scaled by zeta^(p / scale_base) and keys by its inverse (section 3.2). Positions p are counted
    from the row's first: the released code counts from the middle, which cancels, but moves with the length, so that
    cached keys would be wrong. Causal: beyond the query its scores would grow.

    Options:
        base: as RoPE's. scale_base: how slow the decay is; 512 in the paper.
    """

    name = "xpos"
    look = ("rotary", 2)
    title = "RoPE whose scores decay with distance"
    paper = "Sun et al. 2022, arXiv:2212.10554, equation 6 and section 3.2"
    formula = "Re sum_c q_c conj(k_c) e^(i n theta_c) zeta_c^(n / 512)"
    directions = frozenset({"causal"})
    keeps_norms = False
    linear_form: ClassVar[str | None] = None
    linear_reason = "not possible: its scales belong outside the features (xpos_outside)"

    def __init__(self, stack: Stack, *, base: float = 10000.0, scale_base: float = 512.0) -> None:
        super().__init__(stack, base=base)
        if scale_base <= 0:
            raise ValueError(f"scale_base={scale_base}: must be more than 0")
        self.scale_base = scale_base

    def why_not_at(self, length: int) -> str | None:
        if length > LONGEST * self.scale_base / 512:
            return (
                f"not possible: float32 does not hold its scales beyond {LONGEST * self.scale_base / 512:,.0f} tokens"
            )
        return super().why_not_at(length)

    def zeta(self, width: int, device: torch.device) -> Tensor:
        """Of each pair of `width` channels: float64 (width/2,)."""
        return (torch.arange(0, width, 2, dtype=torch.float64, device=device) / width + 0.4) / 1.4

    def _scaled(self, x: Tensor, positions: Tensor, context: Context, sign: int) -> Tensor:
        def turns(at: Tensor) -> Tensor:
            """cos and sin, times the scale: float64 (B or 1, 1, L, K/2, 2)."""
            zeta = self.zeta(self.stack.head_width, at.device)
            first = context.key_positions[..., 0].amin(1, keepdim=True)  # the row's own: what is cached keeps it
            power = sign * (at[..., 0] - first).double()[:, None, :, None] / self.scale_base
            return self.turns(at, self.stack.head_width) * (zeta**power)[..., None]

        return turned(x, positions, context, self, ("scaled", sign), turns)

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._scaled(queries, positions, context, 1)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._scaled(keys, positions, context, -1)


class XPosOutside(XPos):
    """xPos on a Performer's features, in the numerator alone: equation (19) of RoFormer with a complex decay.

    sum_j Re sum_c f(q)_c conj(f(k)_c) e^{i n theta_c} zeta_c^(n / scale_base) v_j / sum_j f(q).f(k), c over pairs of
    the M features. Weights can be negative and need not sum to 1. The decay is carried from chunk to chunk, so there is
    no length at which scales overflow.
    """

    name = "xpos_outside"
    look = ("rotary", 3)
    title = "rotates a Performer's features with a decay, in the numerator alone"
    paper = "Sun et al. 2022, arXiv:2212.10554, section 3.2, in equation 19 of Su et al. 2021, arXiv:2104.09864"
    formula = "Re sum_c f(q)_c conj(f(k)_c) e^(i n theta_c) zeta_c^(n / 512) above, f(q).f(k) below"
    linear_form = "outside"
    softmax_reason = "not possible: it turns a Performer's features, and softmax attention has none"

    def __init__(self, stack: Stack, *, base: float = 10000.0, scale_base: float = 512.0) -> None:
        super().__init__(stack, base=base, scale_base=scale_base)
        if scale_base < 16:  # within a chunk the factors of keys are multiplied out
            raise ValueError(f"scale_base={scale_base}: must be at least 16")

    def why_not_features(self, features: int) -> str | None:
        return f"not possible: it turns features by pairs, and {features} are odd" if features % 2 else None

    def why_not_at(self, length: int) -> str | None:
        return None

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(keys, positions, context)

    def feature_decay(self, features: int, context: Context) -> Tensor:
        return (self.zeta(features, context.device).log() / self.scale_base).repeat_interleave(2)
