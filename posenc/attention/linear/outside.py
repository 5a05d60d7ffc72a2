"""FAVOR+ whose features the encoding turns or moves about, after they are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import LayerCache
from posenc.attention.linear.favor import Favor, decays


class Outside(Favor):
    """FAVOR+ whose features the encoding turns, in the numerator alone (equation 19 of RoFormer).

    There each may decay too, at a rate of its own.
    """

    throughout = False

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        def rotate(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
            positions = context.query_positions
            return encoding.rotate_query(query, positions, context), encoding.rotate_key(key, positions, context)

        decays = self.throughout and encoding.overrides("log_decay")
        logs = encoding.log_decay(context)[..., -queries.shape[2] :] if decays else None
        rates = None
        if encoding.overrides("feature_decay"):
            rates = encoding.feature_decay(len(self.projection), context)
        return self._favor(
            queries, keys, values, encoding, context, cache, rotate=rotate, throughout=self.throughout, logs=logs,
            rates=rates,
        )  # fmt: skip

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        query, key = self.features(queries, keys, encoding, context)
        positions = context.query_positions
        turned_query = encoding.rotate_query(query, positions, context)
        turned_key = encoding.rotate_key(key, positions, context)
        if encoding.overrides("feature_decay"):
            rates = encoding.feature_decay(len(self.projection), context).to(query.dtype)
            places = torch.arange(context.keys, device=query.device)[:, None] * rates
            turned_query, turned_key = turned_query * places.exp(), turned_key * (-places).exp()
        return self.hidden(turned_query @ turned_key.transpose(-1, -2), context)

    def plain(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context
    ) -> Tensor:  # fmt: skip
        below = self.hidden(self.pairs(queries, keys, encoding, context), context)
        return self.weights(queries, keys, encoding, context) @ values / below.sum(-1, keepdim=True)

    def shares(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        """As Favor has them, but they may be negative, and need not sum to 1."""
        below = self.hidden(self.pairs(queries, keys, encoding, context), context)
        return self.weights(queries, keys, encoding, context) / below.sum(-1, keepdim=True)


class Moved(Outside):
    """FAVOR+ whose features the encoding moves about, and lets decay, in numerator and normaliser alike.

    What it makes of features may not be negative: weights are sums of their products.
    """

    throughout = True
    plain = Favor.plain
    shares = Favor.shares

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        found = super().weights(queries, keys, encoding, context)
        return found * decays(encoding, context) if encoding.overrides("log_decay") else found
