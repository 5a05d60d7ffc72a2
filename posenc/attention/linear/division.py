"""The division at the end of all linear attention, and a count of the rows that float32 has lost by then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from posenc.attention.linear.scales import HIDDEN, power_of_two


class Saturation:
    """How many rows of attention were asked for that see a key, and how many of them float32 has lost.

    Attributes:
        rows: (), of all heads and layers. lost: (), those whose normaliser lies at the floor of `divide`.
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


def _floor(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).tiny * 2.0**26


def divide(both: Tensor, exponents: Tensor) -> Tensor:
    """Numerators over normalisers (B,H,L,K+1), whose rows have powers of two (B,H,L or 1) that cancel."""
    numerator, denominator = both[..., :-1], both[..., -1:]
    for found in _counting:
        found.add(denominator, exponents[..., None] > HIDDEN)
    # The floor (8e-31 in float32) is reached where no key is visible at all (padding), where the numerator is 0, and by
    # queries and keys so long that float32 has lost them: a lower one would overflow in the backward pass.
    denominator = denominator.clamp_min(_floor(denominator.dtype))
    # Both are brought near 1 by a power of two of the row's own: the gradient holds 1 / denominator^2, which overflows
    # where long queries and keys share no large feature.
    factor = power_of_two(-torch.frexp(denominator.detach()).exponent, denominator.dtype)
    return (numerator * factor) / (denominator * factor)
