"""FAVOR+ with a vector for each clipped distance (Shaw, NEZHA): f(q_i).f(k_j + w_n), and values v_j + u_n.

That is FAVOR+'s estimate of exp(q.(k + w)). Keys at the clip's distance and beyond have one vector, so one state holds
them all; nearer ones have features of their own for each distance, in time and memory of L x M x clip.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from posenc.api.autocast import without_autocast
from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import LayerCache
from posenc.attention.linear.division import divide
from posenc.attention.linear.favor import Favor, key_features, query_features
from posenc.attention.linear.scales import Rows, State, delayed, moved, power_of_two
from posenc.attention.linear.states import causal, together, with_ones


def vectors_attention(
    queries: Tensor, keys: Tensor, values: Tensor, projection: Tensor, tables: tuple[Tensor, Tensor], *, scale: float,
    rows: Rows, cache: LayerCache | None = None,
) -> Tensor:  # fmt: skip
    """Linear attention's output (B,H,L,K).

    Args:
        tables: of keys and of values, (H or 1, 2 clip + 1, K), by distance key - query from -clip to clip.
        cache: the last `clip` keys and values, and the state of all before them: tokens go on from there. Causal.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    queries, keys, values, projection = (x.to(dtype) for x in (queries, keys, values, projection))
    behind, ahead = (tuple(table.to(dtype) for table in tables), tuple(table.to(dtype).flip(1) for table in tables))
    query = query_features(queries * math.sqrt(scale), projection)
    side = partial(_behind, projection=projection, scale=scale, cache=cache)
    both, powers = side(query, keys, values, rows, behind, first=0)
    if not rows.causal:
        query, keys, values = (x.flip(2) for x in (query, keys, values))
        other, others = (x.flip(2) for x in side(query, keys, values, rows.flipped(), ahead, first=1))
        both, powers = together([(both, powers), (other, others)])
    return divide(both, powers)


def _behind(
    query: Tensor, keys: Tensor, values: Tensor, rows: Rows, tables: tuple[Tensor, ...], *, first: int,
    projection: Tensor, scale: float, cache: LayerCache | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What each row sees of keys at least `first` before it: numerators and normaliser over a power of two, and that.

    A row's power of two is that of what it sees alone: no later key moves a bit of it.
    """
    clip, found, kept, state = tables[0].shape[1] // 2, [], 0, None
    if cache is not None:
        state = State.of(cache.parts and cache.parts[2:], query)
        if cache.parts is not None:
            kept = cache.parts[0].shape[2]
            keys, values = torch.cat((cache.parts[0], keys), dim=2), torch.cat((cache.parts[1], values), dim=2)
    near = rows.reaching(kept)
    for back in range(first, clip + 1):  # the last stands for all that is further away
        row = clip - back
        key, exponents = key_features((keys + tables[0][:, row, None]) * math.sqrt(scale), projection, near.mask)
        ones = moved(with_ones(values + tables[1][:, row, None]), back)[:, :, kept:]
        key, exponents = (x[:, :, kept:] for x in delayed(key, exponents, near.runs, back))
        if back == clip:
            far = causal(query, key, ones[..., :-1], exponents, rows, state=state)
            found.append((far.both, far.exponents))
        else:
            found.append(((query * key).sum(-1, keepdim=True) * ones, exponents))
    if cache is not None and far.state is not None:
        last = max(keys.shape[2] - clip, 0)
        cache.parts = (keys[:, :, last:], values[:, :, last:], *far.state.parts)
    return together(found)


def _rows(length: int, table: Tensor) -> Tensor:
    """(L,S): of each pair the row of a table (H or 1, 2 clip + 1, K)."""
    index, clip = torch.arange(length, device=table.device), table.shape[1] // 2
    return (index - index[:, None]).clamp(-clip, clip) + clip


class Vectors(Favor):
    """Vectors by clipped distance, read by `clipped_vectors`."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        with without_autocast(queries.device):
            heads = vectors_attention(
                queries, keys, values, self.projection, self._tables(encoding, context), scale=encoding.score_scale,
                rows=self.rows(context), cache=cache,
            )  # fmt: skip
        return heads.to(queries.dtype)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        table, _ = self._tables(encoding, context)
        rows = _rows(context.keys, table)
        moved = (keys[:, :, None] + table.to(keys.dtype)[:, rows]).flatten(2, 3)  # a key for each pair
        mask = None if context.mask is None else context.mask.repeat(1, len(rows))
        root, projection = math.sqrt(encoding.score_scale), self.projection.to(queries.dtype)
        features, exponents = key_features(moved * root, projection, mask)
        features = features * power_of_two(exponents - exponents.amax(-1, keepdim=True), features.dtype)[..., None]
        query = query_features(queries * root, projection)
        return self.hidden(torch.einsum("bhlm,bhlsm->bhls", query, features.unflatten(2, rows.shape)), context)

    def plain(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context
    ) -> Tensor:  # fmt: skip
        weights = self.weights(queries, keys, encoding, context)
        _, table = self._tables(encoding, context)
        moved = values[:, :, None] + table.to(values.dtype)[:, _rows(context.keys, table)]
        return (weights[..., None] * moved).sum(-2) / weights.sum(-1, keepdim=True)

    def _tables(self, encoding: Encoding, context: Context) -> tuple[Tensor, Tensor]:
        """Those of `clipped_vectors`, the keys' without the scale, (H or 1, 2 clip + 1, K)."""
        keys, values = encoding.clipped_vectors(context)
        keys = keys / encoding.score_scale
        return (keys, values) if keys.dim() == 3 else (keys[None], values[None])
