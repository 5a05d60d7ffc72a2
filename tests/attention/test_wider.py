"""Linear attention of wider vectors: each encoding's position term is what its softmax form adds; causal; padded."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from goldens import by_distance, context_of, made
from linear_twins import assert_blind_to_padding, assert_causal_to_the_bit
from torch import Tensor

from posenc.api.encoding import Encoding
from posenc.attention.linear.kernel import FORMS

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS, WIDTH, FEATURES = 2, 8, 32


def encoding_of(text: str, causal: bool) -> Encoding:
    encoding = made(text, HEADS, WIDTH, stack={"causal": causal})
    generator = torch.Generator().manual_seed(3)
    for parameter in encoding.parameters():  # away from where it starts
        parameter.data = -torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    return encoding


def drawn(length: int) -> Tensor:
    return torch.randn(3, 2, HEADS, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def attended(encoding: Encoding, x: Tensor, mask: Tensor | None = None) -> Tensor:
    width = encoding.linear_width
    kernel = FORMS["wider"](causal=encoding.stack.causal, width=width, features=FEATURES, chunk=8)
    kernel.redraw(5)
    return kernel.attend(*x, encoding, context_of(encoding, x.shape[3], mask=mask))


def widened(encoding: Encoding, x: Tensor) -> tuple[Tensor, Tensor]:
    """What features are drawn of, scaled: queries and keys (B,H,L,any)."""
    context = context_of(encoding, x.shape[3])
    queries = encoding.rotate_query(x[0], context.query_positions, context) * WIDTH**-0.25
    keys = encoding.rotate_key(x[1], context.query_positions, context) * WIDTH**-0.25
    if encoding.overrides("position_vectors"):
        beside = [each.expand(2, HEADS, -1, -1) for each in encoding.position_vectors(context)]
        queries, keys = torch.cat((queries, beside[0]), dim=-1), torch.cat((keys, beside[1]), dim=-1)
    return queries, keys


def twin(encoding: Encoding, x: Tensor) -> Tensor:
    """All pairs, f(q_i).f(k_j) by logs, over their sums."""
    kernel = FORMS["wider"](causal=True, width=encoding.linear_width, features=FEATURES, chunk=8)
    kernel.redraw(5)
    f, g = (y @ kernel.projection.T - y.square().sum(-1, keepdim=True) / 2 for y in widened(encoding, x))
    logs = torch.logsumexp(f[:, :, :, None] + g[:, :, None], dim=-1)
    if encoding.stack.causal:
        logs = logs.masked_fill(torch.ones(logs.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    return logs.softmax(-1) @ x[2]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("text", ["goat", "goat(rank=3)", "pope"])
class TestBoth:
    def test_vectors_multiplied_are_the_scores_of_softmax_attention(self, text: str, causal: bool) -> None:
        encoding, x = encoding_of(text, causal), drawn(13)
        queries, keys = widened(encoding, x)
        context = context_of(encoding, 13)
        at = context.query_positions
        scores = encoding.rotate_query(x[0], at, context) @ encoding.rotate_key(x[1], at, context).transpose(-1, -2)
        scores = scores * WIDTH**-0.5
        if encoding.overrides("distance_bias"):
            scores = scores + by_distance(encoding, 13)
        torch.testing.assert_close(queries @ keys.transpose(-1, -2), scores, atol=1e-12, rtol=0)

    @pytest.mark.parametrize("length", [1, 8, 21])
    def test_it_is_its_quadratic_form(self, text: str, causal: bool, length: int) -> None:
        encoding, x = encoding_of(text, causal), drawn(length)
        torch.testing.assert_close(attended(encoding, x), twin(encoding, x), atol=1e-11, rtol=0)

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_is_out_of_numerator_and_normaliser(self, text: str, causal: bool, side: str) -> None:
        assert_blind_to_padding(partial(attended, encoding_of(text, causal)), drawn(20), side)


@pytest.mark.parametrize("length", [2, 63, 64, 65, 1000])
def test_a_later_token_moves_no_bit_of_an_earlier_output(length: int) -> None:
    assert_causal_to_the_bit(partial(attended, encoding_of("goat", True)), drawn(length))


def test_gradients_are_those_of_the_quadratic_form() -> None:
    found = []
    for form in (attended, twin):
        encoding, x = encoding_of("goat", True), drawn(21).requires_grad_()
        wanted = [x, *encoding.parameters()]
        found.append(torch.autograd.grad(form(encoding, x).sin().sum(), wanted))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def test_two_in_one_stand_beside_each_other() -> None:
    encoding, x = encoding_of("sinusoidal+goat", True), drawn(9)
    alone = encoding_of("goat", True)
    assert encoding.linear_form == "wider"
    torch.testing.assert_close(attended(encoding, x), attended(alone, x), atol=0, rtol=0)
