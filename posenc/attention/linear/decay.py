"""FAVOR+ with a decay: a pair's weight is f(q_i).f(k_j) exp of the sum of `log_decay` over j < l <= i.

By head where the decay is the same at all tokens (ALiBi), which serves both ways, or by the data (FoX, CABLE). Sums
begin anew in each chunk and states are multiplied from chunk to chunk: nothing is subtracted but within a chunk.
"""

from __future__ import annotations

from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import LayerCache
from posenc.attention.linear.favor import Favor, decays


class Decay(Favor):
    """Numerator and normaliser carry the same decays."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        logs = encoding.log_decay(context)[..., -queries.shape[2] :]
        return self._favor(queries, keys, values, encoding, context, cache, logs=logs)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        return self.hidden(self.pairs(queries, keys, encoding, context) * decays(encoding, context), context)
