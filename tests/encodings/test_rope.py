"""RoPE against its equations: the block-diagonal rotation, norms, distances, both forms in a Performer."""

from __future__ import annotations

import math
from fractions import Fraction

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
    rotation,
    stack_of,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posenc.api.composite import Composite
from posenc.encodings import rope as rope_module
from posenc.encodings.rope import Rope, RopeOutside

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("base", "width"), [(10000.0, 8), (500000.0, 6), (10000.0, 64)])
def test_rope_is_the_block_diagonal_rotation_of_equations_15_and_16(base: float, width: int) -> None:
    encoding = Rope(stack_of(heads=1, width=width, head_width=width), base=base)
    x, context = randn(2, 3, 12, width), context_of(encoding, 12)
    expected = rotated(x, list(range(12)), base)
    torch.testing.assert_close(encoding.rotate_query(x, context.query_positions, context), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(encoding.rotate_key(x, context.key_positions, context), expected, atol=1e-12, rtol=0)


@BOTH_WAYS
def test_rope_attention_rotates_queries_and_keys_and_never_values(causal: bool) -> None:
    encoding = made("rope", causal=causal)
    module, x = layer_of(encoding), randn(2, 9, 16)
    q, k, v = projected(module, x)
    heads, _ = attend(dot(rotated(q, list(range(9))), rotated(k, list(range(9)))) / math.sqrt(8), v, causal)
    got = module(x, encoding, context_of(encoding, 9))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-12, rtol=0)


@given(m=st.integers(0, 50_000), n=st.integers(0, 50_000), by=st.integers(0, 50_000), seed=st.integers(0, 1000))
def test_rope_scores_depend_on_the_distance_alone(m: int, n: int, by: int, seed: int) -> None:
    encoding = Rope(stack_of(heads=1, width=64, head_width=64))
    q, k = randn(64, seed=seed), randn(64, seed=seed + 1)

    def score(query_at: int, key_at: int) -> float:
        turned = []
        for x, position in ((q, query_at), (k, key_at)):
            turns = encoding.turns(torch.tensor([[[position]]]), 64)
            turned.append(rope_module.rotate_pairs(x.view(1, 1, 1, 64), turns).flatten())
        return torch.dot(*turned).item()

    assert score(m + by, n + by) == pytest.approx(score(m, n), abs=1e-8)
    # ... and it is q . R_{n - m} k (equation 16), not of the opposite sense.
    assert score(m, n) == pytest.approx((q @ rotation(n - m, 64) @ k).item(), abs=1e-8)


@given(seed=st.integers(0, 10_000), pairs=st.integers(1, 9), length=st.integers(1, 40))
def test_rope_keeps_norms(seed: int, pairs: int, length: int) -> None:
    encoding = Rope(stack_of(heads=1, width=2 * pairs, head_width=2 * pairs))
    x, context = randn(1, 1, length, 2 * pairs, seed=seed), context_of(encoding, length)
    out = encoding.rotate_query(x, context.query_positions, context)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), atol=1e-13, rtol=1e-13)


def test_rope_with_a_fraction_turns_the_first_channels_and_leaves_the_rest() -> None:
    encoding = Rope(stack_of(heads=1, width=16, head_width=16), fraction=0.25)
    x, context = randn(1, 2, 10, 16), context_of(encoding, 10)
    out = encoding.rotate_query(x, context.query_positions, context)
    assert torch.equal(out[..., 4:], x[..., 4:])
    torch.testing.assert_close(out[..., :4], rotated(x[..., :4], list(range(10))), atol=1e-12, rtol=0)


@pytest.mark.parametrize("options", [{"fraction": 0.3}, {"fraction": 0.125}, {"fraction": 0.0}, {"base": 1.0}])
def test_rope_refuses_options_without_meaning(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rope(stack_of(), **options)


@pytest.mark.parametrize("width", [8, 20, 50, 80, 100])
def test_rope_takes_every_fraction_that_is_an_even_number_of_channels(width: int) -> None:
    """Also where the product is off in floats: 0.14 * 100 is 14.000000000000002."""
    for channels in range(2, width + 1, 2):
        fraction = round(channels / width, 3)
        if Fraction(str(fraction)) * width == channels:
            assert Rope(stack_of(heads=1, width=width, head_width=width), fraction=fraction).rotated(width) == channels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rope_angles_at_position_100_000_are_right_to_1e_6_whatever_the_activations(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    product = rope_module.rotate_pairs

    def watched(x: Tensor, turns: Tensor) -> Tensor:
        seen.append(turns)
        return product(x, turns)

    monkeypatch.setattr(rope_module, "rotate_pairs", watched)
    stack = stack_of(heads=1, width=64, head_width=64)
    encoding = Composite(stack, [Shifted(stack, by=99_990), Rope(stack)]).to(dtype)
    context = context_of(encoding, 20)
    x = torch.tensor([1.0, 0.0] * 32).to(dtype).expand(1, 1, 20, 64)
    outputs = [encoding.rotate_query(x, context.query_positions, context)]
    outputs.append(encoding.rotate_key(x, context.key_positions, context))
    assert len(seen) == 2
    for turns, out in zip(seen, outputs, strict=True):
        assert out.dtype == dtype
        for t in range(20):
            for i in range(32):
                angle = (99_990 + t) * 10000 ** (-2 * i / 64)
                assert turns[0, 0, t, i, 0].item() == pytest.approx(math.cos(angle), abs=1e-6)
                assert turns[0, 0, t, i, 1].item() == pytest.approx(math.sin(angle), abs=1e-6)
                half_ulp = torch.finfo(dtype).eps / 2
                assert out[0, 0, t, 2 * i].item() == pytest.approx(math.cos(angle), rel=1.01 * half_ulp, abs=1e-6)
                assert out[0, 0, t, 2 * i + 1].item() == pytest.approx(math.sin(angle), rel=1.01 * half_ulp, abs=1e-6)


def test_rope_in_the_layout_of_two_halves_is_this_one_with_its_channels_permuted() -> None:
    encoding = Rope(stack_of(heads=1, width=16, head_width=16))
    x, context = randn(1, 1, 11, 16), context_of(encoding, 11)
    angles = torch.tensor([[p * 10000 ** (-2 * i / 16) for i in range(8)] * 2 for p in range(11)], dtype=torch.float64)
    halves = x * angles.cos() + torch.cat((-x[..., 8:], x[..., :8]), dim=-1) * angles.sin()  # Llama and NeoX
    ours_of = [channel // 2 + 8 * (channel % 2) for channel in range(16)]  # our channel takes that one of theirs
    ours = encoding.rotate_query(x[..., ours_of], context.query_positions, context)
    torch.testing.assert_close(ours, halves[..., ours_of], atol=1e-12, rtol=0)
    plain = encoding.rotate_query(x, context.query_positions, context)
    assert not torch.allclose(plain, halves)


def naive_features(x: Tensor, projection: Tensor) -> Tensor:
    """phi(x) of Lemma 1 as it stands, not stabilised."""
    return torch.exp(torch.einsum("bhlk,mk->bhlm", x, projection) - (x * x).sum(-1)[..., None] / 2)


def linear_attention(turned: Tensor, plain: Tensor, values: Tensor, causal: bool) -> Tensor:
    """Sum over seen keys of numerator weights times values, over the sum of denominator weights."""
    length = plain.shape[-1]
    out = torch.zeros_like(values)
    for i in range(length):
        seen = range(i + 1) if causal else range(length)
        denominator = sum(plain[..., i, j] for j in seen)
        out[:, :, i] = sum(turned[..., i, j, None] * values[:, :, j] for j in seen) / denominator[..., None]
    return out


@BOTH_WAYS
def test_rope_outside_is_equation_19(causal: bool) -> None:
    encoding = made("rope_outside", causal=causal)
    module, x = layer_of(encoding, "performer"), randn(2, 10, 16) * 0.5
    q, k, v = projected(module, x)
    phi_q, phi_k = (naive_features(y * 8**-0.25, module.kernel.projection) for y in (q, k))
    turned = dot(rotated(phi_q, list(range(10))), rotated(phi_k, list(range(10))))
    heads = linear_attention(turned, dot(phi_q, phi_k), v, causal)
    got = module(x, encoding, context_of(encoding, 10))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-11, rtol=1e-11)


@BOTH_WAYS
def test_rope_inside_rotates_before_the_features(causal: bool) -> None:
    encoding = made("rope", causal=causal)
    module, x = layer_of(encoding, "performer"), randn(2, 10, 16) * 0.5
    q, k, v = projected(module, x)
    phi_q, phi_k = (naive_features(rotated(y, list(range(10))) * 8**-0.25, module.kernel.projection) for y in (q, k))
    heads = linear_attention(dot(phi_q, phi_k), dot(phi_q, phi_k), v, causal)
    got = module(x, encoding, context_of(encoding, 10))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-11, rtol=1e-11)


def test_rope_outside_has_no_form_in_softmax_attention() -> None:
    encoding = RopeOutside(stack_of())
    assert "not possible" in (encoding.why_not("softmax") or "")
    assert encoding.why_not("performer") is None


@pytest.mark.parametrize("name", ["kerple", "nezha"])
def test_kerple_and_nezha_say_why_they_are_not_built_in_a_performer(name: str) -> None:
    assert "not built" in (made(name).why_not("performer") or "")
    assert "not built" in (made(f"{name}+rope").why_not("performer") or "")
