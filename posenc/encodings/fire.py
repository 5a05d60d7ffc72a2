"""FIRE: functional interpolation for relative positions (Li et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import uniform_

EPSILON = 1e-6
HIDDEN = 32


class Fire(Encoding):
    """score + MLP(psi(i - j) / (psi(max(i, T)) + 1e-6)), psi(x) = log(|c x| + 1), T = |t length|: equations 6 to 9.

    The distance in parts of the query's own position: what the MLP is asked for stays between 0 and 1 at any length.
    c, t and the MLP (1, 32, H: ReLU, with biases) are learnt, in each layer its own. c starts at 0.1 and t at 1; the
    MLP as torch starts linear layers. i counts from 0, as in the authors' code.

    Options:
        length: what the learnt threshold is a multiple of; 512 in the authors' code, whatever the training length.
    """

    name = "fire"
    look = ("distance", 3)
    title = "a small network on the distance, in parts of the query's position"
    paper = "Li et al. 2024, arXiv:2310.04418, equations 6 to 9"
    formula = "s + MLP(psi(n) / psi(max(i, L))), psi(x) = log(1 + |c x|)"
    directions = frozenset({"causal"})
    linear_reason = "not possible: its normaliser depends on the query's position"

    def __init__(self, stack: Stack, *, length: float = 512.0) -> None:
        super().__init__(stack)
        if length <= 0:
            raise ValueError(f"length={length}: must be more than 0")
        self.length = length
        layers, heads = stack.layers, stack.heads
        self.c, self.threshold = (nn.Parameter(torch.empty(layers)) for _ in range(2))
        self.inner, self.inner_bias = (nn.Parameter(torch.empty(layers, HIDDEN)) for _ in range(2))
        self.outer = nn.Parameter(torch.empty(layers, heads, HIDDEN))
        self.outer_bias = nn.Parameter(torch.empty(layers, heads))

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.c.fill_(0.1)
            self.threshold.fill_(1.0)
        for parameters, inputs in (((self.inner, self.inner_bias), 1), ((self.outer, self.outer_bias), HIDDEN)):
            for parameter in parameters:
                uniform_(parameter, inputs**-0.5, generator)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        layer, wide = context.layer, torch.promote_types(queries.dtype, torch.float32)
        at, others = (places[..., 0].to(wide) for places in (context.query_positions, context.key_positions))
        parts = (self.c, self.inner, self.inner_bias, self.outer, self.outer_bias)
        c, inner, inner_bias, outer, outer_bias = (part[layer].to(wide) for part in parts)
        threshold = (self.threshold[layer].to(wide) * self.length).abs()

        def psi(x: Tensor) -> Tensor:
            return ((c * x).abs() + 1).log()

        share = psi(at[:, :, None] - others[:, None]) / (psi(torch.maximum(at, threshold)) + EPSILON)[..., None]
        hidden = (share[..., None] * inner + inner_bias).relu()  # (B or 1, L, S, 32)
        return (hidden @ outer.T + outer_bias).permute(0, 3, 1, 2)
