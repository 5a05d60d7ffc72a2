"""FAVOR+ with a bias by distance that is constant from some distance on: a pair's weight is e^b(j - i) f(q_i).f(k_j).

Near chunks are multiplied out pair by pair; all further away enter one state on each side, times e^b of its end. A
chunk is far when all of it is. Exact, by sums of positive terms alone, in memory linear in length.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posenc.api.autocast import without_autocast
from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import LayerCache
from posenc.attention.linear.before import Between, states_before
from posenc.attention.linear.division import divide
from posenc.attention.linear.favor import Favor, key_features, query_features
from posenc.attention.linear.scales import (
    HIDDEN,
    NEVER,
    Rows,
    Scales,
    State,
    chunks,
    delayed,
    moved,
    power_of_two,
)  # fmt: skip
from posenc.attention.linear.states import causal, together, with_ones


def band_attention(
    queries: Tensor, keys: Tensor, values: Tensor, projection: Tensor, biases: Tensor, *, scale: float, rows: Rows,
    cache: LayerCache | None = None,
) -> Tensor:  # fmt: skip
    """Linear attention's output (B,H,L,K).

    Args:
        biases: (H, 2 far + 1), of distances key - query from -far to far; the ends stand for all beyond.
        cache: features of the last `far` keys, and the state of all before them: tokens go on from there. Causal.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    queries, keys, values, projection, biases = (x.to(dtype) for x in (queries, keys, values, projection, biases))
    far, length, chunk = biases.shape[1] // 2, queries.shape[2], rows.chunk
    query = query_features(queries * math.sqrt(scale), projection)
    key, exponents = key_features(keys * math.sqrt(scale), projection, rows.mask)
    if cache is not None:
        found = []
        for first in range(0, length, chunk):
            end = min(first + chunk, length)
            part, piece = slice(first, end), rows.part(first, end)
            kept = (query[:, :, part], key[:, :, part], values[:, :, part], exponents[..., part])
            found.append(_decoded(*kept, biases, piece, cache))
        return torch.cat(found, dim=2)
    query, key, ones = (chunks(x, chunk) for x in (query, key, with_ones(values)))
    scales = Scales.of(exponents, rows, chunk)
    if not rows.causal:
        scales = scales.both_ways()
    reach = -(-(far + chunk - 1) // chunk)  # so many chunks, its own among them, hold keys nearer than `far`
    inside = torch.arange(chunk, device=query.device)
    both = torch.zeros_like(ones)
    for back in range(reach if rows.causal else 2 * reach - 1):
        back = back if rows.causal else back - reach + 1
        distances = inside - inside[:, None] - back * chunk
        weights = biases[:, distances.clamp(-far, far) + far].exp()  # (H,C,C)
        if rows.causal:
            weights = weights.masked_fill(distances > 0, 0.0)
        # A later key's exponent may be far above its row's: what it multiplies is 0, and must stay finite.
        factors = power_of_two(scales.of_chunk(back).clamp_max(0), dtype)
        pairs = (query @ moved(key, back).transpose(-1, -2)) * factors * weights[:, None]
        both = both + pairs @ moved(ones, back)
    both = both + _far(query, key, ones, scales, reach) * biases[:, :1, None, None].exp()
    if not rows.causal:
        query, key, ones = (x.flip(2) for x in (query, key, ones))
        ahead = _far(query, key, ones, scales.flipped(), reach).flip(2)
        both = both + ahead * biases[:, -1:, None, None].exp()
    return divide(both.flatten(2, 3)[:, :, :length], scales.rows.flatten(2)[:, :, :length])


def _far(query: Tensor, key: Tensor, ones: Tensor, scales: Scales, reach: int) -> Tensor:
    """What each row sees of all chunks at least `reach` before its own, (B,H,chunks,C,K+1)."""
    if scales.count <= reach:
        return torch.zeros_like(ones)
    dtype = query.dtype
    added = key.transpose(-1, -2) @ (ones * power_of_two(scales.own(), dtype)[..., None])
    states = states_before(added, Between(scales.between(), dtype))
    return (query @ moved(states, reach - 1)) * power_of_two(scales.to_row(reach - 1), dtype)[..., None]


def _decoded(
    query: Tensor, key: Tensor, values: Tensor, exponents: Tensor, biases: Tensor, rows: Rows, cache: LayerCache
) -> Tensor:  # fmt: skip
    """New tokens after those of a cache: nearer keys pair by pair, all further away as one state."""
    far, new = biases.shape[1] // 2, query.shape[2]
    state = State.of(cache.parts and cache.parts[3:], query)
    if cache.parts is not None:
        kept = zip(cache.parts[:3], (key, values, exponents), strict=True)
        key, values, exponents = (torch.cat(pair, dim=2) for pair in kept)
    earlier = key.shape[2] - new
    near = rows.reaching(earlier)
    entering, entering_exponents = (x[:, :, earlier:] for x in delayed(key, exponents, near.runs, far))
    beyond = causal(query, entering, moved(values, far)[:, :, earlier:], entering_exponents, rows, state=state)
    assert beyond.state is not None  # it had one
    index = torch.arange(key.shape[2], device=query.device)
    distances = index - index[earlier:, None]
    seen = (distances <= 0) & (distances > -far)
    if near.runs is not None:
        seen = seen & (near.runs[:, None, None] == near.runs[:, None, earlier:, None])
    powers = torch.where(seen, exponents[..., None, :], HIDDEN).amax(-1)
    factors = power_of_two(torch.where(seen, exponents[..., None, :] - powers[..., None], NEVER), query.dtype)
    weights = factors * biases[:, distances.clamp(-far, far) + far].exp()
    both = ((query @ key.transpose(-1, -2)) * weights) @ with_ones(values)
    far_away = beyond.both * biases[:, :1, None].exp()
    last = max(key.shape[2] - far, 0)
    cache.parts = (*(x[:, :, last:] for x in (key, values, exponents)), *beyond.state.parts)
    return divide(*together([(both, powers), (far_away, beyond.exponents)]))


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
                queries, keys, values, self.projection, biases, scale=encoding.score_scale, rows=self.rows(context),
                cache=cache,
            )  # fmt: skip
        return heads.to(queries.dtype)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        index = torch.arange(context.keys, device=queries.device)
        distances = index - index[:, None]
        biases = encoding.distance_bias(distances.flatten(), context).unflatten(1, distances.shape)
        return self.hidden(self.pairs(queries, keys, encoding, context) * biases.to(queries.dtype).exp(), context)
