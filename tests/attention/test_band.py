"""Linear attention with a bias by distance, constant beyond some distance, against its quadratic form in float64."""

from __future__ import annotations

from typing import Any

import linear_twins
import pytest
import torch
from goldens import context_of, made
from linear_twins import HEADS, WIDTH, assert_no_later_token_is_read, favor, log_weights
from torch import Tensor

from posenc.attention.linear.band import band_attention

pytestmark = pytest.mark.usefixtures("one_thread")

FAR = 19
ERRORS = {(torch.float64, 2): 1e-12, (torch.float64, 8): 1e-12, (torch.float64, 30): 1e-10,
          (torch.float32, 2): 1e-5, (torch.float32, 8): 3e-5, (torch.float32, 30): 5e-4}  # fmt: skip


def drawn(length: int, norm: float) -> dict[str, Tensor]:
    """With biases of each distance from -FAR to FAR."""
    x, generator = linear_twins.drawn(length, norm)
    return {**x, "biases": 2 * torch.randn(HEADS, 2 * FAR + 1, generator=generator, dtype=torch.float64)}


def attended(x: dict[str, Tensor], causal: bool, dtype: torch.dtype = torch.float64, **more: Any) -> Tensor:
    given = (x[name].to(dtype) for name in ("queries", "keys", "values", "features", "biases"))
    return band_attention(*given, scale=WIDTH**-0.5, rows=linear_twins.rows(causal, **more))


def twin(x: dict[str, Tensor], causal: bool) -> Tensor:
    logs = log_weights(x)
    index = torch.arange(logs.shape[-1])
    logs = logs + x["biases"][:, (index - index[:, None]).clamp(-FAR, FAR) + FAR]
    if causal:
        logs = logs.masked_fill(index > index[:, None], -torch.inf)
    return logs.softmax(-1) @ x["values"]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dtype", "norm"), ERRORS)
def test_it_is_its_quadratic_form(causal: bool, dtype: torch.dtype, norm: int) -> None:
    for length, chunk in ((1, 8), (7, 8), (90, 8), (101, 16), (60, 64)):
        x = drawn(length, norm)
        found, wanted = attended(x, causal, dtype, chunk=chunk), twin(x, causal)
        assert (found.double() - wanted).abs().max() / wanted.abs().max() < ERRORS[dtype, norm], (length, chunk)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_a_later_token_moves_no_bit_of_an_earlier_output(dtype: torch.dtype, length: int) -> None:
    assert_no_later_token_is_read(lambda x: attended(x, True, dtype), drawn(length, 8.0))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_numerator_and_normaliser(causal: bool, side: str) -> None:
    x = drawn(70, 3.0)
    mask = torch.ones(2, 70, dtype=torch.bool)
    mask[:, slice(0, 11) if side == "left" else slice(59, 70)] = False
    found = attended(x, causal, mask=mask, chunk=8)[:, :, mask[0]]
    alone = {name: value if name in ("features", "biases") else value[:, :, mask[0]] for name, value in x.items()}
    torch.testing.assert_close(found, attended(alone, causal, chunk=8), atol=1e-12, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_are_those_of_the_quadratic_form(causal: bool) -> None:
    names, found, wanted = ("queries", "keys", "values", "biases"), [], []
    for form, into in ((lambda x: attended(x, causal, chunk=8), found), (lambda x: twin(x, causal), wanted)):
        x = drawn(60, 2.0)
        for name in names:
            x[name].requires_grad_()
        into += torch.autograd.grad(form(x).sin().sum(), [x[name] for name in names])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_without_biases_it_is_plain_linear_attention() -> None:
    x = drawn(50, 4.0)
    x["biases"] = torch.zeros(HEADS, 2 * FAR + 1, dtype=torch.float64)
    for causal in (True, False):
        plain = favor(x["queries"], x["keys"], x["values"], x["features"], scale=WIDTH**-0.5, causal=causal)
        torch.testing.assert_close(attended(x, causal, chunk=8), plain, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("text", "causal", "far"),
    [("t5", True, 113), ("t5", False, 91), ("t5(buckets=16, max_distance=64)", True, None),
     ("t5(buckets=8, max_distance=200)", False, None), ("t5(buckets=64, max_distance=33)", True, None)],
)  # fmt: skip
def test_t5_is_constant_from_there_on(text: str, causal: bool, far: int | None) -> None:
    encoding = made(text, stack={"causal": causal})
    far = far or encoding.constant_from()
    assert encoding.constant_from() == far
    context = context_of(encoding, 8)
    for sign in (-1, 1):
        line = encoding.distance_bias(sign * torch.arange(far - 1, 4000), context)
        assert (line[:, 1:] == line[:, 1:2]).all()
        assert (sign > 0 and causal) or (line[:, 0] != line[:, 1]).any()
