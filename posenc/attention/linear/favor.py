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
share no large feature, and float32 loses the sum of their products below 8e-31 (`_divide`). Random queries and keys of
equal norm, 256 features of heads of 64 channels, causal, 256 tokens; rows off by over 1 % from float64, and the largest
error of the others:

    norm         8        30       60       90       120      200
    rows off     0        0        0        2 %      20 %     77 %
    others       3e-6     2e-5     4e-5     5e-5     8e-5     2e-4

Long queries or keys alone lose nothing. `counting` counts such rows: evaluation writes their share into the record.
No form was found that holds further at no cost: scales for each feature do not part into one of the row and one of the
key without letting later keys into earlier rows, and larger factors on features take as much from their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from posenc.api.context import Context
from posenc.api.encoding import Encoding
from posenc.api.precision import without_autocast
from posenc.attention.kernel import Kernel, LayerCache, Memory

LARGEST = 2**28
"""Exponents of real keys stay within this, so that sums of them stay within an int32."""
HIDDEN = -(2**29)
"""The exponent of a hidden key: below every real one, so that it never sets a scale."""


class Saturation:
    """How many rows of attention were asked for that see a key, and how many of them float32 has lost.

    Attributes:
        rows: (), of all heads and layers. lost: (), those whose normaliser lies at the floor of `_divide`.
    """

    def __init__(self) -> None:
        self.rows, self.lost = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)

    def add(self, denominator: Tensor, seeing: Tensor) -> None:
        """Count rows: normalisers and whether each sees a key, (...,1) both. Nothing is read back from a device."""
        low = denominator.detach() < _floor(denominator.dtype)
        self.rows = self.rows.to(low.device) + seeing.expand_as(low).sum()
        self.lost = self.lost.to(low.device) + (low & seeing).sum()

    @property
    def share(self) -> float | None:
        """Of the rows; None where there was no linear attention."""
        return self.lost.item() / rows if (rows := int(self.rows.item())) else None


_counting: list[Saturation] = []


@contextmanager
def counting() -> Iterator[Saturation]:
    """Count the rows of all linear attention inside; what runs compiled is not counted."""
    _counting.append(found := Saturation())
    try:
        yield found
    finally:
        _counting.remove(found)


def orthogonal_features(count: int, width: int, generator: torch.Generator) -> Tensor:
    """(M,K) float64: Gaussian rows, orthogonal within each block of K, with the norms of independent ones."""
    blocks = []
    for _ in range(-(-count // width)):
        q, r = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
        blocks.append((q * r.diagonal().sign()).T)  # the signs make the rotation uniform (Haar)
    norms = torch.randn(count, width, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
    return torch.cat(blocks)[:count] * norms


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent for integers, exact; 0 where it would be subnormal. Made from bits, since exp2 may round."""
    bits, bias, mantissa = (torch.int64, 1023, 52) if dtype == torch.float64 else (torch.int32, 127, 23)
    return (exponent.to(bits) + bias).clamp_min_(0).bitwise_left_shift_(mantissa).view(dtype)


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
    causal: bool,
    mask: Tensor | None = None,
    rotate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    throughout: bool = False,
    logs: Tensor | None = None,
    rates: Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """Linear attention's output (B,H,L,K), in memory linear in the length.

    Args:
        projection: (M,K) random features.
        scale: what scores are multiplied by, split evenly between queries and keys.
        mask: (B,S) bool, True at real keys; padding is out of the numerator and the denominator.
        rotate: turns query and key features (equation 19 of RoFormer) for the numerator alone, or `throughout`.
        logs: (B or 1, H, S), the log of the factor at each token by which what came before it is multiplied; both ways
            it must be the same at all tokens of a head.
        rates: (M,), the log of the factor at each token by which each turned feature is multiplied, in the numerator
            alone; causal.
        chunk: tokens handled at once when causal: memory is L x chunk, time L x (chunk + M).
    """
    dtype = torch.promote_types(values.dtype, torch.float32)  # features span many powers of ten: never in bf16
    queries, keys, values, projection = (x.to(dtype) for x in (queries, keys, values, projection))
    query = query_features(queries * math.sqrt(scale), projection)
    key, exponents = key_features(keys * math.sqrt(scale), projection, mask)
    turned_query, turned_key = rotate(query, key) if rotate else (query, key)
    if throughout:
        query, key = turned_query, turned_key
    if logs is not None:
        logs = logs.to(dtype).expand(*key.shape[:2], -1)
        if not causal:
            return _both_ways(query, key, values, exponents, logs, chunk)
    if not causal:
        largest = exponents.amax(-1, keepdim=True)
        factors = power_of_two(exponents - largest, dtype)[..., None]
        weighted = _with_ones(values) * factors
        numerator, denominator = _read(query, turned_query, _write(key, turned_key, weighted))
        for found in _counting:
            found.add(denominator, largest[..., None] > HIDDEN)
        return _divide(numerator, denominator)
    both, powers = _causal(query, key, turned_query, turned_key, values, exponents, chunk, logs, rates=rates)
    for found in _counting:
        found.add(both[..., -1:], powers[..., None] > HIDDEN)
    return _divide(both[..., :-1], both[..., -1:])


def _both_ways(
    query: Tensor, key: Tensor, values: Tensor, exponents: Tensor, logs: Tensor, chunk: int
) -> Tensor:  # fmt: skip
    """Two causal passes, one from the end, in which a row does not see itself again; their sums at one scale."""
    behind, scale = _causal(query, key, query, key, values, exponents, chunk, logs)
    query, key, values = (x.flip(2) for x in (query, key, values))
    ahead, other = _causal(query, key, query, key, values, exponents.flip(2), chunk, logs.flip(2), itself=False)
    ahead, other = ahead.flip(2), other.flip(2)
    both, largest = _together([(behind, scale), (ahead, other)])
    for found in _counting:
        found.add(both[..., -1:], largest[..., None] > HIDDEN)
    return _divide(both[..., :-1], both[..., -1:])


def _causal(
    query: Tensor, key: Tensor, turned_query: Tensor, turned_key: Tensor, values: Tensor, exponents: Tensor, chunk: int,
    logs: Tensor | None, itself: bool = True, rates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Chunks at once: each row sees its own chunk pair by pair, and earlier chunks through their summed state.

    Sums of logs begin anew in each chunk: differences of sums over a long row would lose the digits of short ones.

    Returns:
        Numerators and normaliser (B,H,L,K+1) over a power of two of the row's own, and its exponent (B,H,L).
    """
    length, dtype, turned = query.shape[2], query.dtype, turned_key is not key
    if turned:
        turned_query, turned_key = _chunks(turned_query, chunk), _chunks(turned_key, chunk)
    query, key, values = (_chunks(x, chunk) for x in (query, key, values))
    if not turned:
        turned_query, turned_key = query, key
    elif rates is not None:
        # From the chunk's first token on: over a row the factors of early keys would overflow.
        inside = torch.arange(chunk, device=query.device)[:, None] * rates.to(dtype)
        turned_query, turned_key = turned_query * inside.exp(), turned_key * (-inside).exp()
    exponents = _chunks(exponents[..., None], chunk, HIDDEN)[..., 0]  # (B,H,chunks,C)
    so_far = exponents.flatten(2).cummax(-1).values.view_as(exponents)
    last = so_far[..., -1]  # the scale of the state after each chunk
    before = torch.cat((torch.full_like(last[..., :1], HIDDEN), last[..., :-1]), dim=-1)

    # Within the chunk. A later key's factor is set to 0, and what it multiplies is finite: it leaves no trace.
    later = torch.full((chunk, chunk), 2 * HIDDEN, dtype=exponents.dtype, device=query.device).triu(int(itself))
    factors = power_of_two((exponents[..., None, :] - so_far[..., :, None]).add_(later), dtype)
    if logs is not None:
        sums = _chunks(logs[..., None], chunk)[..., 0].cumsum(-1)  # (B,H,chunks,C), at most 0
        factors = factors * (sums[..., :, None] - sums[..., None, :]).clamp_max(0.0).exp()
    values = _with_ones(values)
    both = ((turned_query @ turned_key.transpose(-1, -2)) * factors) @ values
    if turned:
        plain = (query @ key.transpose(-1, -2)) * factors
        both = torch.cat((both[..., :-1], plain.sum(-1, keepdim=True)), dim=-1)

    if last.shape[-1] > 1:
        # From earlier chunks: their states, brought to the largest power of two so far, one after another.
        own = power_of_two(exponents - last[..., None], dtype)[..., None]
        decay = power_of_two(before - last, dtype)[..., None, None]
        if logs is not None:
            own = own * (sums[..., -1:] - sums).exp()[..., None]
            decay = decay * sums[..., -1].exp()[..., None, None]
        added, decays = _write(key, turned_key, values * own), [decay, decay]
        if rates is not None:
            across = (rates.to(dtype) * chunk).exp()[:, None]
            added[0], decays[0] = added[0] * across, decay * across
        states = [_states(*each) for each in zip(added, decays, strict=False)]
        to_row = power_of_two(before[..., None] - so_far, dtype)[..., None]
        to_row = to_row if logs is None else to_row * sums.exp()[..., None]
        both = both + torch.cat(_read(query, turned_query, states), dim=-1) * to_row
    return both.flatten(2, 3)[:, :, :length], so_far.flatten(2)[:, :, :length]


def _together(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The sum (B,H,L,any) of parts whose rows are over powers of two of their own, and its rows' exponents (B,H,L)."""
    largest = parts[0][1]
    for _, exponents in parts[1:]:
        largest = torch.maximum(largest, exponents)
    scaled = [part * power_of_two(exponents - largest, part.dtype)[..., None] for part, exponents in parts]
    return sum(scaled[1:], start=scaled[0]), largest


def _moved(x: Tensor, back: int, filler: float = 0) -> Tensor:
    """(B,H,N,...): for each of N the one so many before it (or after, where negative)."""
    if not back:
        return x
    count = x.shape[2]
    gap = torch.full_like(x[:, :, : min(abs(back), count)], filler)
    kept = x[:, :, : max(count - back, 0)] if back > 0 else x[:, :, min(-back, count) :]
    return torch.cat((gap, kept) if back > 0 else (kept, gap), dim=2)


def _with_ones(values: Tensor) -> Tensor:
    """Values and a column of ones beside them, by which the denominator is summed as the numerator is."""
    return torch.cat((values, torch.ones_like(values[..., :1])), dim=-1)


def _write(key: Tensor, turned_key: Tensor, weighted: Tensor) -> list[Tensor]:
    """The state (...,M,K+1) of values with ones; where features are turned, one (...,M,K) and one (...,M,1)."""
    if turned_key is key:
        return [key.transpose(-1, -2) @ weighted]
    return [turned_key.transpose(-1, -2) @ weighted[..., :-1], key.transpose(-1, -2) @ weighted[..., -1:]]


def _read(query: Tensor, turned_query: Tensor, states: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Numerator (...,L,K) and denominator (...,L,1) from what `_write` gave."""
    if len(states) == 1:
        both = query @ states[0]
        return both[..., :-1], both[..., -1:]
    return turned_query @ states[0], query @ states[1]


def _chunks(x: Tensor, chunk: int, filler: float = 0) -> Tensor:
    """(B,H,L,any) to (B,H,chunks,C,any), filled up at the end with keys that are hidden and rows that are cut."""
    missing = -x.shape[2] % chunk
    padded = torch.nn.functional.pad(x, (0, 0, 0, missing), value=filler) if missing else x  # it would copy for none
    return padded.unflatten(2, (-1, chunk))


def _states(added: Tensor, decay: Tensor) -> Tensor:
    """The state before each chunk: zero before the first, then state * decay + added, chunk after chunk."""
    each, factors = added.unbind(2), decay.unbind(2)  # at once: the gradient of one index would be as long as all
    states = [torch.zeros_like(each[0])]
    for own, factor in zip(each[:-1], factors[:-1], strict=True):
        states.append(states[-1] * factor + own)
    return torch.stack(states, dim=2)


def _floor(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).tiny * 2.0**26


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    # The floor (8e-31 in float32) is reached where no key is visible at all (padding), where the numerator is 0, and by
    # queries and keys so long that float32 has lost them: a lower one would overflow in the backward pass.
    denominator = denominator.clamp_min(_floor(denominator.dtype))
    # Both are brought near 1 by a power of two of the row's own: the gradient holds 1 / denominator^2, which overflows
    # where long queries and keys share no large feature.
    factor = power_of_two(-torch.frexp(denominator.detach()).exponent, denominator.dtype)
    return (numerator * factor) / (denominator * factor)


def decays(encoding: Encoding, context: Context) -> Tensor:
    """What `log_decay` multiplies each pair's weight by, (B or 1, H, S, S)."""
    sums = encoding.log_decay(context).double().cumsum(-1)
    return (sums[..., :, None] - sums[..., None, :]).abs().neg().exp()


class Favor(Kernel):
    """FAVOR+ of queries and keys as the encoding leaves them, which may turn heads before the features.

    Args:
        width: K, of a head. features: M. chunk: tokens handled at once when causal.
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
        return self._favor(queries, keys, values, encoding.score_scale, self.causal, context.mask)

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
        return self._favor(queries, keys, values, queries.shape[-1] ** -0.5, False, memory.mask)

    def _favor(
        self, queries: Tensor, keys: Tensor, values: Tensor, scale: float, causal: bool, mask: Tensor | None,
        **more: Any,
    ) -> Tensor:  # fmt: skip
        with without_autocast(queries.device):
            heads = favor_attention(
                queries, keys, values, self.projection, scale=scale, causal=causal, mask=mask, chunk=self.chunk, **more
            )
        return heads.to(queries.dtype)

    def redraw(self, seed: int) -> None:
        if seed != self.drawn:
            generator = torch.Generator().manual_seed(seed)
            features, width = self.projection.shape
            self.projection.copy_(orthogonal_features(features, width, generator))
            self.drawn = seed
