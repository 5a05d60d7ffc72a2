"""The state before each chunk of causal linear attention: all chunks so far, each brought to one scale.

    S_0 = 0, S_(c+1) = S_c d_c + A_c, so S_c = sum over j < c of A_j times the product of d_k, j < k < c

On a CPU one chunk after another. On a GPU, where each step would be kernels of its own, all at once: a product of the
factors (C,C) of each pair of chunks with what the chunks add. Both are causal to the last bit: a later chunk's factor
is 0, what it multiplies is finite, and adding 0 changes no bit; no factor is a difference of sums over a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posenc.attention.linear.scales import NEVER, moved, power_of_two


@dataclass(frozen=True)
class Between:
    """What a state is multiplied by from before each chunk to after it: 2^exponent exp(log), of N chunks.

    Attributes:
        exponents: (B,H,N) int32. logs: (B or 1, H, N), at most 0. rates: (M,), logs of each row of the state.
    """

    exponents: Tensor
    dtype: torch.dtype
    logs: Tensor | None = None
    rates: Tensor | None = None

    def factors(self) -> Tensor:
        """(B,H,N,1 or M,1)."""
        found = power_of_two(self.exponents, self.dtype)[..., None, None]
        if self.logs is not None:
            found = found * self.logs.exp()[..., None, None]
        return found if self.rates is None else found * self.rates.exp()[:, None]


def states_before(added: Tensor, between: Between, start: Tensor | None = None) -> Tensor:
    """The state before each chunk (B,H,N,M,any): `start`, or zero, before the first, then state * factor + added."""
    # A factor for each row of the state would make a matrix for each: there the loop stays.
    if _in_parallel(added.device) and start is None and between.rates is None:
        return at_once(added, between)
    return one_by_one(added, between.factors(), start)


def _in_parallel(device: torch.device) -> bool:
    return device.type == "cuda"


def one_by_one(added: Tensor, decay: Tensor, start: Tensor | None = None) -> Tensor:
    """By a loop over chunks."""
    each, factors = added.unbind(2), decay.unbind(2)  # at once: the gradient of one index would be as long as all
    states = [torch.zeros_like(each[0]) if start is None else start]
    for own, factor in zip(each[:-1], factors[:-1], strict=True):
        states.append(states[-1] * factor + own)
    return torch.stack(states, dim=2)


def at_once(added: Tensor, between: Between) -> Tensor:
    """By a product of N x N factors, of each chunk for the state after each: N / chunk of what attention itself does.

    In the precision of what is added: never TF32, unless the process allows it.
    """
    exponents = _summed(between.exponents.long()).clamp_min(NEVER)
    factors = power_of_two(exponents, between.dtype)
    if between.logs is not None:
        factors = factors * _summed(between.logs).exp()
    after = factors.tril() @ added.flatten(3)
    return moved(after.unflatten(3, added.shape[3:]), 1)


def _summed(x: Tensor) -> Tensor:
    """(...,N) to (...,N,N): [c,j] is the sum of x_k, j < k <= c, from its own start: no difference of longer sums."""
    return x[..., None].expand(*x.shape, x.shape[-1]).tril(-1).cumsum(-2)
