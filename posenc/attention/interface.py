"""What stands between an attention layer's projections: heads in, heads out, and what decoding keeps between steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from posenc.api.context import Context
from posenc.api.encoding import Encoding


class LayerCache:
    """What one layer keeps between steps of cached decoding.

    Attributes:
        parts: of self-attention: of softmax attention keys, raw keys (which serve `score_bias`) and values (B,H,S,K);
            of linear attention what its kernel keeps, each (B,...). memory: keys and values of cross-attention.
        tail: (B,any,3D), what a short convolution has yet to read.
    """

    def __init__(self) -> None:
        self.parts: tuple[Tensor, ...] | None = None
        self.memory: tuple[Tensor, ...] | None = None
        self.tail: Tensor | None = None

    def append(self, keys: Tensor, raw: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        if self.parts is not None:
            old_keys, old_raw, old_values = self.parts
            keys = torch.cat((old_keys, keys), dim=2)
            raw = torch.cat((old_raw, raw), dim=2)
            values = torch.cat((old_values, values), dim=2)
        self.parts = (keys, raw, values)
        return self.parts

    def select(self, rows: Tensor) -> None:
        self.parts = self.parts and tuple(part[rows] for part in self.parts)
        self.memory = self.memory and tuple(part[rows] for part in self.memory)
        self.tail = None if self.tail is None else self.tail[rows]


class DecodingCache:
    """What a decoder keeps between steps of cached decoding: one LayerCache a layer, and how long it is."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]
        self.length = 0

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, in this order; a row may be taken more than once (beam search)."""
        for layer in self.layers:
            layer.select(rows)


@dataclass(frozen=True)
class Memory:
    """The other stack's output (B,S,D), for cross-attention.

    Attributes:
        mask: (B,S) bool, True at its real tokens; None where all are.
        segments: (B,L) and (B,S) int, of queries and of its tokens, in packed rows: a query sees what has its own.
    """

    states: Tensor
    mask: Tensor | None = None
    segments: tuple[Tensor, Tensor] | None = None

    @cached_property
    def seen(self) -> Tensor | None:
        """Which of its tokens each query may see, (B,1,1 or L,S) bool; None where it may see all.

        A query that has nothing to see (its source is nothing but padding, or it stands at the unused end of a packed
        row) sees all, so that no row is empty: its output is never used.
        """
        seen = None if self.mask is None else self.mask[:, None, None]
        if self.segments is not None:
            own = (self.segments[0][:, :, None] == self.segments[1][:, None, :])[:, None]
            seen = own if seen is None else seen & own
        return seen if seen is None else seen | ~seen.any(dim=-1, keepdim=True)


class Kernel(nn.Module):
    """A form of attention. It has no parameters; one serves one layer."""

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, encoding: Encoding, context: Context,
        cache: LayerCache | None = None,
    ) -> Tensor:  # fmt: skip
        """Self-attention's output (B,H,L,K) for queries, keys and values (B,H,L,K) as projected."""
        raise NotImplementedError

    def cross(self, queries: Tensor, keys: Tensor, values: Tensor, memory: Memory) -> Tensor:
        """Cross-attention's output (B,H,L,K). No encoding has a part in it."""
        raise NotImplementedError

    def redraw(self, seed: int) -> None:
        """Draw what is random in it, of a seed."""
