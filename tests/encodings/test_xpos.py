"""xPos, held against torchscale's numbers, and at lengths where its scales are large."""

from __future__ import annotations

import cmath
from functools import partial

import pytest
import torch
from goldens import close, context_of, golden, made
from linear_twins import assert_blind_to_padding, assert_causal_to_the_bit
from torch import Tensor

from posenc.attention.linear.kernel import FORMS
from posenc.common.errors import ConfigError, NotPossibleError
from posenc.encodings.xpos import XPosOutside

pytestmark = pytest.mark.usefixtures("one_thread")


def test_xpos() -> None:
    theirs = golden("xpos")
    encoding = made("xpos", 2)
    context = context_of(encoding, 12)
    queries = encoding.rotate_query(theirs["queries"].double(), context.query_positions, context)
    keys = encoding.rotate_key(theirs["keys"].double(), context.key_positions, context)
    close(queries @ keys.transpose(-1, -2), theirs["dots"], 1e-6)


def test_its_scores_are_the_formula_at_a_great_distance_in_float32() -> None:
    encoding = made("xpos(scale_base=128.0)", 1).float()
    length = 8192  # as far as float32 holds: 64 times the scale's base
    context = context_of(encoding, length)
    q, k = torch.randn(2, 1, 1, length, 8).unbind()
    queries = encoding.rotate_query(q, context.query_positions, context)
    keys = encoding.rotate_key(k, context.key_positions, context)
    for i, j in ((8191, 8191), (8191, 8100), (8000, 7000)):
        wanted = 0.0
        for c in range(4):
            one, other = (complex(*x[0, 0, at, 2 * c : 2 * c + 2].tolist()) for x, at in ((q, i), (k, j)))
            zeta, theta = (2 * c / 8 + 0.4) / 1.4, 10000 ** (-2 * c / 8)
            wanted += (one * other.conjugate() * cmath.exp(1j * (i - j) * theta)).real * zeta ** ((i - j) / 128)
        assert (queries[0, 0, i] @ keys[0, 0, j]).item() == pytest.approx(wanted, abs=1e-5)


def test_beyond_what_float32_holds_it_has_no_answer() -> None:
    encoding = made("xpos", 2)
    assert encoding.why_not_at(32_768) is None
    with pytest.raises(NotPossibleError, match="beyond 32,768 tokens"):
        context_of(encoding, 32_769)
    with pytest.raises(ConfigError, match="scale_base=0"):
        made("xpos(scale_base=0.0)", 2)


def outside() -> XPosOutside:
    encoding = made("xpos_outside(scale_base=32.0)", 3)
    assert isinstance(encoding, XPosOutside)
    return encoding


def attended(encoding: XPosOutside, x: Tensor, mask: Tensor | None = None) -> Tensor:
    kernel = FORMS["outside"](causal=True, width=8, features=32, chunk=8)
    kernel.redraw(5)
    return kernel.attend(*x, encoding, context_of(encoding, x.shape[3], mask=mask))


def twin(encoding: XPosOutside, x: Tensor) -> Tensor:
    """By definition, of complex features; the normaliser's are plain."""
    kernel = FORMS["outside"](causal=True, width=8, features=32, chunk=8)
    kernel.redraw(5)
    scaled = x[:2] * 8**-0.25
    features = (scaled @ kernel.projection.T - scaled.square().sum(-1, keepdim=True) / 2).exp()
    index, pairs = torch.arange(x.shape[3]), torch.arange(16, dtype=torch.float64)
    distances = (index[:, None] - index)[..., None]
    zeta, theta = (pairs / 16 + 0.4) / 1.4, 10000 ** (-pairs / 16)
    turn = torch.polar(zeta ** (distances / 32), distances * theta)  # (L,S,pairs)
    query, key = torch.view_as_complex(features.unflatten(-1, (-1, 2)).contiguous())
    above = torch.einsum("bhic,bhjc,ijc->bhij", query, key.conj(), turn).real.tril()
    below = (features[0] @ features[1].transpose(-1, -2)).tril().sum(-1, keepdim=True)
    return above @ x[2] / below


def drawn(length: int) -> Tensor:
    x = torch.randn(3, 2, 3, length, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:2] *= 2 / x[:2].norm(dim=-1, keepdim=True)
    return x


@pytest.mark.parametrize("length", [1, 7, 8, 30])
def test_outside_is_equation_19_with_a_complex_decay(length: int) -> None:
    torch.testing.assert_close(attended(outside(), drawn(length)), twin(outside(), drawn(length)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_outside_a_later_token_moves_no_bit_of_an_earlier_output(length: int) -> None:
    assert_causal_to_the_bit(partial(attended, outside()), drawn(length).float())


@pytest.mark.parametrize("side", ["left", "right"])
def test_outside_padding_leaves_no_trace(side: str) -> None:
    assert_blind_to_padding(partial(attended, outside()), drawn(20), side)


def test_outside_gradients_are_those_of_the_definition() -> None:
    found = []
    for form in (attended, twin):
        x = drawn(21).requires_grad_()
        found.append(torch.autograd.grad(form(outside(), x).sin().sum(), x)[0])
    torch.testing.assert_close(*found, atol=1e-11, rtol=0)


def test_outside_it_needs_pairs_of_features_and_no_end_of_length() -> None:
    encoding = made("xpos_outside", 2)
    assert "13 are odd" in (encoding.why_not_features(13) or "")
    assert encoding.why_not_at(10**6) is None
    with pytest.raises(ConfigError, match="scale_base=8"):
        made("xpos_outside(scale_base=8.0)", 2)
