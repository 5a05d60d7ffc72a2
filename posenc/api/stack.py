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
        scaled: whether scores are divided by the root of a head's width (`scale`).
    """

    layers: int
    heads: int
    width: int
    head_width: int
    max_length: int
    causal: bool
    axes: int = 1
    scaled: bool = True

    def scale(self, terms: int = 1) -> float:
        """What scores of so many terms are multiplied by: 1 / sqrt(terms x K), without K where they are not scaled."""
        return (terms * (self.head_width if self.scaled else 1)) ** -0.5
