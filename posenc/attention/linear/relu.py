"""Linear attention without random features: a pair's weight is relu(q).relu(k) p_i.p_j (cosFormer's kernel)."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.api.precision import without_autocast
from posenc.attention.kernel import LayerCache
from posenc.attention.linear import favor
from posenc.attention.linear.favor import HIDDEN, Favor

LEAST = 1e-6
"""What the sum of a row's weights counts as at the least, as in cosFormer's code."""


class Relu(Favor):
    """Self-attention of rectified queries and keys; attention to another stack is FAVOR+'s, as with all encodings."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        with without_autocast(queries.device):
            dtype = torch.promote_types(values.dtype, torch.float32)
            places = (x.to(dtype) for x in encoding.position_vectors(context))
            query, key = (
                _times(x.to(dtype).relu(), y) for x, y in zip((queries, keys), places, strict=True)
            )  # fmt: skip
            exponents = torch.zeros(key.shape[:3], dtype=torch.int32, device=key.device)
            if context.mask is not None:
                hidden = ~context.mask[:, None, :]
                key, exponents = key.masked_fill(hidden[..., None], 0.0), exponents.masked_fill(hidden, HIDDEN)
            if self.causal:
                both, _ = favor._causal(query, key, query, key, values.to(dtype), exponents, self.chunk, None)
            else:
                both = query @ (key.transpose(-1, -2) @ favor._with_ones(values.to(dtype)))
            return (both[..., :-1] / both[..., -1:].clamp_min(LEAST)).to(queries.dtype)


def _times(x: Tensor, places: Tensor) -> Tensor:
    """The products (B,H,L,K E) of all channels of x (B,H,L,K) with all of places (.., L, E)."""
    return (x[..., None] * places[..., None, :]).flatten(-2)
