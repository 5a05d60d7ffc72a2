"""Linear attention without random features: a pair's weight is relu(q).relu(k) p_i.p_j (cosFormer's kernel)."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.autocast import without_autocast
from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import LayerCache
from posenc.attention.linear import states
from posenc.attention.linear.favor import Favor
from posenc.attention.linear.scales import HIDDEN

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
            query, key = _rectified(queries.to(dtype), keys.to(dtype), encoding, context)
            exponents = torch.zeros(key.shape[:3], dtype=torch.int32, device=key.device)
            rows = self.rows(context)
            if rows.mask is not None:
                hidden = ~rows.mask[:, None, :]
                key, exponents = key.masked_fill(hidden[..., None], 0.0), exponents.masked_fill(hidden, HIDDEN)
            both, _ = states.attended(query, key, values.to(dtype), exponents, rows, cache=cache)
            return (both[..., :-1] / both[..., -1:].clamp_min(LEAST)).to(queries.dtype)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        query, key = _rectified(queries, keys, encoding, context)
        return self.hidden(query @ key.transpose(-1, -2), context)

    def plain(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context
    ) -> Tensor:  # fmt: skip
        return self.shares(queries, keys, encoding, context) @ values

    def shares(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        """As Favor has them; all 0 where no channel of a row's query and of any key it sees is positive in both."""
        weights = self.weights(queries, keys, encoding, context)
        return weights / weights.sum(-1, keepdim=True).clamp_min(LEAST)


def _rectified(queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> list[Tensor]:
    """Rectified, and all channels times all of the position's: (B,H,L,K E) and (B,H,S,K E)."""
    asking, asked = encoding.position_vectors(context)
    sides = ((queries, asking), (keys, asked[..., -keys.shape[2] :, :]))  # the new keys alone
    return [(x.relu()[..., None] * y.to(x.dtype)[..., None, :]).flatten(-2) for x, y in sides]
