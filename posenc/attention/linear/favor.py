"""FAVOR+: attention linear in length by positive orthogonal random features (Choromanski et al. 2021, Performer).

exp(q . k) = E[phi(q) . phi(k)] with phi_f(x) = exp(w_f . x - |x|^2 / 2) / sqrt(M) (Lemma 1), rows w_f
orthogonal in blocks (section 2.4). Shape suffixes as in posenc.api.encoding, and M features, C tokens a chunk.

Where this departs from the official code, and why: exp overflows, so features are divided by something that cancels
between numerator and denominator. For queries that is a maximum over their own features. For keys the
official code takes a maximum over the whole sequence, which lets later tokens move earlier outputs of a causal model.
Here each key is divided by a power of two of its own, and rows are brought together at the largest power of two
*so far*: multiplying by powers of two is exact, so no output depends on a later token, not in the last bit. No
epsilon is added to the features either: it would not cancel.

Where it ends: features of a query are relative to its largest, those of a key to its own. Where both are long they
share no large feature, and float32 loses the sum of their products below 8e-31 (`division.divide`). Random queries and
keys of equal norm, 256 features of heads of 64 channels, causal, 256 tokens; rows off by over 1 % from float64, and the
largest error of the others:

    norm         8        30       60       90       120      200
    rows off     0        0        0        2 %      20 %     77 %
    others       3e-6     2e-5     4e-5     5e-5     8e-5     2e-4

Long queries or keys alone lose nothing. `counting` counts such rows: evaluation writes their share into the record.
No form was found that holds further at no cost: scales for each feature do not part into one of the row and one of the
key without letting later keys into earlier rows, and larger factors on features take as much from their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from posenc.api.autocast import without_autocast
from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.attention.interface import Kernel, LayerCache, Memory
from posenc.attention.linear import states
from posenc.attention.linear.division import divide
from posenc.attention.linear.scales import HIDDEN, LARGEST, Rows, power_of_two, runs_of

ON_A_GPU = 128
"""The least tokens of a chunk there: products of 64 leave much of it idle, and states take N^2 factors for N chunks. By
count, of a head of 64 with 256 features and 16,384 tokens, in GFLOP: 64 a chunk 3.5, of which states 2.2; 128 a chunk
2.9, 0.5; 256 a chunk 4.0, 0.1. What comes out is the same but for rounding."""


def orthogonal_features(count: int, width: int, generator: torch.Generator) -> Tensor:
    """(M,K) float64: Gaussian rows, orthogonal within each block of K, with the norms of independent ones."""
    blocks = []
    for _ in range(-(-count // width)):
        q, r = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
        blocks.append((q * r.diagonal().sign()).T)  # the signs make the rotation uniform (Haar)
    norms = torch.randn(count, width, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
    return torch.cat(blocks)[:count] * norms


def query_features(queries: Tensor, projection: Tensor) -> Tensor:
    """(B,H,L,M), each row divided by its largest: that, and exp(-|x|^2 / 2) too, cancels within the row."""
    logs = queries @ projection.T
    return logs.sub_(logs.detach().amax(-1, keepdim=True)).exp_()  # in place: nothing else reads what was there


def key_features(keys: Tensor, projection: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B,H,S,M) features in (0,1], and (B,H,S) integers n: the features proper are 2^n times these.

    Hidden keys (mask (B,S) False) have features of 0.
    """
    products, halves = keys @ projection.T, keys.square().sum(-1) / 2
    largest = products.detach().amax(-1) - halves.detach()
    exponents = (largest / math.log(2)).ceil().clamp(-LARGEST, LARGEST)
    # Added in place, negated while it is small: the gradient of a difference would negate all features.
    features = products.add_(-(halves + exponents * math.log(2))[..., None]).exp_()
    exponents = exponents.to(torch.int32)
    if mask is not None:
        hidden = ~mask[:, None, :]
        features = features.masked_fill(hidden[..., None], 0.0)
        exponents = exponents.masked_fill(hidden, HIDDEN)
    return features, exponents


def favor_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    projection: Tensor,
    *,
    scale: float,
    rows: Rows,
    rotate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    throughout: bool = False,
    logs: Tensor | None = None,
    rates: Tensor | None = None,
    cache: LayerCache | None = None,
) -> Tensor:
    """Linear attention's output (B,H,L,K), in memory linear in the length.

    Args:
        projection: (M,K) random features.
        scale: what scores are multiplied by, split evenly between queries and keys.
        rows: what may be seen; causal, memory is L x chunk, time L x (chunk + M). Padding is out of the numerator and
            the normaliser.
        rotate: turns query and key features (equation 19 of RoFormer) for the numerator alone, or `throughout`.
        logs, rates, cache: as `states.attended` has them.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)  # features span many powers of ten: never in bf16
    queries, keys, values, projection = (x.to(dtype) for x in (queries, keys, values, projection))
    query = query_features(queries * math.sqrt(scale), projection)
    key, exponents = key_features(keys * math.sqrt(scale), projection, rows.mask)
    turned = rotate(query, key) if rotate else None
    if throughout and turned is not None:
        (query, key), turned = turned, None
    logs = None if logs is None else logs.to(dtype).expand(*key.shape[:2], -1)
    return divide(
        *states.attended(query, key, values, exponents, rows, turned=turned, logs=logs, rates=rates, cache=cache)
    )


def decays(encoding: Encoding, context: Context) -> Tensor:
    """What `log_decay` multiplies each pair's weight by, (B or 1, H, S, S)."""
    sums = encoding.log_decay(context).double().cumsum(-1)
    return (sums[..., :, None] - sums[..., None, :]).abs().neg().exp()


class Favor(Kernel):
    """FAVOR+ of queries and keys as the encoding leaves them, which may turn heads before the features.

    Args:
        width: K, of a head. features: M. chunk: tokens handled at once when causal, on a GPU `ON_A_GPU` at the least.
    """

    projection: Tensor

    def __init__(self, *, causal: bool, width: int, features: int, chunk: int) -> None:
        super().__init__()
        self.causal, self.chunk = causal, chunk
        self.drawn: int | None = None
        # Redrawn from seed and step, so it is no part of the state.
        self.register_buffer("projection", torch.empty(features, width, dtype=torch.float64), persistent=False)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        positions = context.query_positions
        queries = encoding.rotate_query(queries, positions, context)
        keys = encoding.rotate_key(keys, positions, context)
        return self._favor(queries, keys, values, encoding, context, cache)

    def weights(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        """The weights of all pairs (B,H,L,S) multiplied out, each row over a scale: in memory of L x S."""
        positions = context.query_positions
        queries = encoding.rotate_query(queries, positions, context)
        keys = encoding.rotate_key(keys, positions, context)
        return self.hidden(self.pairs(queries, keys, encoding, context), context)

    def plain(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context
    ) -> Tensor:  # fmt: skip
        """What `attend` gives without chunks and states, by the weights of all pairs, for `posenc check`."""
        weights = self.weights(queries, keys, encoding, context)
        return weights @ values / weights.sum(-1, keepdim=True)

    def shares(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        """The weights (B,H,L,S) by which a query takes values: those that softmax attention would have."""
        weights = self.weights(queries, keys, encoding, context)
        return weights / weights.sum(-1, keepdim=True)

    def pairs(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> Tensor:
        """f(q_i).f(k_j) of queries and keys as hooks left them."""
        query, key = self.features(queries, keys, encoding, context)
        return query @ key.transpose(-1, -2)

    def features(self, queries: Tensor, keys: Tensor, encoding: Encoding, context: Context) -> tuple[Tensor, Tensor]:
        """(B,H,L,M), each row over a factor of its own, and (B,H,S,M), all over one."""
        root, projection = math.sqrt(encoding.score_scale), self.projection.to(queries.dtype)
        key, exponents = key_features(keys * root, projection, context.mask)
        factors = power_of_two(exponents - exponents.amax(-1, keepdim=True), key.dtype)
        return query_features(queries * root, projection), key * factors[..., None]

    def hidden(self, weights: Tensor, context: Context) -> Tensor:
        """Weights, 0 where a causal query may not look, and at padding."""
        weights = weights.tril() if self.causal else weights
        return weights if context.mask is None else weights.masked_fill(~context.mask[:, None, None], 0.0)

    def cross(self, queries: Tensor, keys: Tensor, values: Tensor, memory: Memory) -> Tensor:
        scale, mask = queries.shape[-1] ** -0.5, memory.mask
        with without_autocast(queries.device):
            if memory.segments is None:
                rows = Rows(causal=False, chunk=self.chunk, mask=mask)
                heads = favor_attention(queries, keys, values, self.projection, scale=scale, rows=rows)
            else:
                heads = self._cross_packed(queries, keys, values, scale, mask, *memory.segments)
        return heads.to(queries.dtype)

    def _cross_packed(
        self, queries: Tensor, keys: Tensor, values: Tensor, scale: float, mask: Tensor | None, asking: Tensor,
        asked: Tensor,
    ) -> Tensor:  # fmt: skip
        """Both rows in one, the keys of each example and then its queries: a causal pass whose states begin anew."""
        order = torch.cat((2 * asked, 2 * asking + 1), dim=1).argsort(dim=1, stable=True)  # (B,S+L)
        real = torch.ones_like(asked, dtype=torch.bool) if mask is None else mask
        real = torch.cat((real, torch.zeros_like(asking, dtype=torch.bool)), dim=1).gather(1, order)
        runs = runs_of(torch.cat((asked, asking), dim=1).gather(1, order))

        def laid(first: Tensor, second: Tensor) -> Tensor:
            x = torch.cat((first, second), dim=2)
            return x.gather(2, order[:, None, :, None].expand_as(x))

        none, nobody = torch.zeros_like(queries), torch.zeros_like(keys)
        out = favor_attention(
            laid(nobody, queries), laid(keys, none), laid(values, none), self.projection, scale=scale,
            rows=Rows(causal=True, chunk=self.chunk, mask=real, runs=runs),
        )  # fmt: skip
        back = order.argsort(dim=1)[:, None, asked.shape[1] :, None]
        return out.gather(2, back.expand(*queries.shape[:2], -1, values.shape[-1]))

    def rows(self, context: Context) -> Rows:
        chunk = max(self.chunk, ON_A_GPU) if context.device.type == "cuda" else self.chunk
        return Rows.of(context, causal=self.causal, chunk=chunk)

    def _favor(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None, **more: Any,
    ) -> Tensor:  # fmt: skip
        """FAVOR+ of queries, keys and values as hooks left them, the new tokens' alone in cached decoding."""
        with without_autocast(queries.device):
            heads = favor_attention(
                queries, keys, values, self.projection, scale=encoding.score_scale, rows=self.rows(context),
                cache=cache, **more,
            )  # fmt: skip
        return heads.to(queries.dtype)

    def redraw(self, seed: int) -> None:
        if seed != self.drawn:
            generator = torch.Generator().manual_seed(seed)
            features, width = self.projection.shape
            drawn = orthogonal_features(features, width, generator)
            on_card = self.projection.device.type == "cuda"
            self.projection.copy_(drawn.pin_memory() if on_card else drawn, non_blocking=on_card)
            self.drawn = seed
