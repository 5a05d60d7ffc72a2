"""GRAPE: group representational position encoding, its two forms that its authors' code trains most."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_
from posenc.encodings.alibi import slopes
from posenc.encodings.rope import Rope, turned


class GrapeM(Rope):
    """RoPE whose frequencies are learnt: theta_c = exp(w_c), started at RoPE's, turned by minus the angle.

    The multiplicative form on coordinate planes (section 3.1, "commuting"); the paper's general exp(n omega (a b^T -
    b a^T)) has planes of its own and is wider. Each layer has its own frequencies. Pairs are interleaved as in RoPE;
    the authors' code has the layout of two halves.

    Options:
        base: of the start, as RoPE's.
        per_head: frequencies of each head's own; the authors' default is one set for all heads of a layer.
    """

    name = "grape_m"
    look = ("rotary", 15)
    title = "RoPE with learnt frequencies"
    paper = "Zhang et al. 2025, arXiv:2512.07805, section 3.1; the released code"
    formula = "(R_i q).(R_j k), R_p turns pairs by -p exp(w_c), w learnt"

    def __init__(self, stack: Stack, *, base: float = 10000.0, per_head: bool = False) -> None:
        super().__init__(stack, base=base)
        heads = stack.heads if per_head else 1
        self.logs = nn.Parameter(torch.empty(stack.layers, heads, stack.head_width // 2))

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.logs.copy_(self.frequencies(self.stack.head_width, self.logs.device).log())

    def _turns(self, positions: Tensor, context: Context) -> Tensor:
        """cos and sin of this layer (B or 1, H or 1, L, K/2, 2) in float64."""
        frequencies = self.logs[context.layer].double().exp()
        angles = -positions[..., 0].double()[:, None, :, None] * frequencies[:, None]
        return torch.stack((angles.cos(), angles.sin()), dim=-1)

    def _rotate(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        return turned(x, positions, context, self, ("turns", context.layer), lambda at: self._turns(at, context))


class GrapeA(Encoding):
    """score - n m_h softplus(omega_h) (softplus(v_h.q_i / sqrt(K)) + softplus(u_h.k_j / sqrt(K))), n = i - j.

    The additive form gated by query and key, as the authors' code has it: u_h and v_h are taken at unit length, m_h are
    ALiBi's slopes. The paper's general I + n omega A, and its forms gated by one of both or along the path, are wider
    or others. Each layer has u, v (H,K) and omega (H) of its own. u and v start at random, omega at 0: the start is
    ours, as the paper is silent.
    """

    name = "grape_a"
    look = ("content", 7)
    title = "a penalty that grows with the distance, gated by query and key"
    paper = "Zhang et al. 2025, arXiv:2512.07805, section 4; the released code, gated by query and key"
    formula = "s - n m_h softplus(omega_h) (softplus(v.q / sqrt(K)) + softplus(u.k / sqrt(K)))"
    directions = frozenset({"causal"})
    relative = True
    linear_reason = "not possible: its slope depends on the query and the key of each pair"

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.u = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.head_width))
        self.v = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.head_width))
        self.omega = nn.Parameter(torch.empty(stack.layers, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        for vectors in (self.u, self.v):
            normal_(vectors, self.stack.head_width**-0.5, generator)
        nn.init.zeros_(self.omega)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        wide = torch.promote_types(queries.dtype, torch.float32)
        omega = self.omega[context.layer].to(wide)
        rate = slopes(self.stack.heads, queries.device).to(wide) * functional.softplus(omega)
        of_query = self._gate(queries.to(wide), self.v[context.layer])  # (B,H,L)
        of_key = self._gate(keys.to(wide), self.u[context.layer])  # (B,H,S)
        away = context.query_positions[:, :, None, 0] - context.key_positions[:, None, :, 0]
        gates = of_query[..., None] + of_key[:, :, None]
        return -rate[:, None, None] * away[:, None].to(wide) * gates

    def _gate(self, x: Tensor, direction: Tensor) -> Tensor:
        unit = functional.normalize(direction.to(x.dtype), dim=-1)
        return functional.softplus((x @ unit[..., None])[..., 0] / math.sqrt(self.stack.head_width))
