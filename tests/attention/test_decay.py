"""Linear attention with a decay against its quadratic form in float64; causal to the last bit; blind to padding."""

from __future__ import annotations

from typing import Any

import linear_twins
import pytest
import torch
from linear_twins import HEADS, WIDTH, assert_no_later_token_is_read, favor, log_weights
from torch import Tensor

pytestmark = pytest.mark.usefixtures("one_thread")

ERRORS = {(torch.float64, 2): 1e-12, (torch.float64, 8): 1e-12, (torch.float64, 30): 1e-9,
          (torch.float32, 2): 1e-5, (torch.float32, 8): 3e-5, (torch.float32, 30): 5e-3}  # fmt: skip


def drawn(length: int, norm: float) -> dict[str, Tensor]:
    """With logs of decays of each kind: by the data, and by head."""
    x, generator = linear_twins.drawn(length, norm)
    gates = -5 * torch.rand(2, HEADS, length, generator=generator, dtype=torch.float64) ** 4
    slopes = -torch.tensor([0.0, 2.0**-4, 0.5], dtype=torch.float64)[None, :, None].expand(1, -1, length)
    return {**x, "gates": gates, "slopes": slopes}


def attended(x: dict[str, Tensor], kind: str, causal: bool, dtype: torch.dtype = torch.float64, **more: Any) -> Tensor:
    given = (x[name].to(dtype) for name in ("queries", "keys", "values", "features"))
    return favor(*given, scale=WIDTH**-0.5, causal=causal, logs=x[kind].to(dtype), **more)


def twin(x: dict[str, Tensor], kind: str, causal: bool, mask: Tensor | None = None) -> Tensor:
    """All pairs: f(q_i).f(k_j) exp(decays between), by logs and one softmax-like division."""
    logs = log_weights(x)
    length = logs.shape[-1]
    decays = x[kind].expand(2, -1, -1)
    between = torch.zeros_like(logs)
    for i in range(length):
        for j in range(length):
            low, high = min(i, j), max(i, j)
            between[:, :, i, j] = decays[..., low + 1 : high + 1].sum(-1)
    logs = logs + between
    if causal:
        logs = logs.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        logs = logs.masked_fill(~mask[:, None, None], -torch.inf)
    return logs.softmax(-1) @ x["values"]


@pytest.mark.parametrize(("kind", "causal"), [("gates", True), ("slopes", True), ("slopes", False)])
@pytest.mark.parametrize(("dtype", "norm"), ERRORS)
def test_it_is_its_quadratic_form(kind: str, causal: bool, dtype: torch.dtype, norm: int) -> None:
    for length, chunk in ((1, 8), (7, 8), (40, 8), (33, 16)):
        x = drawn(length, norm)
        found, wanted = attended(x, kind, causal, dtype, chunk=chunk), twin(x, kind, causal)
        assert (found.double() - wanted).abs().max() / wanted.abs().max() < ERRORS[dtype, norm], (length, chunk)


@pytest.mark.parametrize("kind", ["gates", "slopes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_a_later_token_moves_no_bit_of_an_earlier_output(kind: str, dtype: torch.dtype, length: int) -> None:
    assert_no_later_token_is_read(lambda x: attended(x, kind, True, dtype), drawn(length, 8.0), gates=-1.0)


@pytest.mark.parametrize(("kind", "causal"), [("gates", True), ("slopes", True), ("slopes", False)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_numerator_and_normaliser(kind: str, causal: bool, side: str) -> None:
    x = drawn(30, 3.0)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[:, slice(0, 11) if side == "left" else slice(19, 30)] = False
    found = attended(x, kind, causal, mask=mask, chunk=8)[:, :, mask[0]]
    alone = {name: value if name == "features" else value[:, :, mask[0]] for name, value in x.items()}
    torch.testing.assert_close(found, attended(alone, kind, causal, chunk=8), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("kind", "causal"), [("gates", True), ("slopes", False)])
def test_gradients_are_those_of_the_quadratic_form(kind: str, causal: bool) -> None:
    names = ("queries", "keys", "values", *([kind] if kind == "gates" else []))
    found, wanted = [], []
    for form, into in (
        (lambda x: attended(x, kind, causal, chunk=8), found),
        (lambda x: twin(x, kind, causal), wanted),
    ):
        x = drawn(21, 2.0)
        for name in names:
            x[name].requires_grad_()
        into += torch.autograd.grad(form(x).sin().sum(), [x[name] for name in names])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_without_a_decay_it_is_plain_linear_attention() -> None:
    x = drawn(50, 4.0)
    x["none"] = torch.zeros(1, HEADS, 50, dtype=torch.float64)
    for causal in (True, False):
        plain = favor(x["queries"], x["keys"], x["values"], x["features"], scale=WIDTH**-0.5, causal=causal)
        torch.testing.assert_close(attended(x, "none", causal, chunk=8), plain, atol=1e-12, rtol=0)
