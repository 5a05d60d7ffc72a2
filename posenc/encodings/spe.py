"""Stochastic positional encoding: random codes whose products have a learnt kernel as mean (Liutkus et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack

EVALUATION_SEED = 0


class Spe(Encoding):
    """q and k multiplied by codes Q_i and K_j (K,R) of Gaussian noise with E[Q_ic K_jc] = P_c(n): sineSPE.

    P_c(n) = sum_s softplus(g_cs)^2 cos(2 pi f_cs n + o_cs), f = sigmoid(.) / 2, for each head and channel. In place of
    q and k stand vectors of R channels, whose product has the mean sum_c q_c k_c P_c(n): what softmax attention takes
    the scores of, and linear attention draws features of. Relative in the mean, not in one draw.

    In training there is a draw for each layer and batch, as in the authors' code, the same for queries and keys; in
    evaluation one draw for each layer, the same for all passes: a score depends on the model and the data alone. Noise
    belongs to waves, not to positions, so no table is as long as a row.

    Options:
        sines: S, waves of a channel. realizations: R.
        gated: a learnt part of each channel has no position: P_c = (1 - gate) sineSPE + gate.
    """

    name = "spe"
    look = ("vectors", 6)
    title = "random codes whose products are, in the mean, a learnt sum of waves of the distance"
    paper = "Liutkus et al. 2021, arXiv:2105.08399, equations 9 to 17; the released code"
    formula = "sum_c q_c k_c sum_s softplus(g_cs)^2 cos(2 pi f_cs n + o_cs) / sqrt(K), in the mean of random codes"
    linear_form = "wider"
    fixed: Tensor

    def __init__(self, stack: Stack, *, sines: int = 5, realizations: int = 64, gated: bool = False) -> None:
        super().__init__(stack)
        if sines < 1 or realizations < 1:
            raise ValueError(f"sines={sines}, realizations={realizations}: both must be at least 1")
        self.realizations, self.gated = realizations, gated
        heads = (stack.layers, stack.heads, stack.head_width)
        self.frequencies, self.offsets, self.gains = (nn.Parameter(torch.empty(*heads, sines)) for _ in range(3))
        if gated:
            self.gate = nn.Parameter(torch.empty(heads))
        seeded = torch.Generator().manual_seed(EVALUATION_SEED)
        shape = (stack.layers, stack.heads, stack.head_width * (2 * sines + gated), realizations)
        fixed = torch.randn(shape, generator=seeded, device="cpu")
        # Where tensors are made (a plan counts on such without memory), whatever the draw's own device.
        self.register_buffer("fixed", torch.empty(shape).copy_(fixed), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)
            self.frequencies.sub_(4.0)  # long waves at first, as in the released code; the gains too
            self.gains.mul_(2.0 / self.gains.norm(dim=-1, keepdim=True).sqrt())

    @property
    def linear_width(self) -> int:
        return self.realizations

    def codes(self, context: Context) -> Tensor:
        """This layer's noise (H, K (2 S + gated), R), of variance 1 / R."""

        def drawn() -> Tensor:
            noise = self.fixed[context.layer]
            if context.training:
                noise = torch.randn(
                    noise.shape, generator=context.generator, device=context.device, dtype=noise.dtype
                )  # fmt: skip
            return noise / math.sqrt(self.realizations)

        return context.once(self, ("codes", context.layer), drawn)

    def spread(self, x: Tensor, positions: Tensor, layer: int, offsets: bool) -> Tensor:
        """x (B,H,L,K) times the waves of each channel, (B,H,L,K (2 S + gated)): what codes are multiplied by.

        Two of these multiplied, one with offsets, are sum_c q_c k_c P_c(n) without any noise.
        """
        wide = torch.promote_types(x.dtype, torch.float32)
        frequencies = self.frequencies[layer].double().sigmoid() / 2
        angles = 2 * math.pi * positions[..., 0].double()[:, None, :, None, None] * frequencies[:, None]
        angles = angles + self.offsets[layer].double()[:, None] if offsets else angles  # (B or 1, H, L, K, S)
        gains = functional.softplus(self.gains[layer].to(wide))[:, None]
        waves = torch.cat((angles.cos().to(wide) * gains, angles.sin().to(wide) * gains), dim=-1)
        if self.gated:
            gate = self.gate[layer].to(wide).sigmoid()[:, None, :, None]
            plain = gate.sqrt().expand(*waves.shape[:-1], 1)
            waves = torch.cat((waves * (1 - gate).sqrt(), plain), dim=-1)
        return (x.to(wide)[..., None] * waves).flatten(-2)

    def _coded(self, x: Tensor, positions: Tensor, context: Context, offsets: bool) -> Tensor:
        spread = self.spread(x, positions, context.layer, offsets)
        return (spread @ self.codes(context).to(spread.dtype)).to(x.dtype)

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._coded(queries, positions, context, True)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return self._coded(keys, positions, context, False)
