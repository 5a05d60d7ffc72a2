"""Which pairs may meet, told pair by pair and block by block: FlexAttention's masks without a table of L x S.

FlexAttention leaves out blocks of 128 x 128 pairs in which nothing may be seen, and asks pair by pair in blocks where
some may. What a block is follows from its ends alone: from its first and last index, from the smallest and largest
example number in it, from whether any, or all, of its keys are real. So (L / 128) x (S / 128) numbers are made, never
L x S. Where ends leave it open (examples of a packed row that come back), a block counts as partly seen, which costs
time and changes nothing: each of its pairs is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from posenc.api.context import Context
from posenc.api.rows import filled
from posenc.attention.interface import Memory

BLOCK = 128
"""Queries, and keys, of a block: FlexAttention's own default, which its kernels' blocks must divide."""
Pair = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """Which of S keys each of L queries may see. Query i stands at key i + offset.

    Attributes:
        mask: (B,S) bool, True at real keys; None where all are. itself: a query sees the key where it stands, hidden or
            not, so that no row is empty.
        segments: (B,L) and (B,S) int: a query sees keys of its own segment alone.
        lonely: (B,L) bool, queries with nothing to see, which see all instead.
    """

    queries: int
    keys: int
    causal: bool
    offset: int = 0
    window: int | None = None
    mask: Tensor | None = None
    itself: bool = True
    segments: tuple[Tensor, Tensor] | None = None
    lonely: Tensor | None = None

    @classmethod
    def of(cls, context: Context) -> Sight:
        """Of self-attention."""
        pair = None if context.segments is None else (context.segments[:, context.offset :], context.segments)
        return cls(
            queries=context.queries, keys=context.keys, causal=context.stack.causal, offset=context.offset,
            window=context.window, mask=context.mask, segments=pair,
        )  # fmt: skip

    @classmethod
    def over(cls, memory: Memory, queries: int) -> Sight:
        """Of cross-attention: what `Memory.seen` lays out."""
        lonely, (rows, keys) = None, memory.states.shape[:2]
        if memory.segments is not None:
            lonely = ~_found(*memory.segments, memory.mask)
        elif memory.mask is not None:
            lonely = ~memory.mask.any(1, keepdim=True).expand(rows, queries)
        return cls(
            queries=queries, keys=keys, causal=False, mask=memory.mask, itself=False, segments=memory.segments,
            lonely=lonely,
        )  # fmt: skip

    @property
    def everything(self) -> bool:
        return not self.causal and self.window is None and self.mask is None and self.segments is None

    @property
    def by_row(self) -> bool:
        """Rows of the batch differ."""
        return self.mask is not None or self.segments is not None

    def pair(self) -> Pair:
        """Whether query i of row b may see key j, as FlexAttention asks."""
        # Plain numbers and tensors: a compiled kernel knows no class.
        mask, segments, lonely, itself = self.mask, self.segments, self.lonely, self.itself
        causal, offset, window = self.causal, self.offset, self.window

        def seen(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            at = i + offset
            found = j <= at if causal else j >= 0
            if window is not None:
                found = found & (at - j < window) & (j - at < window)
            if segments is not None:
                found = found & (segments[0][b, i] == segments[1][b, j])
            if mask is not None:
                found = found & mask[b, j]
                if itself:
                    found = found | (j == at)
            return found if lonely is None else found | lonely[b, i]

        return seen

    def blocks(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(B or 1, 1, blocks of queries, blocks of keys) bool: partly seen, and wholly."""
        first, last = (x[:, None] + self.offset for x in _ends(self.queries, device))
        start, end = _ends(self.keys, device)
        some, every = torch.ones_like(first >= start), torch.ones_like(first >= start)
        if self.causal:
            some, every = some & (start <= last), every & (end <= first)
        if self.window is not None:
            some = some & (first - end < self.window) & (start - last < self.window)
            every = every & (last - start < self.window) & (end - first < self.window)
        some, every = some[None], every[None]
        if self.segments is not None:
            (low, high), (least, most) = (_extremes(x) for x in self.segments)
            low, high, least, most = low[:, :, None], high[:, :, None], least[:, None], most[:, None]
            some = some & (low <= most) & (least <= high)
            every = every & (low == high) & (least == most) & (low == least)
        if self.mask is not None:
            least, most = (x[:, None] for x in _extremes(self.mask.to(torch.uint8)))
            some, every = some & most.bool(), every & least.bool()
            if self.itself:
                some = some | ((start <= last) & (end >= first))
        if self.lonely is not None:
            least, most = (x[:, :, None].bool() for x in _extremes(self.lonely.to(torch.uint8)))
            some, every = some | most, every | least
        # A block that reaches past the last query or key is not whole.
        whole = _whole(self.queries, device)[:, None] & _whole(self.keys, device)
        every = every & whole
        return (some & ~every)[:, None], (every & some)[:, None]

    def block_mask(self, device: torch.device) -> BlockMask | None:
        """What FlexAttention asks for; None where every query may see every key."""
        if self.everything:
            return None
        partial, full = (_listed(x) for x in self.blocks(device))
        made: BlockMask = BlockMask.from_kv_blocks(
            *partial, *full, BLOCK_SIZE=BLOCK, mask_mod=self.pair(), seq_lengths=(self.queries, self.keys)
        )
        return made

    def kept_mask(self, device: torch.device) -> BlockMask | None:
        """`block_mask`, made once in a process where no row is unlike another."""
        if self.by_row or torch.compiler.is_compiling():
            return self.block_mask(device)
        return _kept(self.queries, self.keys, self.causal, self.offset, self.window, str(device))


@lru_cache(maxsize=128)
def _kept(
    queries: int, keys: int, causal: bool, offset: int, window: int | None, device: str
) -> BlockMask | None:  # fmt: skip
    plain = Sight(queries=queries, keys=keys, causal=causal, offset=offset, window=window)
    with torch.inference_mode(False):  # a training step may ask for it next
        return plain.block_mask(torch.device(device))


def _ends(length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first and the last index of each block."""
    first = torch.arange(0, length, BLOCK, device=device)
    return first, (first + BLOCK - 1).clamp_max(length - 1)


def _whole(length: int, device: torch.device) -> Tensor:
    return torch.arange(BLOCK, length + BLOCK, BLOCK, device=device) <= length


def _extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B,blocks): the smallest and the largest of x (B,N) in each block."""
    each = filled(x, BLOCK).unflatten(1, (-1, BLOCK))
    return each.amin(-1), each.amax(-1)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of keys each block of queries has, and which, first; the rest in any order."""
    order = blocks.to(torch.int32).argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), order.to(torch.int32)


def _found(asking: Tensor, asked: Tensor, mask: Tensor | None) -> Tensor:
    """(B,L) bool: whether any real token has a query's segment: sorted and looked up, never pair by pair."""
    least = torch.iinfo(asked.dtype).min
    real = asked if mask is None else asked.masked_fill(~mask, least)
    ordered = real.sort(dim=1).values
    place = torch.searchsorted(ordered, asking.to(asked.dtype).contiguous()).clamp_max(asked.shape[1] - 1)
    return ordered.gather(1, place) == asking
