"""FAVOR+ of wider vectors: what position adds to a score, as channels beside those of queries and keys.

A pair's weight is f([q; q']).f([k; k']), whose mean over features is exp(q.k + q'.k'). Exact as a kernel; as an
estimate of softmax it is worse than plain features, since vectors are longer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import LayerCache
from posenc.attention.linear.favor import Favor


class Wider(Favor):
    """Queries and keys that the encoding widens, by its hooks on them or by `position_vectors` beside them."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        queries, keys = self._widened(queries, keys, encoding, context)
        return self._favor(queries, keys, values, encoding, context, cache)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        return self.hidden(self.pairs(*self._widened(queries, keys, encoding, context), encoding, context), context)

    def _widened(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> tuple[Tensor, Tensor]:
        positions = context.query_positions
        queries = encoding.rotate_query(queries, positions, context)
        keys = encoding.rotate_key(keys, positions, context)
        if encoding.overrides("position_vectors"):
            # Each side is multiplied by the root of the scale, which is for scores: this part is scaled already.
            asking, asked = (x * encoding.score_scale**-0.5 for x in encoding.position_vectors(context))
            beside = (asking, asked[..., -keys.shape[2] :, :])  # the new keys alone
            queries, keys = (
                torch.cat((x, y.to(x.dtype).expand(*x.shape[:-1], -1)), dim=-1)
                for x, y in zip((queries, keys), beside, strict=True)
            )
        return queries, keys
