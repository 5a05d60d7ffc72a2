"""Whole models with copied weights: ours drawn anew in float64, what is copied into theirs, and what is held alike.

Their libraries make some numbers in float32, whatever a model's precision: `in_double` lets them be float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer

WIDTH, HEADS, LAYERS, INNER, VOCABULARY, LENGTH, ROOM = 24, 3, 3, 40, 31, 13, 20
"""ROOM is the largest length trained on."""
ROOT = math.sqrt(WIDTH)
STATES, GRADIENTS = 1e-12, 1e-11

Pair = tuple[Tensor, Tensor | list[Tensor], Callable[[Tensor], Tensor]]


def ours(name: str, seed: int, **changes: Any) -> Transformer:
    """A model in float64 whose every parameter is drawn anew, norms and biases too."""
    shape = {
        "layers": LAYERS,
        "width": WIDTH,
        "heads": HEADS,
        "feedforward": INNER,
        "vocabulary": VOCABULARY,
        **changes,
    }
    model = Transformer(BackboneConfig(**shape), name, ROOM).initialise(seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.dim() > 1 else 0.2
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * spread)
    return model


def tokens_of(seed: int, length: int = LENGTH) -> Tensor:
    """Never 0: their embedding of padding has no gradient."""
    return torch.randint(1, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))


def mask_of(padded: bool) -> Tensor:
    """Which tokens are real (2,LENGTH); where they are padded, the second row is shorter."""
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    if padded:
        mask[1, 9:] = False
    return mask


def alike(mine: Callable[[], Tensor], theirs: Callable[[], Tensor], pairs: list[Pair]) -> None:
    """States, and gradients of a random functional of them in the weights named.

    A pair is a weight of ours, theirs (a list where each of their layers holds a part), and what lays theirs as ours.
    """
    one, other = mine(), theirs()
    assert one.shape == other.shape
    largest = float(one.detach().abs().max())
    assert largest > 0.1
    assert (one - other).detach().abs().max() <= STATES * max(1.0, largest)
    direction = torch.randn(one.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for states in (one, other):
        (states * direction).sum().backward()
    for parameter, weights, laid in pairs:
        assert parameter.grad is not None
        wanted = laid(torch.stack([gradient(x) for x in weights]) if isinstance(weights, list) else gradient(weights))
        assert parameter.grad.shape == wanted.shape
        scale = float(parameter.grad.abs().max())
        assert scale > 1e-3
        assert (parameter.grad - wanted).abs().max() <= GRADIENTS * max(1.0, scale)


def gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None
    return weight.grad


def same(x: Tensor) -> Tensor:
    return x


def transposed(x: Tensor) -> Tensor:
    return x.T


def rooted(x: Tensor) -> Tensor:
    """Of what theirs holds as ours times the root of the width."""
    return x * ROOT


def copy(target: Tensor, value: Tensor) -> None:
    assert target.shape == value.shape
    with torch.no_grad():
        target.copy_(value)


def copy_linear(target: nn.Module, source: nn.Linear, order: Tensor | None = None) -> None:
    """`order`: where each of our output channels comes from, as theirs has them."""
    weight, bias = source.weight, source.bias
    copy(target.weight, weight if order is None else weight[order])
    copy(target.bias, bias if order is None else bias[order])


def copy_norm(target: nn.Module, source: nn.LayerNorm) -> None:
    copy(target.weight, source.weight)
    copy(target.bias, source.bias)


def no_norm(module: nn.Module, name: str) -> None:
    setattr(module, name, nn.Identity())


def no_biases(mine: Transformer, *names: str) -> None:
    """Set to 0 ours of linear layers, of those so named where names are given: theirs has none there."""
    with torch.no_grad():
        for module_name, module in mine.named_modules():
            if isinstance(module, nn.Linear) and (not names or module_name.rsplit(".", 1)[-1] in names):
                module.bias.zero_()


def halves(rotated: int, width: int) -> Tensor:
    """For each channel of a head in the layout of two halves, our interleaved one; what is not turned stays."""
    order = [*range(0, rotated, 2), *range(1, rotated, 2), *range(rotated, width)]
    return torch.tensor(order)


def heads_of(order: Tensor, heads: int) -> Tensor:
    """The same for all heads one after another."""
    return torch.cat([order + head * len(order) for head in range(heads)])


class _Doubled:
    """torch, but that who asks for float32 gets float64."""

    float = float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def in_double(*files: ModuleType) -> Iterator[None]:
    """While their code runs: what these files of theirs make in float32 they make in float64."""
    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        for file in files:
            patch.setattr(file, "torch", _Doubled())
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
