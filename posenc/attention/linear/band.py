"""FAVOR+ with a bias by distance that is constant from some distance on: a pair's weight is e^b(j - i) f(q_i).f(k_j).

Near chunks are multiplied out pair by pair; all further away enter one state on each side, times e^b of its end. A
chunk is far when all of it is. Exact, by sums of positive terms alone, in memory linear in length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.api.precision import without_autocast
from posenc.attention.kernel import LayerCache
from posenc.attention.linear import favor
from posenc.attention.linear.favor import HIDDEN, Favor, key_features, power_of_two, query_features


def band_attention(
    queries: Tensor, keys: Tensor, values: Tensor, projection: Tensor, biases: Tensor, *, scale: float, causal: bool,
    mask: Tensor | None = None, chunk: int = 64,
) -> Tensor:  # fmt: skip
    """Linear attention's output (B,H,L,K).

    Args:
        biases: (H, 2 far + 1), of distances key - query from -far to far; the ends stand for all beyond.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    queries, keys, values, projection, biases = (x.to(dtype) for x in (queries, keys, values, projection, biases))
    far, length = biases.shape[1] // 2, queries.shape[2]
    query = query_features(queries * math.sqrt(scale), projection)
    key, exponents = key_features(keys * math.sqrt(scale), projection, mask)
    query, key, ones = (favor._chunks(x, chunk) for x in (query, key, favor._with_ones(values)))
    exponents = favor._chunks(exponents[..., None], chunk, HIDDEN)[..., 0]  # (B,H,chunks,C)
    largest = exponents.flatten(2).cummax(-1).values
    rows = (largest if causal else largest[..., -1:].expand_as(largest)).view_as(exponents)  # each row's scale
    reach = -(-(far + chunk - 1) // chunk)  # so many chunks, its own among them, hold keys nearer than `far`
    inside = torch.arange(chunk, device=query.device)
    both = torch.zeros_like(ones)
    for back in range(reach if causal else 2 * reach - 1):
        back = back if causal else back - reach + 1
        distances = inside - inside[:, None] - back * chunk
        weights = biases[:, distances.clamp(-far, far) + far].exp()  # (H,C,C)
        if causal:
            weights = weights.masked_fill(distances > 0, 0.0)
        moved = favor._moved(exponents, back, HIDDEN)
        # A later key's exponent may be far above its row's: what it multiplies is 0, and must stay finite.
        factors = power_of_two((moved[..., None, :] - rows[..., :, None]).clamp_max(0), dtype)
        pairs = (query @ favor._moved(key, back).transpose(-1, -2)) * factors * weights[:, None]
        both = both + pairs @ favor._moved(ones, back)
    both = both + _far(query, key, ones, exponents, rows, reach, causal) * biases[:, :1, None, None].exp()
    if not causal:
        query, key, ones, exponents = (x.flip(2) for x in (query, key, ones, exponents))
        ahead = _far(query, key, ones, exponents, rows.flip(2), reach, causal).flip(2)
        both = both + ahead * biases[:, -1:, None, None].exp()
    both, rows = both.flatten(2, 3)[:, :, :length], rows.flatten(2)[:, :, :length]
    for found in favor._counting:
        found.add(both[..., -1:], rows[..., None] > HIDDEN)
    return favor._divide(both[..., :-1], both[..., -1:])


def _far(
    query: Tensor, key: Tensor, ones: Tensor, exponents: Tensor, rows: Tensor, reach: int, causal: bool
) -> Tensor:  # fmt: skip
    """What each row sees of all chunks at least `reach` before its own, (B,H,chunks,C,K+1)."""
    if exponents.shape[2] <= reach:
        return torch.zeros_like(ones)
    dtype = query.dtype
    last = exponents.flatten(2).cummax(-1).values.view_as(exponents)[..., -1] if causal else rows[..., -1]
    before = torch.cat((torch.full_like(last[..., :1], HIDDEN), last[..., :-1]), dim=-1)
    own = power_of_two(exponents - last[..., None], dtype)[..., None]
    added = key.transpose(-1, -2) @ (ones * own)
    states = favor._states(added, power_of_two(before - last, dtype)[..., None, None])
    scale = favor._moved(before, reach - 1, HIDDEN)
    return (query @ favor._moved(states, reach - 1)) * power_of_two(scale[..., None] - rows, dtype)[..., None]


class Band(Favor):
    """Biases by distance in numerator and normaliser alike."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        far = encoding.constant_from()
        biases = encoding.distance_bias(torch.arange(-far, far + 1, device=queries.device), context)
        with without_autocast(queries.device):
            heads = band_attention(
                queries, keys, values, self.projection, biases, scale=encoding.score_scale, causal=self.causal,
                mask=context.mask, chunk=self.chunk,
            )  # fmt: skip
        return heads.to(queries.dtype)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        index = torch.arange(context.keys, device=queries.device)
        distances = index - index[:, None]
        biases = encoding.distance_bias(distances.flatten(), context).unflatten(1, distances.shape)
        return self.hidden(self.pairs(queries, keys, encoding, context) * biases.to(queries.dtype).exp(), context)
