"""PermuteFormer: its permutations by themselves, and its linear form against all pairs multiplied out."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from goldens import context_of, made
from linear_twins import assert_blind_to_padding, assert_causal_to_the_bit
from torch import Tensor

from posenc.attention.linear.kernel import FORMS
from posenc.encodings.permuteformer import PermuteFormer

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS, WIDTH, FEATURES = 3, 8, 32


def encoding_of(causal: bool = True) -> PermuteFormer:
    encoding = made("permuteformer", HEADS, WIDTH, stack={"causal": causal})
    assert isinstance(encoding, PermuteFormer)
    return encoding


def drawn(length: int, norm: float = 3.0) -> Tensor:
    x = torch.randn(3, 2, HEADS, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:2] *= norm / x[:2].norm(dim=-1, keepdim=True)
    return x


def attended(encoding: PermuteFormer, x: Tensor, mask: Tensor | None = None) -> Tensor:
    kernel = FORMS["moved"](causal=encoding.stack.causal, width=WIDTH, features=FEATURES, chunk=8)
    kernel.redraw(5)
    return kernel.attend(*x, encoding, context_of(encoding, x.shape[3], mask=mask))


def twin(encoding: PermuteFormer, x: Tensor) -> Tensor:
    """By definition: features permuted step after step, multiplied pair by pair, times the ratio to the distance."""
    kernel = FORMS["moved"](causal=True, width=WIDTH, features=FEATURES, chunk=8)
    kernel.redraw(5)
    scaled = x[:2] * WIDTH**-0.25
    logs = scaled @ kernel.projection.T - scaled.square().sum(-1, keepdim=True) / 2
    steps = encoding.permutations(FEATURES)
    moved = logs
    for place in range(1, x.shape[3]):  # once more for each position that is left behind
        again = steps.expand(2, 2, -1, -1)[..., None, :].expand_as(moved[..., place:, :])
        moved = torch.cat((moved[..., :place, :], moved[..., place:, :].gather(-1, again)), dim=-2)
    weights = torch.logsumexp(moved[0][..., :, None, :] + moved[1][..., None, :, :], dim=-1)
    index = torch.arange(x.shape[3])
    ratios = torch.sigmoid(2 + 3 * torch.arange(HEADS, dtype=torch.float64) / HEADS)
    weights = weights + ratios.log()[:, None, None] * (index[:, None] - index).abs()
    if encoding.stack.causal:
        weights = weights.masked_fill(torch.ones(weights.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return weights.softmax(-1) @ x[2]


def test_a_step_more_is_the_permutation_once_more() -> None:
    encoding = encoding_of()
    x = torch.randn(1, HEADS, 1, FEATURES)
    step = encoding.permutations(FEATURES)
    for place in range(0, 400, 7):
        at, after = (
            encoding.rotate_query(x, torch.tensor([[[p]]]), context_of(encoding, 1)) for p in (place, place + 1)
        )
        assert torch.equal(after, at.gather(-1, step[None, :, None]))
    assert torch.equal(encoding.rotate_query(x, torch.tensor([[[0]]]), context_of(encoding, 1)), x)
    assert torch.equal(step.sort(-1).values, torch.arange(FEATURES).expand(HEADS, -1))


def test_the_permutations_are_the_same_for_all() -> None:
    """Drawn from a fixed seed, as the authors' code does it, so a saved model needs none of them."""
    torch.manual_seed(1)
    first = encoding_of().permutations(FEATURES)
    torch.manual_seed(2)
    assert torch.equal(first, encoding_of().permutations(FEATURES))
    assert len({tuple(row) for row in first.tolist()}) == HEADS


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 8, 30])
def test_it_is_its_quadratic_form(causal: bool, length: int) -> None:
    encoding, x = encoding_of(causal), drawn(length)
    torch.testing.assert_close(attended(encoding, x), twin(encoding, x), atol=1e-11, rtol=0)


def test_at_a_thousand_tokens_nothing_overflows_in_float32() -> None:
    encoding, x = encoding_of(), drawn(1000)
    found = attended(encoding, x.float())
    torch.testing.assert_close(found.double(), attended(encoding, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_a_later_token_moves_no_bit_of_an_earlier_output(length: int) -> None:
    assert_causal_to_the_bit(partial(attended, encoding_of()), drawn(length).float())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_out_of_numerator_and_normaliser(causal: bool, side: str) -> None:
    assert_blind_to_padding(partial(attended, encoding_of(causal)), drawn(20), side)


def test_gradients_are_those_of_the_quadratic_form() -> None:
    encoding, found = encoding_of(), []
    for form in (attended, twin):
        x = drawn(21).requires_grad_()
        found.append(torch.autograd.grad(form(encoding, x).sin().sum(), x)[0])
    torch.testing.assert_close(*found, atol=1e-10, rtol=0)
