"""cosFormer, held against what the authors' own code answers, and against all pairs multiplied out."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from goldens import context_of, golden, made
from linear_twins import assert_blind_to_padding, assert_causal_to_the_bit
from torch import Tensor

from posenc.api.encoding import Encoding
from posenc.attention.linear.kernel import FORMS
from posenc.common.errors import ConfigError, NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")


def attended(encoding: Encoding, x: Tensor, mask: Tensor | None = None) -> Tensor:
    kernel = FORMS["relu"](causal=encoding.stack.causal, width=x.shape[-1], features=32, chunk=8)
    return kernel.attend(*x, encoding, context_of(encoding, x.shape[3], mask=mask))


def twin(encoding: Encoding, x: Tensor, longest: int) -> Tensor:
    index = torch.arange(x.shape[3])
    weights = x[0].relu() @ x[1].relu().transpose(-1, -2)
    weights = weights * (math.pi * (index[:, None] - index).double() / 2 / longest).cos()
    weights = weights.tril() if encoding.stack.causal else weights
    return weights @ x[2] / weights.sum(-1, keepdim=True).clamp_min(1e-6)


def drawn(length: int, norm: float = 3.0) -> Tensor:
    x = torch.randn(3, 2, 2, length, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:2] *= norm / x[:2].norm(dim=-1, keepdim=True)
    return x


@pytest.mark.parametrize("causal", [True, False])
def test_it_is_the_authors_own(causal: bool) -> None:
    theirs = golden("cosformer_causal" if causal else "cosformer")
    hidden = theirs["hidden_LBD"].transpose(0, 1)
    parts = [hidden @ theirs[f"{name}_weight"].T + theirs[f"{name}_bias"] for name in ("query", "key", "value")]
    x = torch.stack([part.unflatten(-1, (2, 8)).transpose(1, 2) for part in parts])
    encoding = made("cosformer(length=11)", 2, 8, stack={"causal": causal})
    found = attended(encoding, x).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, theirs["output_LBD"].transpose(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 7, 8, 30, 64])
def test_it_is_its_quadratic_form(causal: bool, length: int) -> None:
    encoding, x = made("cosformer", 2, 8, stack={"causal": causal}), drawn(length)
    torch.testing.assert_close(attended(encoding, x), twin(encoding, x, 64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_without_a_positive_channel_in_common_takes_nothing(causal: bool) -> None:
    encoding, x = made("cosformer", 2, 8, stack={"causal": causal}), drawn(9)
    x[0, ..., 0, :] = -x[1, ..., 0, :].abs()  # nothing at all of the first query is left by the rectifier
    x[0, ..., 1, :], x[1, ..., 1, :] = x[1, ..., 0, :].sign(), -x[1, ..., 0, :].sign()  # nothing of itself alone
    kernel = FORMS["relu"](causal=causal, width=8, features=32, chunk=8)
    context = context_of(encoding, 9)
    found = kernel.attend(*x, encoding, context)
    torch.testing.assert_close(found, twin(encoding, x, 64), atol=1e-12, rtol=0)
    torch.testing.assert_close(kernel.plain(*x, encoding, context), found, atol=1e-12, rtol=0)
    shares = kernel.shares(*x[:2], encoding, context)
    assert not found[..., 0, :].any() and not shares[..., 0, :].any()
    torch.testing.assert_close(shares[..., 1:, :].sum(-1), torch.ones(2, 2, 8).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", [30, 120])
def test_long_vectors_lose_nothing_in_float32(norm: float) -> None:
    encoding, x = made("cosformer", 2, 8), drawn(60, norm)
    found = attended(encoding, x.float())
    torch.testing.assert_close(found.double(), attended(encoding, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_a_later_token_moves_no_bit_of_an_earlier_output(length: int) -> None:
    encoding = made("cosformer(length=1000)", 2, 8)
    assert_causal_to_the_bit(partial(attended, encoding), drawn(length).float(), larger=1000)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_numerator_and_sum(causal: bool, side: str) -> None:
    encoding = made("cosformer", 2, 8, stack={"causal": causal})
    assert_blind_to_padding(partial(attended, encoding), drawn(20), side)


def test_gradients_are_those_of_the_quadratic_form() -> None:
    encoding = made("cosformer", 2, 8)
    found = []
    for form in (attended, lambda encoding, x: twin(encoding, x, 64)):
        x = drawn(21).requires_grad_()
        found.append(torch.autograd.grad(form(encoding, x).sin().sum(), x)[0])
    torch.testing.assert_close(*found, atol=1e-11, rtol=0)


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigError, match="length=-1"):
        made("cosformer(length=-1)")
    encoding = made("cosformer")
    assert encoding.max_length == 64
    with pytest.raises(NotPossibleError, match="64 positions"):
        context_of(encoding, 65)
    assert "has no softmax" in (encoding.why_not("softmax") or "")
