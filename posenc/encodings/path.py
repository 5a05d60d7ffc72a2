"""PaTH: positions by products of Householder-like matrices (Yang et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posenc.api.autocast import without_autocast
from posenc.api.encoding import Context, Encoding
from posenc.api.rows import convolved
from posenc.api.stack import Stack
from posenc.api.starts import uniform_, xavier_uniform_
from posenc.encodings.fox import log_gates, since

TAPS = 3


def householder_scores(queries: Tensor, keys: Tensor, directions: Tensor, beta: Tensor) -> Tensor:
    """q_i (I - beta_i w_i w_i^T) ... (I - beta_{j+1} w_{j+1} w_{j+1}^T) k_j for j <= i, (B,H,L,L).

    The product of a range of such matrices is I - W^T M W, M a triangular inverse, whose part for a range is that
    range's own (the UT transform): Q K^T - tril(Q W^T) (I + strict(beta W W^T))^-1 beta strict(W K^T). Nothing of size
    L x L x K; time L^3, by matrix products. What j > i gives is 0 but for q_i.k_j.

    Args:
        queries, keys, directions: (B,H,L,K). beta: (B,H,L).
    """
    among = (beta[..., None] * (directions @ directions.transpose(-1, -2))).tril(-1)
    of_keys = (beta[..., None] * (directions @ keys.transpose(-1, -2))).tril(-1)
    moved = torch.linalg.solve_triangular(among, of_keys, upper=False, unitriangular=True)
    return queries @ keys.transpose(-1, -2) - (queries @ directions.transpose(-1, -2)).tril() @ moved


class Path(Encoding):
    """score_ij = q_i prod_{t=i..j+1} (I - beta_t w_t w_t^T) k_j / sqrt(K): in place of q_i.k_j (equation 2).

    The query's own factor stands in the product, the key's own does not. w_t (H,K) is a low-rank projection of x_t,
    convolved over three tokens, through SiLU and brought to unit length; beta_t = 2 sigmoid(w_h.x_t + b_h). All are
    each layer's own. The scores take time L^3, by matrix products, and memory for a few tables of L x L.

    Decoding with cached keys would need all w so far: it decodes without a cache.

    Options:
        rank: of the projection; 32 in the released code.
        gate: FoX's gates added as well. In the reference code they stand inside the scale, unlike FoX's own:
            (q ... k + G_i - G_j) / sqrt(K).
    """

    name = "path"
    look = ("content", 2)
    title = "products of matrices, which the tokens between query and key choose"
    paper = "Yang et al. 2025, arXiv:2505.16381, equations 2 and 3; the released code"
    formula = "q_i prod_{t=i..j+1} (I - beta_t w_t w_t^T) k_j / sqrt(K)"
    directions = frozenset({"causal"})
    relative = True
    cached_decoding = False
    linear_reason = "not possible: its scores are products of matrices between query and key (in linear form: DeltaNet)"
    convolves = True

    def __init__(self, stack: Stack, *, rank: int = 32, gate: bool = False) -> None:
        super().__init__(stack)
        if rank < 1:
            raise ValueError(f"rank={rank}: must be at least 1")
        size = stack.heads * stack.head_width
        self.down = nn.Parameter(torch.empty(stack.layers, rank, stack.width))
        self.up = nn.Parameter(torch.empty(stack.layers, size, rank))
        if self.convolves:
            self.taps = nn.Parameter(torch.empty(stack.layers, size, TAPS))
        self.beta_weight = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.width))
        self.beta_bias = nn.Parameter(torch.empty(stack.layers, stack.heads))
        self.gated = gate
        if gate:
            self.gate_weight = nn.Parameter(torch.empty(stack.layers, stack.heads, stack.width))
            self.gate_bias = nn.Parameter(torch.empty(stack.layers, stack.heads))

    def initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name == "taps":
                uniform_(parameter, TAPS**-0.5, generator)
            else:
                for weight in parameter:
                    xavier_uniform_(weight, generator)

    def _directions(self, x: Tensor, context: Context) -> Tensor:
        """w of this layer (B,H,S,K), of unit length."""
        layer = context.layer
        w = functional.linear(functional.linear(x, self.down[layer].to(x.dtype)), self.up[layer].to(x.dtype))
        if self.convolves:
            if context.mask is not None:  # padding is no token before the first
                w = w * context.mask[..., None]
            w = functional.silu(convolved(w, self.taps[layer].to(x.dtype), context.segments))
        w = w.unflatten(-1, (self.stack.heads, -1)).transpose(1, 2)
        return w * (w.square().sum(-1, keepdim=True) + 1e-6).rsqrt()

    def pair_scores(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        given, wide = queries.dtype, torch.promote_types(queries.dtype, torch.float32)
        assert context.hidden is not None  # attention sets it in each layer
        x = context.hidden.to(wide)
        weight, bias = (given[context.layer].to(wide) for given in (self.beta_weight, self.beta_bias))
        beta = 2 * functional.linear(x, weight, bias).transpose(1, 2).sigmoid()  # (B,H,S)
        if context.mask is not None:
            beta = beta * context.mask[:, None]
        directions = self._directions(x, context).expand(*keys.shape[:3], -1)
        # Without autocast, which would take products of a triangle in bf16 and has no solver for them.
        with without_autocast(queries.device):
            scores = householder_scores(
                self._all(queries.to(wide), keys), keys.to(wide), directions, beta.expand(*keys.shape[:3])
            )
        scores = scores[:, :, context.offset :]
        if self.gated:
            gate = (self.gate_weight[context.layer], self.gate_bias[context.layer])
            scores = scores + since(log_gates(x, *gate, context), context)
        return scores.to(given)

    @staticmethod
    def _all(queries: Tensor, keys: Tensor) -> Tensor:
        """A query for each key; those that were not asked for are 0, and cut off afterwards."""
        missing = keys.shape[2] - queries.shape[2]
        return functional.pad(queries, (0, 0, missing, 0)) if missing else queries


class PathNoConvolution(Path):
    """PaTH without its convolution, and so without its SiLU: w_t is the projection of x_t alone, of unit length."""

    name = "path_no_convolution"
    look = ("content", 4)
    title = "products of matrices, each of which a token between query and key chooses by itself"
    convolves = False
