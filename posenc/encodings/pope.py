"""PoPE: polar coordinates of queries and keys (Gopalakrishnan et al. 2025)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack


class Pope(Encoding):
    """sum_c softplus(q_c) softplus(k_c) cos((j - i) theta_c + delta_c), theta_c = base^(-c/K), c from 0 to K - 1.

    What a channel holds is its magnitude alone, where it stands its angle alone. There is a frequency for each channel,
    so queries and keys are twice as wide: [softplus(q) cos, softplus(q) sin]. delta (H,K) is each layer's own, learnt,
    kept within [-2 pi, 0], and starts from 0, as the paper has it for language models.

    Options:
        base: the longest wavelength is about 2 pi times this.
    """

    name = "pope"
    look = ("rotary", 12)
    title = "magnitudes from content and angles from positions alone"
    paper = "Gopalakrishnan et al. 2025, arXiv:2509.10534, equations 5 to 8"
    formula = "sum_c softplus(q_c) softplus(k_c) cos(theta_c n - delta_c) / sqrt(K)"
    relative = True
    linear_form = "wider"

    def __init__(self, stack: Stack, *, base: float = 10000.0) -> None:
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        self.base = base
        self.delta = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.head_width))

    @property
    def linear_width(self) -> int:
        return 2 * self.stack.head_width

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.delta)

    def _polar(self, x: Tensor, positions: Tensor, shift: Tensor | None) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        width = self.stack.head_width
        theta = self.base ** -(torch.arange(width, dtype=torch.float64, device=x.device) / width)
        angles = positions[..., 0].double()[:, None, :, None] * theta
        angles = angles if shift is None else angles + shift.double()[:, None]
        size = functional.softplus(x.to(wide))
        return torch.cat((size * angles.cos().to(wide), size * angles.sin().to(wide)), dim=-1).to(x.dtype)

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._polar(queries, positions, None)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._polar(keys, positions, self.delta[context.layer].clamp(-2 * math.pi, 0.0))
