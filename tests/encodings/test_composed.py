"""Encodings at once: what adds up, what turns after what, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import (
    BOTH_WAYS,
    Shifted,
    attend,
    context_of,
    dot,
    joined,
    layer_of,
    made,
    projected,
    randn,
    rotated,
    shaw_vectors,
    stack_of,
    t5_bias,
)

from posenc.api.composite import Composite
from posenc.api.encoding import Encoding
from posenc.common.errors import NotPossibleError
from posenc.encodings.none import NoEncoding

pytestmark = pytest.mark.usefixtures("one_thread")


def test_composed_sinusoidal_and_rope_apply_both() -> None:
    both, rope, sines = made("sinusoidal+rope"), made("rope"), made("sinusoidal")
    x, context = randn(2, 12, 16), context_of(both, 12)
    embedded = both.embed(x, context.query_positions, context)
    alone = context_of(sines, 12)
    assert torch.equal(embedded, sines.embed(x, alone.query_positions, alone))
    assert torch.equal(layer_of(both)(embedded, both, context), layer_of(rope)(embedded, rope, context_of(rope, 12)))


@BOTH_WAYS
def test_composed_t5_shaw_and_rope_add_up(causal: bool) -> None:
    """q . k comes rotated; Shaw's key term takes queries as projected; T5's bias is added after scaling."""
    whole = made("t5(buckets=8, max_distance=10)+rope+shaw(clip=2)", causal=causal)
    assert isinstance(whole, Composite)
    t5, _, shaw = whole.parts
    module, x, at = layer_of(whole), randn(2, 12, 16), list(range(12))
    q, k, v = projected(module, x)
    a_key, a_value = shaw_vectors(shaw.key_tables[0], 12, 2), shaw_vectors(shaw.value_tables[0], 12, 2)
    scores = (dot(rotated(q, at), rotated(k, at)) + torch.einsum("bhik,ijk->bhij", q, a_key)) / math.sqrt(8)
    heads, weights = attend(scores + t5_bias(t5, 12), v, causal)
    heads = heads + torch.einsum("bhij,ijk->bhik", weights, a_value)
    got = module(x, whole, context_of(whole, 12))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-12, rtol=0)


@pytest.mark.parametrize("clips", [(2, 5), (5, 2)])
def test_two_shaw_encodings_of_different_clips_add_up(clips: tuple[int, int]) -> None:
    whole = made(f"shaw(clip={clips[0]})+shaw(clip={clips[1]})")
    assert isinstance(whole, Composite)
    module, x = layer_of(whole), randn(1, 12, 16)
    q, k, v = projected(module, x)
    scores, heads = dot(q, k), torch.zeros_like(q)
    for part, clip in zip(whole.parts, clips, strict=True):
        scores = scores + torch.einsum("bhik,ijk->bhij", q, shaw_vectors(part.key_tables[0], 12, clip))
    heads, weights = attend(scores / math.sqrt(8), v, True)
    for part, clip in zip(whole.parts, clips, strict=True):
        heads = heads + torch.einsum("bhij,ijk->bhik", weights, shaw_vectors(part.value_tables[0], 12, clip))
    torch.testing.assert_close(module(x, whole, context_of(whole, 12)), joined(module, heads), atol=1e-12, rtol=0)


def test_two_ropes_of_different_bases_rotate_one_after_the_other() -> None:
    whole = made("rope(base=10000)+rope(base=50)")
    x, context = randn(1, 2, 12, 8), context_of(whole, 12)
    expected = rotated(rotated(x, list(range(12))), list(range(12)), base=50.0)
    torch.testing.assert_close(whole.rotate_query(x, context.query_positions, context), expected, atol=1e-12, rtol=0)


class Scaled(NoEncoding):
    """Its paper divides by sqrt(3 K)."""

    @property
    def score_scale(self) -> float:
        return (3 * self.stack.head_width) ** -0.5


@pytest.mark.parametrize("composed", [False, True])
def test_a_score_scale_of_an_encodings_own_is_taken(composed: bool) -> None:
    stack = stack_of()
    encoding: Encoding = Scaled(stack)
    if composed:
        encoding = Composite(stack, [NoEncoding(stack), encoding])
    module, x = layer_of(encoding), randn(1, 9, 16)
    q, k, v = projected(module, x)
    heads, _ = attend(dot(q, k) / math.sqrt(3 * 8), v, True)
    torch.testing.assert_close(module(x, encoding, context_of(encoding, 9)), joined(module, heads), atol=1e-12, rtol=0)


def test_two_parts_that_set_positions_cannot_be_composed() -> None:
    stack = stack_of()
    with pytest.raises(NotPossibleError, match="positions"):
        Composite(stack, [Shifted(stack), Shifted(stack)])


def test_rope_inside_and_outside_cannot_be_composed_in_a_performer() -> None:
    assert "not possible" in (made("rope+rope_outside").why_not("performer") or "")


class Refusing(NoEncoding):
    """Says no for reasons of its own, as an encoding may."""

    def why_not(self, attention: str) -> str | None:
        return "not possible: its own reason"

    def why_not_at(self, length: int) -> str | None:
        return "not possible: its own length" if length > 5 else None


@pytest.mark.parametrize("name", ["pope+spe", "pope+pope", "spe+rope+pope"])
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_two_parts_that_each_change_the_width_of_queries_cannot_be_composed(name: str, attention: str) -> None:
    reason = made(name).why_not(attention)
    assert reason is not None and "each make queries and keys of another width" in reason


def test_a_composition_refuses_what_one_of_its_parts_refuses() -> None:
    stack = stack_of()
    whole = Composite(stack, [NoEncoding(stack), Refusing(stack)])
    assert whole.why_not("softmax") == "not possible: its own reason"
    assert whole.why_not_at(6) == "not possible: its own length"


def test_declarations_of_a_composition_follow_from_its_parts() -> None:
    assert not made("sinusoidal+rope").relative and made("t5+rope").relative
    assert made("none+rope").tells_order and not made("none+none").tells_order
    assert made("sinusoidal+rope").linear_form == "inside"
    assert made("sinusoidal+rope_outside").linear_form == "outside"
    assert made("sinusoidal+learned").linear_form == "as_is"
    assert made("sinusoidal+rope_outside").why_not("softmax")
