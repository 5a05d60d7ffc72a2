"""What a stack of layers is, for the encoding that serves it. Without torch, so that configurations load none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The stack of layers that one encoding instance serves.

    Attributes:
        layers, heads: how many.
        width: D, the model's width.
        head_width: K, the width of one head.
        max_length: the largest length trained on, in tokens (the size of a learned table).
        causal: a query sees only keys at or before it; else both ways.
        axes: A, how many coordinates a position has: 1 for text.
    """

    layers: int
    heads: int
    width: int
    head_width: int
    max_length: int
    causal: bool
    axes: int = 1
