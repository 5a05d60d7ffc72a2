"""Transformer-XL's relative attention (Dai et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.rows import skewed
from posenc.api.stack import Stack
from posenc.api.starts import normal_, xavier_uniform_


class TransformerXl(Encoding):
    """((q_i + u).k_j + (q_i + v).W R_n) / sqrt(K), R_n = [sin(n theta), cos(n theta)], n = i - j.

    theta_c = base^(-2c/D). The four terms of section 3.3. u and v (H,K) and W (D, H K) are each layer's own. R has
    sines first and cosines then, as the code has it. The product with R_n is taken for every distance, L x (L + S)
    numbers a head, and its rows are shifted into place: no table of L x S x K, and no gather where tokens are counted
    one by one.

    Options:
        base: of R's wavelengths.
    """

    name = "transformer_xl"
    look = ("vectors", 1)
    title = "scores of content and of sinusoidal distance, each with a learnt offset"
    paper = "Dai et al. 2019, arXiv:1901.02860, section 3.3"
    formula = "((q + u).k + (q + v).W R_n) / sqrt(K), R_n sinusoids of n"
    relative = True
    linear_reason = "not possible: as features in a wider space (K + D) its estimate is off by more than the output"

    def __init__(self, stack: Stack, *, base: float = 10000.0) -> None:
        super().__init__(stack)
        if base <= 1:
            raise ValueError(f"base={base}: must be more than 1")
        if stack.width % 2:
            raise ValueError(f"width {stack.width} is odd: sines and cosines come in pairs")
        self.base = base
        size = stack.heads * stack.head_width
        self.u = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.head_width))
        self.v = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.head_width))
        self.weight = nn.Parameter(torch.empty(stack.layers, size, stack.width))

    def initialise(self, generator: torch.Generator) -> None:
        for offset in (self.u, self.v):
            normal_(offset, 0.02, generator)
        for weight in self.weight:
            xavier_uniform_(weight, generator)

    def _sinusoids(self, away: Tensor) -> Tensor:
        """R of distances query - key (N,): float64 (N,D)."""
        width = self.stack.width
        exponents = torch.arange(0, width, 2, dtype=torch.float64, device=away.device) / width
        angles = away.double()[:, None] * self.base**-exponents
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        dtype, length, size = queries.dtype, queries.shape[2], keys.shape[2]
        u, v = (offset[context.layer][:, None].to(dtype) for offset in (self.u, self.v))
        # Column m holds the distance n = S - 1 - m, from the farthest key behind to those ahead (causal: none but one).
        columns = size + (1 if self.stack.causal else length)
        weight = self.weight[context.layer]

        def table() -> Tensor:
            return self._sinusoids(size - 1 - torch.arange(columns, device=keys.device)).to(weight.dtype)

        of_distance = nn.functional.linear(context.once(self, ("table", size, columns), table), weight)
        of_distance = of_distance * self.score_scale  # here, and not where there is a number for each pair
        of_distance = of_distance.unflatten(-1, (self.stack.heads, -1)).permute(1, 2, 0).to(dtype)  # (H,K,columns)
        products = (queries + v) @ of_distance  # (B,H,L,columns)
        if context.counted:
            placed = skewed(products, length - 1, size)  # beyond a row's end stand hidden keys alone
        else:
            away = context.query_positions[:, :, None, 0] - context.key_positions[:, None, :, 0]
            where = (size - 1 - away).clamp(0, columns - 1)[:, None]
            placed = products.gather(-1, where.expand(*queries.shape[:3], size))
        of_key = (keys @ u.transpose(-1, -2))[..., 0][:, :, None]  # (B,H,1,S)
        return placed + of_key * self.score_scale
