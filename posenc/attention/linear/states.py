"""What all linear attention does once features stand: chunks multiplied out, and states between them.

Shape suffixes as in posenc.api.encoding, and M features, C tokens a chunk. Nothing is ever subtracted from a state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posenc.attention.interface import LayerCache
from posenc.attention.linear.before import Between, states_before
from posenc.attention.linear.scales import Rows, Scales, State, chunks, power_of_two

Turned = tuple[Tensor, Tensor]
"""What stands in place of query and key features in the numerator."""


def attended(
    query: Tensor,
    key: Tensor,
    values: Tensor,
    exponents: Tensor,
    rows: Rows,
    *,
    turned: Turned | None = None,
    logs: Tensor | None = None,
    rates: Tensor | None = None,
    cache: LayerCache | None = None,
) -> tuple[Tensor, Tensor]:
    """Numerators and normaliser (B,H,L,K+1), each row over a power of two, and its exponent (B,H,L or 1).

    Args:
        query, key: features (B,H,L,M) and (B,H,S,M). values: (B,H,S,K).
        exponents: (B,H,S) int32, n: the keys' features proper are 2^n times these.
        logs: (B or 1, H, S), the log of the factor at each token by which what came before it is multiplied; both ways
            it must be the same at all tokens of a head.
        rates: (M,), the log of the factor at each token by which each turned feature is multiplied; causal.
        cache: the state of all keys so far, read and written: tokens go on from there. Causal.
    """
    if rows.causal:
        state = State.of(cache.parts, query) if cache is not None else None
        found = causal(query, key, values, exponents, rows, turned=turned, logs=logs, rates=rates, state=state)
        if cache is not None and found.state is not None:
            cache.parts = found.state.parts
        return found.both, found.exponents
    if logs is not None or rows.runs is not None:
        return _both_ways(query, key, values, exponents, rows, turned, logs)
    largest = exponents.amax(-1, keepdim=True)
    weighted = with_ones(values) * power_of_two(exponents - largest, key.dtype)[..., None]
    return _read(query, _write(key, weighted, turned), turned), largest


def _both_ways(
    query: Tensor, key: Tensor, values: Tensor, exponents: Tensor, rows: Rows, turned: Turned | None,
    logs: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Two causal passes, one from the end, in which a row does not see itself again; their sums at one scale."""
    behind = causal(query, key, values, exponents, rows, turned=turned, logs=logs)
    query, key, values = (x.flip(2) for x in (query, key, values))
    turned = None if turned is None else (turned[0].flip(2), turned[1].flip(2))
    logs = None if logs is None else logs.flip(2)
    ahead = causal(query, key, values, exponents.flip(2), rows.flipped(), turned=turned, logs=logs, itself=False)
    return together([(behind.both, behind.exponents), (ahead.both.flip(2), ahead.exponents.flip(2))])


@dataclass(frozen=True)
class Found:
    """Numerators and normaliser (B,H,L,K+1) over powers of two, their exponents (B,H,L), and the state after them."""

    both: Tensor
    exponents: Tensor
    state: State | None = None


def causal(
    query: Tensor,
    key: Tensor,
    values: Tensor,
    exponents: Tensor,
    rows: Rows,
    *,
    turned: Turned | None = None,
    logs: Tensor | None = None,
    itself: bool = True,
    rates: Tensor | None = None,
    state: State | None = None,
) -> Found:
    """Chunks at once: each row sees its own chunk pair by pair, and earlier chunks through their summed state.

    Sums of logs begin anew in each chunk: differences of sums over a long row would lose the digits of short ones.
    `itself`: a row sees itself. `state`: of what came before, where tokens go on from there.
    """
    chunk, length, dtype = rows.chunk, query.shape[2], query.dtype
    if state is not None:  # what comes after a chunk that is not full would be wrong, so there is none
        if length > chunk:
            return _pieces(query, key, values, exponents, rows, turned, logs, itself, rates, state)
        chunk = length
    query, key, values = (chunks(x, chunk) for x in (query, key, values))
    if turned is None:
        turned_query, turned_key = query, key
    else:
        turned_query, turned_key = (chunks(x, chunk) for x in turned)
        if rates is not None:
            # From the chunk's first token on: over a row the factors of early keys would overflow.
            inside = torch.arange(chunk, device=query.device)[:, None] * rates.to(dtype)
            turned_query, turned_key = turned_query * inside.exp(), turned_key * (-inside).exp()
        turned = (turned_query, turned_key)
    scales = Scales.of(exponents, rows, chunk, state)

    # Within the chunk. A later key's factor is set to 0, and what it multiplies is finite: it leaves no trace.
    factors = power_of_two(scales.inside(itself), dtype)
    if logs is not None:
        sums = chunks(logs[..., None], chunk)[..., 0].cumsum(-1)  # (B,H,chunks,C), at most 0
        factors = factors * (sums[..., :, None] - sums[..., None, :]).clamp_max(0.0).exp()
    values = with_ones(values)
    both = ((turned_query @ turned_key.transpose(-1, -2)) * factors) @ values
    if turned is not None:
        plain = (query @ key.transpose(-1, -2)) * factors
        both = torch.cat((both[..., :-1], plain.sum(-1, keepdim=True)), dim=-1)

    after = None
    if scales.count > 1 or state is not None:
        # From earlier chunks: their states, brought to the largest power of two so far, one after another.
        own, between = power_of_two(scales.own(), dtype)[..., None], Between(scales.between(), dtype)
        if logs is not None:
            own = own * (sums[..., -1:] - sums).exp()[..., None]
            between = Between(between.exponents, dtype, sums[..., -1])
        added, steps = _write(key, values * own, turned), [between, between]
        if rates is not None:
            across = rates.to(dtype) * chunk
            added[0], steps[0] = added[0] * across.exp()[:, None], replace(between, rates=across)
        starts = [None, None] if state is None or state.sums is None else state.sums
        states = [states_before(*each) for each in zip(added, steps, starts, strict=False)]
        to_row = power_of_two(scales.to_row(), dtype)[..., None]
        to_row = to_row if logs is None else to_row * sums.exp()[..., None]
        both = both + _read(query, states, turned) * to_row
        if state is not None:
            parts = zip(states, steps, added, strict=False)
            sum_after = (x[:, :, 0] * y.factors()[:, :, 0] + z[:, :, 0] for x, y, z in parts)
            after = State(tuple(sum_after), scales.last[..., -1])
    return Found(both.flatten(2, 3)[:, :, :length], scales.rows.flatten(2)[:, :, :length], after)


def _pieces(
    query: Tensor, key: Tensor, values: Tensor, exponents: Tensor, rows: Rows, turned: Turned | None,
    logs: Tensor | None, itself: bool, rates: Tensor | None, state: State | None,
) -> Found:  # fmt: skip
    """Chunk after chunk, each going on from the state of the last."""
    found = []
    for first in range(0, query.shape[2], rows.chunk):
        end = min(first + rows.chunk, query.shape[2])
        part = slice(first, end)
        own = (query[:, :, part], key[:, :, part], values[:, :, part], exponents[..., part], rows.part(first, end))
        features = None if turned is None else (turned[0][:, :, part], turned[1][:, :, part])
        decays = None if logs is None else logs[..., part]
        found.append(causal(*own, turned=features, logs=decays, itself=itself, rates=rates, state=state))
        state = found[-1].state
    return Found(
        torch.cat([one.both for one in found], 2), torch.cat([one.exponents for one in found], 2), state
    )  # fmt: skip


def together(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The sum (B,H,L,any) of parts whose rows are over powers of two of their own, and its rows' exponents (B,H,L)."""
    largest = parts[0][1]
    for _, exponents in parts[1:]:
        largest = torch.maximum(largest, exponents)
    scaled = [part * power_of_two(exponents - largest, part.dtype)[..., None] for part, exponents in parts]
    return sum(scaled[1:], start=scaled[0]), largest


def with_ones(values: Tensor) -> Tensor:
    """Values and a column of ones beside them, by which the normaliser is summed as the numerator is."""
    return torch.cat((values, torch.ones_like(values[..., :1])), dim=-1)


def _write(key: Tensor, weighted: Tensor, turned: Turned | None) -> list[Tensor]:
    """The state (...,M,K+1) of values with ones; where features are turned, one (...,M,K) and one (...,M,1)."""
    if turned is None:
        return [key.transpose(-1, -2) @ weighted]
    return [turned[1].transpose(-1, -2) @ weighted[..., :-1], key.transpose(-1, -2) @ weighted[..., -1:]]


def _read(query: Tensor, states: list[Tensor], turned: Turned | None) -> Tensor:
    """Numerator and normaliser (...,L,K+1) from what `_write` gave."""
    if turned is None:
        return query @ states[0]
    return torch.cat((turned[0] @ states[0], query @ states[1]), dim=-1)
