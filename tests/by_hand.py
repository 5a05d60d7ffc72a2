"""Encodings and attention written out in loops and plain floats, which those of posenc are held against."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.stack import Stack
from posenc.backbone.config import BackboneConfig
from posenc.backbone.layers import Attention, kernel_for
from posenc.encodings.t5 import T5

BOTH_WAYS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])


def stack_of(**changes: Any) -> Stack:
    given = {"layers": 2, "heads": 2, "width": 16, "head_width": 8, "max_length": 64, "causal": True} | changes
    return Stack(**given)


def context_of(encoding: Encoding, keys: int, queries: int | None = None, **more: Any) -> Context:
    context = Context(
        stack=encoding.stack,
        queries=keys if queries is None else queries,
        keys=keys,
        device=torch.device("cpu"),
        **more,
    )
    return prepare(encoding, context)


def started(encoding: Encoding, seed: int = 0) -> Encoding:
    """Drawn and then made larger, so that its effect is far above any tolerance."""
    encoding.initialise(torch.Generator().manual_seed(seed))
    return encoding.double()


def made(text: str, seed: int = 0, **changes: Any) -> Encoding:
    return started(registry.create(text, stack_of(**changes)), seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Shifted(Encoding):
    """Sets all positions further along by a constant."""

    relative = True
    linear_form = "as_is"

    def __init__(self, stack: Stack, *, by: int = 0) -> None:
        super().__init__(stack)
        self.by = by

    def initialise(self, generator: torch.Generator) -> None:
        pass

    def positions(self, context: Context) -> Tensor:
        return super().positions(context) + self.by


# One attention layer with an encoding, and the same by hand


def layer_of(encoding: Encoding, attention: str = "softmax", seed: int = 5, **changes: Any) -> Attention:
    stack = encoding.stack
    config = BackboneConfig(
        **(
            {"layers": stack.layers, "width": stack.width, "heads": stack.heads, "feedforward": 8}
            | {"attention": attention, "features": 10, "chunk": 3}
            | changes
        )
    )
    torch.manual_seed(seed)
    module = Attention(config, kernel_for(config, encoding, causal=stack.causal, backend="auto")).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.kernel.redraw(seed)
    return module


def projected(module: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B,H,L,K), head h from channels h K to (h + 1) K."""
    width = x.shape[-1] // module.heads
    out = []
    for linear in (module.query, module.key, module.value):
        y = x @ linear.weight.T + linear.bias
        out.append(torch.stack([y[..., h * width : (h + 1) * width] for h in range(module.heads)], dim=1))
    return out[0], out[1], out[2]


def joined(module: Attention, heads: Tensor) -> Tensor:
    return torch.cat(list(heads.unbind(1)), dim=-1) @ module.out.weight.T + module.out.bias


def attend(scores: Tensor, values: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Softmax over the keys by the plain formula, and its weighted mean of values."""
    length = scores.shape[-1]
    seen = torch.tensor([[float(j <= i or not causal) for j in range(length)] for i in range(length)])
    weights = scores.exp() * seen.double()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhij,bhjk->bhik", weights, values), weights


def rotation(position: float, width: int, base: float = 10000.0) -> Tensor:
    """R of equations (15) and (16) of RoFormer: blocks [[cos, -sin], [sin, cos]] of m theta_i down the diagonal."""
    matrix = torch.zeros(width, width, dtype=torch.float64)
    for i in range(1, width // 2 + 1):
        angle = position * base ** (-2 * (i - 1) / width)
        a, b = 2 * i - 2, 2 * i - 1  # the paper's channels 2i - 1 and 2i
        matrix[a, a], matrix[a, b] = math.cos(angle), -math.sin(angle)
        matrix[b, a], matrix[b, b] = math.sin(angle), math.cos(angle)
    return matrix


def rotated(x: Tensor, positions: list[int], base: float = 10000.0) -> Tensor:
    turns = torch.stack([rotation(p, x.shape[-1], base) for p in positions])
    return torch.einsum("lij,bhlj->bhli", turns, x)


def shaw_vectors(table: Tensor, length: int, clip: int) -> Tensor:
    """a_ij = w[clip(j - i)], the whole L x L x K of it."""
    rows = [[table[clip + max(-clip, min(clip, j - i))] for j in range(length)] for i in range(length)]
    return torch.stack([torch.stack(row) for row in rows])


def t5_bucket(distance: int, buckets: int, max_distance: int, both_ways: bool) -> int:
    """Exact: past the `exact` single ones, bucket >= exact + j iff (n / exact)^wide >= (max / exact)^j."""
    first = 0
    if both_ways:
        buckets //= 2
        first = buckets if distance > 0 else 0
        n = abs(distance)
    else:
        n = max(-distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    wide = buckets - exact
    reached = 0
    while reached < wide - 1 and Fraction(n, exact) ** wide >= Fraction(max_distance, exact) ** (reached + 1):
        reached += 1
    return first + exact + reached


def t5_bias(encoding: T5, length: int) -> Tensor:
    both_ways = not encoding.stack.causal
    rows = [
        [encoding.table[t5_bucket(j - i, encoding.buckets, encoding.max_distance, both_ways)] for j in range(length)]
        for i in range(length)
    ]
    return torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("bhik,bhjk->bhij", x, y)
