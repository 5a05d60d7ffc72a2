"""Selective RoPE: angles that the tokens themselves choose (Movahedi et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.rows import before, convolved, summed
from posenc.api.stack import Stack
from posenc.api.starts import uniform_
from posenc.encodings.rope import rotate_pairs

TAPS = 4
"""Tokens that the convolution sees: each and the three before it."""
BASE = 500_000.0


class SelectiveRope(Encoding):
    """q_i, k_i turned by temperature_c sum_{t <= i} phi_t,c, phi = conv(V U x), x of unit length in each head's slice.

    U (rank, D) and V (H K/2, rank) are each layer's own, conv is causal, by channel, four tokens wide, without an
    activation. The temperature is base^(-2c/K) and not trained. Both queries and keys are turned by the same angles, so
    that what counts is the sum between them. Pairs are interleaved here; the authors' code has two halves. U, V, the
    convolution and the gate start as torch's own layers do, as in the authors' code.

    Decoding with cached keys would need the sum so far: it decodes without a cache.

    Options:
        rank: of the projection. gate: phi times sigmoid(w_h.x + b_h), a gate for each head.
    """

    name = "selective_rope"
    look = ("rotary", 13)
    title = "RoPE by angles that a convolution over tokens chooses"
    paper = "Movahedi et al. 2025, arXiv:2511.17388; the released code"
    formula = "RoPE with angles temperature_c sum_{t<=i} conv(V U x)_t"
    directions = frozenset({"causal"})
    relative = True
    keeps_norms = True
    cached_decoding = False
    linear_form = "inside"
    convolves = True

    def __init__(self, stack: Stack, *, rank: int = 16, gate: bool = False) -> None:
        super().__init__(stack)
        if rank < 1:
            raise ValueError(f"rank={rank}: must be at least 1")
        if stack.head_width % 2:
            raise ValueError(f"head width {stack.head_width} is odd: channels are turned by pairs")
        angles = stack.heads * stack.head_width // 2
        self.down = nn.Parameter(torch.empty(stack.layers, rank, stack.width))
        self.up = nn.Parameter(torch.empty(stack.layers, angles, rank))
        if self.convolves:
            self.taps = nn.Parameter(torch.empty(stack.layers, angles, TAPS))
        self.gated = gate
        if gate:
            self.gate_weight = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.width))
            self.gate_bias = nn.Parameter(torch.empty(stack.layers, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            inputs = self.stack.width if name == "gate_bias" else parameter.shape[-1]
            uniform_(parameter, inputs**-0.5, generator)

    def _turns(self, context: Context) -> Tensor:
        """cos and sin of this layer for all keys, float64 (B,H,S,K/2,2)."""
        layer, stack = context.layer, self.stack
        assert context.hidden is not None  # attention sets it in each layer
        x = context.hidden.to(torch.promote_types(context.hidden.dtype, torch.float32))
        x = x.unflatten(-1, (stack.heads, -1))
        x = (x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()).flatten(-2)
        phi = functional.linear(functional.linear(x, self.down[layer].to(x.dtype)), self.up[layer].to(x.dtype))
        if context.mask is not None:  # padding turns nothing, and is no token before the first
            phi = phi * context.mask[..., None]
        phi = self._differences(phi, context)
        phi = phi.unflatten(-1, (stack.heads, -1))  # (B,S,H,K/2)
        if self.gated:
            gate = functional.linear(x, self.gate_weight[layer].to(x.dtype), self.gate_bias[layer].to(x.dtype))
            phi = phi * gate.sigmoid()[..., None]
        if context.mask is not None:
            phi = phi * context.mask[..., None, None]
        pairs = torch.arange(0, stack.head_width, 2, dtype=torch.float32, device=x.device) / stack.head_width
        temperature = (1.0 / BASE**pairs).double()  # rounded as the authors' is, so that angles are theirs
        angles = summed(phi.double(), context.segments).transpose(1, 2) * temperature
        return torch.stack((angles.cos(), angles.sin()), dim=-1)

    def _differences(self, phi: Tensor, context: Context) -> Tensor:
        """phi (B,S,H K/2) as it is summed: convolved, within each packed segment."""
        return convolved(phi, self.taps[context.layer].to(phi.dtype), context.segments)

    def _rotate(self, x: Tensor, context: Context) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        made = context.once(self, ("turns", context.layer, dtype), lambda: self._turns(context).to(dtype))
        return rotate_pairs(x, made[:, :, made.shape[2] - x.shape[2] :])

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(queries, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._rotate(keys, context)


class SelectiveRopeNoConvolution(SelectiveRope):
    """Selective RoPE without its convolution: phi_t - phi_{t-1} is summed in its place, which gives phi_i itself.

    So the authors' code; no sum over tokens is left, but for the gate's.
    """

    name = "selective_rope_no_convolution"
    look = ("rotary", 14)
    title = "RoPE by angles that each token chooses for itself"
    formula = "RoPE with angles temperature_c (V U x)_i"
    convolves = False

    def _differences(self, phi: Tensor, context: Context) -> Tensor:
        return phi - before(phi, 1, context.segments)
