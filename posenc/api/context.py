"""What a positional encoding's hooks may know of the forward pass that they serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from posenc.api.stack import Stack

Made = TypeVar("Made")


@dataclass(kw_only=True)
class Context:
    """What every hook may know of the forward pass it serves.

    Keys count S, queries L; in cached decoding the L queries are the last of the S keys (`offset` = S - L).

    Attributes:
        stack: the stack served.
        layer: the layer that asks, counted from 0 (set by the stack as it goes).
        window: how many keys back a query of this layer sees, itself among them; None where all (set by the stack).
        hidden: (B,L,D), what this layer's projections see: the residual stream, after a norm that comes first.
        mask: (B,S) bool, True at real tokens; None where every token is real.
        segments: (B,S) int, which packed example a token belongs to; None where rows hold one example.
        cls: (B,S) bool, True at classification tokens; None where there are none.
        coordinates: (B or 1, S, A), where tokens stand, as the batch says it; None where they are counted. Of images
            (row, column), of videos (time, row, column), counted from 0 in steps of a patch.
        training: the model is in training mode.
        generator: the encoding's own source of randomness; the global one is never drawn from, so that
            dropout masks do not depend on the encoding.
        cache: what `once` keeps; lives for one forward pass of one stack.
        key_positions, query_positions: (B or 1, S or L, A), what `Encoding.positions` answered.
        counted: positions differ exactly as the places of tokens do, wherever a query may look: none set them.
    """

    stack: Stack
    queries: int
    keys: int
    device: torch.device
    layer: int = 0
    window: int | None = None
    hidden: Tensor | None = None
    mask: Tensor | None = None
    segments: Tensor | None = None
    cls: Tensor | None = None
    coordinates: Tensor | None = None
    training: bool = False
    generator: torch.Generator | None = None
    cache: dict[Any, Any] = field(default_factory=dict)
    key_positions: Tensor = field(init=False)
    query_positions: Tensor = field(init=False)
    counted: bool = field(init=False, default=False)

    @property
    def offset(self) -> int:
        return self.keys - self.queries

    @property
    def lengths(self) -> Tensor:
        """(B or 1,) how many real tokens each row holds."""
        if self.mask is None:
            return torch.full((1,), self.keys, device=self.device)
        return self.mask.sum(dim=1)

    def once(self, owner: object, key: object, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once in this pass; `owner` (mostly `self`) keeps its keys apart from all others'.

        What differs by layer has `context.layer` in its key, or is not kept.
        """
        place = (owner, key)
        if place not in self.cache:
            self.cache[place] = make()
        made: Made = self.cache[place]
        return made

    @property
    def visible(self) -> Tensor:
        """Which key each query may see, (B or 1, 1, L, S) bool: causality, padding, packed rows and the window.

        A query at padding sees itself, so that no row is empty: its output is never used.
        """
        return self.once(Context, ("visible", self.window), self._visible)

    def _visible(self) -> Tensor:
        index = torch.arange(self.keys, device=self.device)
        query = index[self.offset :, None]
        seen = (index <= query)[None] if self.stack.causal else torch.ones_like(index <= query)[None]
        if self.window is not None:
            seen = seen & ((index - query).abs() < self.window)
        if self.segments is not None:
            seen = seen & (self.segments[:, self.offset :, None] == self.segments[:, None, :])
        if self.mask is not None:
            seen = (seen & self.mask[:, None, :]) | (index == query)
        return seen[:, None]
