"""What the authors' own code answers (tests/golden), and an encoding to hold against it.

The numbers were made by their code from parameters away from their starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.stack import Stack

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: np.asarray(file[key]) for key in file.files}
        return {key: torch.from_numpy(array) for key, array in arrays.items() if array.dtype.kind != "U"}


def stack_of(heads: int = 2, head_width: int = 8, **changes: Any) -> Stack:
    given = {"layers": 2, "width": heads * head_width, "max_length": 64, "causal": True} | changes
    return Stack(heads=heads, head_width=head_width, **given)


def parameters(text: str, **stack: Any) -> int:
    """How many numbers an encoding learns, of 2 layers, 2 heads of 8 channels and rows of 64 tokens, or as said."""
    return sum(parameter.numel() for parameter in registry.create(text, stack_of(**stack)).parameters())


def made(
    text: str, heads: int = 2, head_width: int = 8, stack: dict[str, Any] | None = None, **values: Tensor
) -> Encoding:
    """An encoding of two layers in float64. `values`: its parameters in the second; `stack`: what differs there."""
    encoding = registry.create(text, stack_of(heads, head_width, **(stack or {}))).double()
    encoding.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, value in values.items():
            parameter = encoding.get_parameter(name)
            own = parameter[1] if parameter.shape != value.shape else parameter
            own.copy_(value.reshape(own.shape))
    return encoding


def context_of(encoding: Encoding, length: int, **more: Any) -> Context:
    device = torch.device("cpu")
    return prepare(encoding, Context(stack=encoding.stack, queries=length, keys=length, device=device, layer=1, **more))


def by_distance(encoding: Encoding, length: int) -> Tensor:
    """Its bias of each pair (H,L,L)."""
    index = torch.arange(length)
    distances = index - index[:, None]
    bias = encoding.distance_bias(distances.flatten(), context_of(encoding, length))
    return bias.unflatten(1, distances.shape)


def seen(x: Tensor) -> Tensor:
    """The pairs that a causal model sees, in a row."""
    return x[..., torch.ones(x.shape[-2:], dtype=torch.bool).tril()].double()


def close(one: Tensor, other: Tensor, atol: float) -> None:
    torch.testing.assert_close(seen(one), seen(other), atol=atol, rtol=0)


def halves(x: Tensor) -> Tensor:
    """Channels that stand in two halves (first of all pairs, then the second of all), as pairs."""
    return torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)


def matrices(encoding: Encoding, coordinates: Tensor, cls: Tensor | None = None, hook: str = "rotate_query") -> Tensor:
    """By what each head is turned (H,L,K,K), read off a hook: what it makes of each channel by itself."""
    width = encoding.stack.head_width
    context = context_of(encoding, len(coordinates), coordinates=coordinates[None], cls=cls)
    x = torch.eye(width, dtype=torch.float64)[:, None, None].expand(-1, encoding.stack.heads, len(coordinates), -1)
    turned: Tensor = getattr(encoding, hook)(x, context.query_positions, context)
    return turned.permute(1, 2, 3, 0)


def exponential(matrix: Tensor) -> Tensor:
    """Its power series, of a matrix halved until it is small."""
    total = term = torch.eye(len(matrix), dtype=torch.float64)
    for n in range(1, 30):
        term = term @ (matrix / 64) / n
        total = total + term
    return torch.linalg.matrix_power(total, 64)
