"""CoPE: contextual positions, counted by gates (Golovneva et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack


class Cope(Encoding):
    """score + q_i . e[p_ij], p_ij = sum_{k=j..i} sigmoid(score_ik), at most `positions` - 1 (equations 3 to 6).

    A position is how many of the tokens between are counted, which the scores decide; between two whole positions
    e is interpolated. The scores are the scaled ones, with other encodings' biases if any; queries come as projected,
    unscaled. The table starts at zero and is shared by heads and layers, as in the authors' listing.

    Options:
        positions: how many are told apart; 64 in the paper's language models.
    """

    name = "cope"
    look = ("content", 1)
    title = "positions counted by gates that depend on the scores"
    paper = "Golovneva et al. 2024, arXiv:2405.18719, equations 3 to 6"
    formula = "s + q.e[p], p = min(sum_{l=j..i} sigmoid(s_il), positions - 1)"
    directions = frozenset({"causal"})
    relative = True
    linear_reason = "not possible: its positions depend on the scores of all pairs"

    def __init__(self, stack: Stack, *, positions: int = 64) -> None:
        super().__init__(stack)
        if positions < 2:
            raise ValueError(f"positions={positions}: must be at least 2")
        self.table = nn.Parameter(torch.empty(stack.head_width, positions))

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.table)

    def change_scores(self, scores: Tensor, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        given, wide = scores.dtype, torch.promote_types(scores.dtype, torch.float32)
        scores, queries = scores.to(wide), queries.to(wide)
        gates = scores.sigmoid() * context.visible  # what is hidden counts nothing
        places = gates.flip(-1).cumsum(-1).flip(-1).clamp_max(self.table.shape[1] - 1)
        of_each = queries @ self.table.to(queries.dtype)  # (B,H,L,positions)
        below = places.detach().floor()
        part = places - below
        low, high = (of_each.gather(-1, index.long()) for index in (below, places.detach().ceil()))
        return (scores + high * part + low * (1 - part)).to(given)
