"""Which keys the rows of linear attention see, and the powers of two by which sums over them are scaled.

Shape suffixes as in posenc.api.encoding, and M features, C tokens a chunk. Rows are brought together at powers of two:
multiplying by these is exact, so no output depends on a later token, nor on another example of a packed row, not in the
last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from posenc.api.context import Context
from posenc.api.rows import filled

LARGEST = 2**28
"""Exponents of real keys stay within this, so that sums of them stay within an int32."""
HIDDEN = -(2**29)
"""The exponent of a hidden key: below every real one, so that it never sets a scale."""
NEVER = 2 * HIDDEN
"""Added to a difference of exponents, or in its place: its power of two is 0."""
BETWEEN_RUNS = 2**31
"""Further apart than exponents can be."""


@dataclass(frozen=True)
class Rows:
    """Which of the keys a query may look at, and how many tokens are handled at once. Queries are the same tokens.

    Attributes:
        causal: none that comes later. chunk: C.
        mask: (B,S) bool, True at real keys; None where all are.
        runs: (B,S) int64, which example of its packed row a key belongs to, never falling along the row; None where
            rows hold one each.
        earlier_mask, earlier_runs: (B,any) those of what came before, which an earlier call saw.
    """

    causal: bool
    chunk: int
    mask: Tensor | None = None
    runs: Tensor | None = None
    earlier_mask: Tensor | None = None
    earlier_runs: Tensor | None = None

    @classmethod
    def of(cls, context: Context, *, causal: bool, chunk: int) -> Rows:
        """The rows of a pass; in cached decoding those of its new tokens."""
        segments = context.segments
        runs = None if segments is None else context.once(Rows, "runs", lambda: runs_of(segments))
        return cls(causal, chunk, context.mask, runs).part(context.offset, context.keys)

    def part(self, first: int, end: int) -> Rows:
        """Of some of its tokens alone; those before them are earlier ones."""
        parts = []
        for now, earlier in ((self.mask, self.earlier_mask), (self.runs, self.earlier_runs)):
            before = None if now is None else now[:, :first]
            before = before if before is None or earlier is None else torch.cat((earlier, before), dim=1)
            parts.append((None if now is None else now[:, first:end], before))
        (mask, earlier_mask), (runs, earlier_runs) = parts
        return Rows(self.causal, self.chunk, mask, runs, earlier_mask, earlier_runs)

    def reaching(self, back: int) -> Rows:
        """Of so many earlier tokens too."""
        mask, runs = (
            now if now is None or earlier is None else torch.cat((earlier[:, earlier.shape[1] - back :], now), dim=1)
            for now, earlier in ((self.mask, self.earlier_mask), (self.runs, self.earlier_runs))
        )
        return Rows(self.causal, self.chunk, mask, runs)

    def flipped(self) -> Rows:
        """From the end."""
        mask = None if self.mask is None else self.mask.flip(1)
        runs = None if self.runs is None else self.runs.amax(1, keepdim=True) - self.runs.flip(1)
        return Rows(self.causal, self.chunk, mask, runs)


def runs_of(segments: Tensor) -> Tensor:
    """(B,S) int64: the examples of each row, counted from 0."""
    changes = segments[:, 1:] != segments[:, :-1]
    return functional.pad(changes.long(), (1, 0)).cumsum(1)


@dataclass(frozen=True)
class State:
    """All keys so far, summed.

    Attributes:
        sums: (B,H,M,K+1), values and a column of ones; where the numerator has features of its own (B,H,M,K) and
            (B,H,M,1). None where no key came.
        exponents: (B,H) int32: the sums proper are 2^n times these.
    """

    sums: tuple[Tensor, ...] | None
    exponents: Tensor

    @classmethod
    def of(cls, parts: tuple[Tensor, ...] | None, like: Tensor) -> State:
        """What `parts` gave; the empty one for None, for queries (B,H,L,any) like these."""
        if parts is None:
            return cls(None, torch.full(like.shape[:2], HIDDEN, dtype=torch.int32, device=like.device))
        return cls(parts[:-1], parts[-1])

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return (*(self.sums or ()), self.exponents)


@dataclass(frozen=True)
class Scales:
    """Powers of two of keys, rows and states, by chunks. A state holds the keys of one run alone, the last so far.

    Attributes:
        keys, rows: (B,H,chunks,C): of keys; of rows, the largest that each has seen of its run.
        last, before: (B,H,chunks), of the state after and before each chunk.
        runs: of tokens (B,1,chunks,C), and those whose state it is after and before each chunk (B,1,chunks); None where
            rows hold one run each.
    """

    keys: Tensor
    rows: Tensor
    last: Tensor
    before: Tensor
    runs: tuple[Tensor, Tensor, Tensor] | None = None

    @classmethod
    def of(cls, exponents: Tensor, rows: Rows, chunk: int, state: State | None = None) -> Scales:
        """Of keys' exponents (B,H,S), each row seeing what comes before it, of its run, and of a state."""
        start = torch.full_like(exponents[..., :1], HIDDEN) if state is None else state.exponents[..., None]
        keys = chunks(exponents[..., None], chunk, HIDDEN)[..., 0]
        if rows.runs is None:
            so_far = keys.flatten(2).cummax(-1).values.view_as(keys)
            so_far = so_far if state is None else so_far.maximum(start[..., None])
            last = so_far[..., -1]
            return cls(keys, so_far, last, torch.cat((start, last[..., :-1]), dim=-1))
        runs = filled(rows.runs, chunk)[:, None]
        earlier = rows.earlier_runs
        first = runs[..., :1] if earlier is None or not earlier.shape[1] else earlier[:, None, -1:]
        so_far = largest_of_run(torch.cat((start, keys.flatten(2)), 2), torch.cat((first, runs), 2))
        so_far, runs = so_far[..., 1:].view_as(keys), runs.unflatten(2, (-1, chunk))
        last, last_run = so_far[..., -1], runs[..., -1]
        before, run_before = (torch.cat((x, y[..., :-1]), dim=-1) for x, y in ((start, last), (first, last_run)))
        return cls(keys, so_far, last, before, (runs, last_run, run_before))

    @property
    def count(self) -> int:
        return self.keys.shape[2]

    def both_ways(self) -> Scales:
        """Of rows that see what comes after them too."""
        if self.runs is None:
            rows = self.rows.flatten(2)[..., -1:, None].expand_as(self.rows)
        else:
            runs = self.runs[0].flatten(2).flip(2)
            ahead = largest_of_run(self.keys.flatten(2).flip(2), runs.amax(2, keepdim=True) - runs)
            rows = self.rows.maximum(ahead.flip(2).view_as(self.rows))
        return _at_ends(self.keys, rows, self.runs and self.runs[0], -1)

    def flipped(self) -> Scales:
        """The last chunk first, each as it is, of rows that see both ways."""
        runs = None if self.runs is None else self.runs[0].flip(2)
        return _at_ends(self.keys.flip(2), self.rows.flip(2), runs, 0)

    def of_chunk(self, back: int) -> Tensor:
        """Of each key of the chunk so many before over each of a chunk's rows, (B,H,chunks,C,C)."""
        difference = moved(self.keys, back, HIDDEN)[..., None, :] - self.rows[..., :, None]
        if self.runs is None:
            return difference
        runs, *_ = self.runs
        return of_run(difference, moved(runs, back, -1)[..., None, :] == runs[..., :, None])

    def inside(self, itself: bool) -> Tensor:
        """Of each key of a chunk over each of its rows that comes after it, or is its own: (B,H,chunks,C,C)."""
        chunk, device = self.keys.shape[-1], self.keys.device
        later = torch.full((chunk, chunk), NEVER, dtype=self.keys.dtype, device=device).triu(int(itself))
        return self.of_chunk(0).add_(later)

    def own(self) -> Tensor:
        """Of each key over the state after its chunk, (B,H,chunks,C)."""
        difference = self.keys - self.last[..., None]
        if self.runs is None:
            return difference
        runs, last, _ = self.runs
        return of_run(difference, runs == last[..., None])

    def between(self) -> Tensor:
        """Of the state before each chunk over the one after it, (B,H,chunks)."""
        difference = self.before - self.last
        if self.runs is None:
            return difference
        _, last, before = self.runs
        return of_run(difference, before == last)

    def to_row(self, back: int = 0) -> Tensor:
        """Of the state before each chunk, or so many chunks earlier, over each of its rows, (B,H,chunks,C)."""
        difference = moved(self.before, back, HIDDEN)[..., None] - self.rows
        if self.runs is None:
            return difference
        runs, _, before = self.runs
        return of_run(difference, moved(before, back, -1)[..., None] == runs)


def _at_ends(keys: Tensor, rows: Tensor, runs: Tensor | None, end: int) -> Scales:
    """Of rows that see both ways: states have the scale and the run of each chunk's first (0) or last (-1) token."""
    last = rows[..., end]
    before = torch.cat((torch.full_like(last[..., :1], HIDDEN), last[..., :-1]), dim=-1)
    if runs is None:
        return Scales(keys, rows, last, before)
    ends = runs[..., end]
    return Scales(keys, rows, last, before, (runs, ends, torch.cat((ends[..., :1], ends[..., :-1]), dim=-1)))


def delayed(key: Tensor, exponents: Tensor, runs: Tensor | None, back: int) -> tuple[Tensor, Tensor]:
    """Key features (B,H,S,M) and exponents (B,H,S), each so many places later; hidden where there another run is.

    Nobody sees such a key: examples do not come back.
    """
    key, exponents = moved(key, back), moved(exponents, back, HIDDEN)
    if runs is None or not back:
        return key, exponents
    same = moved(runs[:, None], back, -1) == runs[:, None]
    return key * same[..., None], torch.where(same, exponents, HIDDEN)


def of_run(difference: Tensor, same: Tensor) -> Tensor:
    """Differences of exponents between tokens of one run; of others such that their power of two is 0."""
    return torch.where(same, difference, NEVER)


def largest_of_run(exponents: Tensor, runs: Tensor) -> Tensor:
    """The largest so far (B,H,S) of exponents (B,H,S) int32, anew in each of runs (B,1,S), which never fall."""
    lifted = runs * BETWEEN_RUNS
    return ((exponents + lifted).cummax(-1).values - lifted).to(exponents.dtype)


def moved(x: Tensor, back: int, filler: float = 0) -> Tensor:
    """(B,H,N,...): for each of N the one so many before it (or after, where negative)."""
    if not back:
        return x
    count = x.shape[2]
    gap = torch.full_like(x[:, :, : min(abs(back), count)], filler)
    kept = x[:, :, : max(count - back, 0)] if back > 0 else x[:, :, min(-back, count) :]
    return torch.cat((gap, kept) if back > 0 else (kept, gap), dim=2)


def chunks(x: Tensor, chunk: int, filler: float = 0) -> Tensor:
    """(B,H,L,any) to (B,H,chunks,C,any), filled up at the end with keys that are hidden and rows that are cut."""
    missing = -x.shape[2] % chunk
    padded = functional.pad(x, (0, 0, 0, missing), value=filler) if missing else x  # it would copy for none
    return padded.unflatten(2, (-1, chunk))


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """2^exponent for integers, exact; 0 where it would be subnormal. Made from bits, since exp2 may round."""
    bits, bias, mantissa = (torch.int64, 1023, 52) if dtype == torch.float64 else (torch.int32, 127, 23)
    return (exponent.to(bits) + bias).clamp_min_(0).bitwise_left_shift_(mantissa).view(dtype)
