"""What stands between an attention layer's projections: heads in, heads out, and what decoding keeps between steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from posenc.api.context import Context
from posenc.api.encoding import Encoding


class LayerCache:
    """Keys and values that one layer has seen, for cached decoding. Raw keys serve `score_bias`.

    Attributes:
        parts: keys, raw keys and values (B,H,S,K) of self-attention. memory: keys and values of cross-attention.
    """

    def __init__(self) -> None:
        self.parts: tuple[Tensor, ...] | None = None
        self.memory: tuple[Tensor, ...] | None = None

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
        seen: (B,1,1 or L,S) bool, what each of the L queries may see of it; None where all of it.
    """

    states: Tensor
    mask: Tensor | None = None
    seen: Tensor | None = None


class Kernel(nn.Module):
    """A form of attention. It has no parameters; one serves one layer.

    Attributes:
        packed: it can keep the examples of a packed row apart. cached: it can decode with cached keys.
    """

    packed = False
    cached = False

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
