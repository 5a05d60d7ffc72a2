"""Relative position representations (Shaw et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import xavier_uniform_

LARGEST_CLIP = 16
"""In linear attention, whose time and memory grow with it."""


class ClippedVectors(Encoding):
    """e_ij = q_i . (k_j + aK_ij) / sqrt(K),  z_i = sum_j alpha_ij (v_j + aV_ij),  a_ij = w[clip(j - i, -clip, clip)].

    Nothing of size L x S x K is made: q . w^T is L x (2 clip + 1), then gathered; on the value side, attention
    is summed into 2 clip + 1 bins first. This is the plain form; attention.blocks does the same from the two tables.
    Subclasses say what the rows of w are.
    """

    relative = True
    linear_form = "vectors"

    def __init__(self, stack: Stack, clip: int) -> None:
        super().__init__(stack)
        if clip < 1:
            raise ValueError(f"clip={clip}: must be at least 1")
        self.clip = clip

    def why_not(self, attention: str) -> str | None:
        if attention == "performer" and self.clip > LARGEST_CLIP:
            each = "features of each key with the vector of each clipped distance"
            return f"not built: cost ({each}; up to clip={LARGEST_CLIP}, and here clip={self.clip})"
        return super().why_not(attention)

    def key_vectors(self, context: Context) -> Tensor:
        """The rows of w on the key side in this layer, (2 clip + 1, K), from distance -clip on."""
        raise NotImplementedError

    def value_vectors(self, context: Context) -> Tensor:
        """The rows of w on the value side in this layer, (2 clip + 1, K)."""
        raise NotImplementedError

    def clipped_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        return self.key_vectors(context) * self.score_scale, self.value_vectors(context)

    def _bins(self, context: Context) -> Tensor:
        """(1 or B, 1, L, S): the row of the table for each pair."""

        def bins() -> Tensor:
            distances = context.key_positions[:, None, :, 0] - context.query_positions[:, :, None, 0]
            return (distances.clamp(-self.clip, self.clip) + self.clip)[:, None]

        return context.once(self, "bins", bins)

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        table = self.key_vectors(context).to(queries.dtype)
        scores = queries @ table.transpose(-1, -2) * self.score_scale  # (B,H,L,2 clip + 1)
        bins = self._bins(context).expand(*queries.shape[:2], -1, -1)
        return scores.gather(-1, bins)

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        table = self.value_vectors(context).to(weights.dtype)
        bins = self._bins(context).expand(*weights.shape[:2], -1, -1)
        summed = weights.new_zeros(*weights.shape[:-1], 2 * self.clip + 1).scatter_add(-1, bins, weights)
        return summed @ table


class Shaw(ClippedVectors):
    """Learned vectors w: two tables (2 clip + 1, K) a layer, one for keys and one for values.

    The heads of a layer share them, as section 3.3 has it to save memory; with `per_head` each has its own, as the
    paper's base model does, and every pair's weight is laid out.

    Equations 3 and 4; section 3.3 says the same of cost in other words. RoFormer's equation (5) is not this: it puts
    the embedding inside the projection and turns the sign.

    Options:
        clip: the largest distance told apart; 16 in the paper's base model, and at the most in linear attention.
        per_head: tables of each head's own.
    """

    name = "shaw"
    look = ("vectors", 0)
    title = "learned vectors for clipped distances, added to keys and values"
    paper = "Shaw et al. 2018, arXiv:1803.02155, equations 3 and 4"
    formula = "q.(k + a_n) / sqrt(K), v + b_n; a, b learnt by clip(n)"

    def __init__(self, stack: Stack, *, clip: int = 16, per_head: bool = False) -> None:
        super().__init__(stack, clip)
        self.per_head = per_head
        shape = (stack.layers, *([stack.heads] if per_head else []), 2 * clip + 1, stack.head_width)
        self.key_tables = nn.Parameter(torch.empty(shape))
        self.value_tables = nn.Parameter(torch.empty(shape))

    def initialise(self, generator: torch.Generator) -> None:
        # The paper is silent; its code (tensor2tensor) starts them by Glorot's rule.
        for tables in (self.key_tables, self.value_tables):
            for table in tables.flatten(0, -3):
                xavier_uniform_(table, generator)

    def overrides(self, hook: str) -> bool:
        return super().overrides(hook) and not (self.per_head and hook == "clipped_vectors")  # one pair of tables only

    def key_vectors(self, context: Context) -> Tensor:
        return self.key_tables[context.layer]

    def value_vectors(self, context: Context) -> Tensor:
        return self.value_tables[context.layer]
