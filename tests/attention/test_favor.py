"""FAVOR+ against the plain quadratic formula, its causality to the last bit, its error and its memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_twins import favor
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from posenc.attention.linear.favor import orthogonal_features
from posenc.attention.linear.scales import power_of_two
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH_WAYS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])


def randn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def features(count: int, width: int, seed: int = 0) -> Tensor:
    return orthogonal_features(count, width, torch.Generator().manual_seed(seed))


def naive(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, scale: float, causal: bool, mask: Tensor | None = None
) -> Tensor:
    """phi(x) = exp(w . x - |x|^2 / 2) / sqrt(M) (Lemma 1), not stabilised, and all pairs of positions."""

    def phi(x: Tensor) -> Tensor:
        x = x * scale**0.5
        logs = torch.einsum("bhlk,mk->bhlm", x, projection) - 0.5 * (x**2).sum(-1, keepdim=True)
        return logs.exp() / math.sqrt(projection.shape[0])

    weights = torch.einsum("bhim,bhjm->bhij", phi(q), phi(k))
    for i in range(q.shape[2]):
        for j in range(k.shape[2]):
            if causal and j > i:
                weights[:, :, i, j] = 0
    if mask is not None:
        for b in range(q.shape[0]):
            for j in range(k.shape[2]):
                if not mask[b, j]:
                    weights[b, :, :, j] = 0
    return torch.einsum("bhij,bhjk->bhik", weights, v) / weights.sum(-1, keepdim=True)


# The formula


@BOTH_WAYS
@pytest.mark.parametrize("chunk", [1, 2, 5, 8, 64])
@pytest.mark.parametrize("length", [1, 7, 16, 17])
def test_favor_is_the_quadratic_formula_for_any_chunk(length: int, chunk: int, causal: bool) -> None:
    q, k, v = randn(2, 3, length, 8, seed=1), randn(2, 3, length, 8, seed=2), randn(2, 3, length, 5, seed=3)
    w = features(12, 8)
    got = favor(q, k, v, w, scale=8**-0.5, causal=causal, chunk=chunk)
    torch.testing.assert_close(got, naive(q, k, v, w, 8**-0.5, causal), atol=1e-12, rtol=1e-12)


@given(
    length=st.integers(1, 40),
    chunk=st.integers(1, 45),
    count=st.integers(1, 20),
    size=st.floats(0.1, 3),
    seed=st.integers(0, 10_000),
    causal=st.booleans(),
)
def test_favor_is_the_quadratic_formula_for_any_shape(
    length: int, chunk: int, count: int, size: float, seed: int, causal: bool
) -> None:
    q, k, v = (randn(1, 2, length, 6, seed=seed + n) * size for n in range(3))
    w = features(count, 6, seed)
    got = favor(q, k, v, w, scale=0.5, causal=causal, chunk=chunk)
    torch.testing.assert_close(got, naive(q, k, v, w, 0.5, causal), atol=1e-10, rtol=1e-10)


def test_queries_may_be_fewer_than_keys_in_cross_attention() -> None:
    q, k, v, w = randn(2, 2, 3, 8, seed=1), randn(2, 2, 11, 8, seed=2), randn(2, 2, 11, 8, seed=3), features(12, 8)
    got = favor(q, k, v, w, scale=0.3, causal=False)
    torch.testing.assert_close(got, naive(q, k, v, w, 0.3, False), atol=1e-12, rtol=1e-12)


@BOTH_WAYS
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_are_those_of_the_quadratic_formula(causal: bool, padded: bool) -> None:
    """Stabilisers are constants, and cancel: they must leave no gradient of their own."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0, 0]]).bool() if padded else None
    w, out = features(12, 8), []
    target = randn(2, 2, 9, 8, seed=9)
    for function in (favor, naive):
        q, k, v = (randn(2, 2, 9, 8, seed=seed).requires_grad_() for seed in (1, 2, 3))
        more: dict[str, Any] = {"chunk": 4} if function is favor else {}
        result = function(q, k, v, w, scale=8**-0.5, causal=causal, mask=mask, **more)
        keep = torch.ones(2, 9).bool() if mask is None else mask
        ((result - target).transpose(1, 2)[keep] ** 2).sum().backward()
        out.append((q.grad, k.grad, v.grad))
    for got, expected in zip(*out, strict=True):
        assert got is not None and got.isfinite().all()
        keep = expected.isfinite()  # the naive formula divides 0 by 0 at padding that sees nothing
        torch.testing.assert_close(got[keep], expected[keep], atol=1e-11, rtol=1e-11)


@BOTH_WAYS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions_agree_with_the_formula(dtype: torch.dtype, causal: bool) -> None:
    q, k, v = (randn(2, 2, 30, 8, seed=seed).to(dtype) for seed in (1, 2, 3))
    w = features(16, 8)
    got = favor(q, k, v, w, scale=8**-0.5, causal=causal, chunk=8)
    assert got.dtype == torch.float32, "features are never in bf16"
    expected = naive(q.double(), k.double(), v.double(), w, 8**-0.5, causal)
    torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=1e-4)


# Causality and extremes


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("factor", [4.0, 1000.0, -4.0, 0.0])
def test_no_later_key_or_value_moves_an_earlier_output_in_the_last_bit(factor: float, chunk: int) -> None:
    q, k, v = (randn(2, 2, 37, 8, seed=seed) for seed in (1, 2, 3))
    w = features(16, 8)
    before = favor(q, k, v, w, scale=8**-0.5, causal=True, chunk=chunk)
    for t in (1, 3, 4, 15, 16, 17, 31, 36):
        changed = [x.clone() for x in (q, k, v)]
        for x in changed:
            x[:, :, t] *= factor
        after = favor(*changed, w, scale=8**-0.5, causal=True, chunk=chunk)
        assert torch.equal(before[:, :, :t], after[:, :, :t]), t
        assert not torch.equal(before[:, :, t:], after[:, :, t:])


@given(t=st.integers(1, 29), power=st.floats(-8, 8), chunk=st.integers(1, 32), seed=st.integers(0, 1000))
def test_no_later_key_of_any_size_moves_an_earlier_output_in_the_last_bit(
    t: int, power: float, chunk: int, seed: int
) -> None:
    q, k, v = (randn(1, 1, 30, 8, seed=seed + n) for n in range(3))
    w = features(16, 8)
    before = favor(q, k, v, w, scale=8**-0.5, causal=True, chunk=chunk)
    k[:, :, t:] *= 10**power
    v[:, :, t:] *= 10**power
    after = favor(q, k, v, w, scale=8**-0.5, causal=True, chunk=chunk)
    assert torch.equal(before[:, :, :t], after[:, :, :t])


EXTREMES = pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 15.0, 30.0, 1e3, 1e6])


def extreme_inputs(size: float) -> list[tuple[Tensor, Tensor]]:
    """Queries and keys of which one kind, or both, are long; each also with one key that is longer still."""
    q, k = randn(1, 2, 128, 16, seed=1, dtype=torch.float32), randn(1, 2, 128, 16, seed=2, dtype=torch.float32)
    cases = [(q * size, k), (q, k * size), (q * size, k * size)]
    one = torch.ones(128, 1)
    one[20] = 1000
    return cases + [(queries, keys * one) for queries, keys in cases]


@BOTH_WAYS
@EXTREMES
def test_keys_and_queries_of_extreme_norms_give_finite_outputs_in_float32(size: float, causal: bool) -> None:
    v, w = randn(1, 2, 128, 16, seed=3, dtype=torch.float32), features(32, 16)
    for q, k in extreme_inputs(size):
        out = favor(q, k, v, w, scale=0.25, causal=causal, chunk=16)
        assert out.isfinite().all()
        assert out.abs().max() <= 1.001 * v.abs().max(), "a mean of values is no larger than they are"


@BOTH_WAYS
@EXTREMES
def test_keys_and_queries_of_extreme_norms_give_finite_gradients_in_float32(size: float, causal: bool) -> None:
    w = features(32, 16)
    for q, k in extreme_inputs(size):
        inputs = [x.clone().requires_grad_() for x in (q, k, randn(1, 2, 128, 16, seed=3, dtype=torch.float32))]
        favor(*inputs, w, scale=0.25, causal=causal, chunk=16).square().sum().backward()
        for x in inputs:
            assert x.grad is not None and x.grad.isfinite().all()


@BOTH_WAYS
@pytest.mark.parametrize("size", [10.0, 100.0, 1000.0])
def test_outputs_of_long_keys_are_still_means_of_values(size: float, causal: bool) -> None:
    """Weights are positive and sum to 1: with values of 1 every output is 1, whatever the norms."""
    q, k = randn(1, 2, 40, 16, seed=1), randn(1, 2, 40, 16, seed=2) * size
    out = favor(q, k, torch.ones_like(k), features(32, 16), scale=0.25, causal=causal, chunk=16)
    torch.testing.assert_close(out, torch.ones_like(out), atol=1e-9, rtol=0)


@BOTH_WAYS
def test_long_keys_agree_with_the_formula_in_logarithms(causal: bool) -> None:
    """Where the plain formula underflows: the same sums by logsumexp."""
    q, k, v = randn(1, 2, 20, 8, seed=1), randn(1, 2, 20, 8, seed=2) * 20, randn(1, 2, 20, 8, seed=3)
    w, scale = features(16, 8), 8**-0.5
    x, y = q * scale**0.5, k * scale**0.5
    logs_q = torch.einsum("bhlk,mk->bhlm", x, w) - 0.5 * (x**2).sum(-1, keepdim=True)
    logs_k = torch.einsum("bhlk,mk->bhlm", y, w) - 0.5 * (y**2).sum(-1, keepdim=True)
    pairs = (logs_q[:, :, :, None] + logs_k[:, :, None]).logsumexp(-1)
    if causal:
        pairs = pairs.masked_fill(torch.ones(20, 20).triu(1).bool(), -torch.inf)
    got = favor(q, k, v, w, scale=scale, causal=causal, chunk=6)
    torch.testing.assert_close(got, pairs.softmax(-1) @ v, atol=1e-9, rtol=1e-9)


# Padding


@BOTH_WAYS
@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("chunk", [3, 64])
def test_padding_is_out_of_the_numerator_and_the_denominator(side: str, causal: bool, chunk: int) -> None:
    left, right = {"left": (5, 0), "right": (0, 5), "both": (2, 3)}[side]
    q, k, v = (randn(2, 2, 15, 8, seed=seed) for seed in (1, 2, 3))
    w = features(12, 8)
    mask = torch.zeros(2, 15).bool()
    mask[:, left : 15 - right] = True
    real = slice(left, 15 - right)
    alone = favor(q[:, :, real], k[:, :, real], v[:, :, real], w, scale=0.35, causal=causal, chunk=chunk)
    torch.testing.assert_close(alone, naive(q[:, :, real], k[:, :, real], v[:, :, real], w, 0.35, causal))
    padded = favor(q, k, v, w, scale=0.35, causal=causal, mask=mask, chunk=chunk)
    assert padded.isfinite().all()
    torch.testing.assert_close(padded[:, :, real], alone, atol=1e-12, rtol=0)
    k[:, :, ~mask[0]] *= 1000
    v[:, :, ~mask[0]] *= -1000
    other = favor(q, k, v, w, scale=0.35, causal=causal, mask=mask, chunk=chunk)
    assert torch.equal(other[:, :, real], padded[:, :, real])


@BOTH_WAYS
@pytest.mark.parametrize("chunk", [3, 64])
def test_padding_sets_no_scale_for_real_keys_that_are_far_longer(causal: bool, chunk: int) -> None:
    """Features of the real keys here are 2^-5000 times those at padding: beside them they would vanish."""
    q, k, v = (randn(1, 2, 15, 8, seed=seed) for seed in (1, 2, 3))
    k *= 50
    w, mask = features(12, 8), torch.zeros(1, 15).bool()
    mask[:, 4:10] = True
    k[:, :, ~mask[0]] = 0
    real = slice(4, 10)
    alone = favor(q[:, :, real], k[:, :, real], v[:, :, real], w, scale=0.35, causal=causal, chunk=chunk)
    assert alone.abs().amax(-1).min() > 0
    padded = favor(q, k, v, w, scale=0.35, causal=causal, mask=mask, chunk=chunk)
    torch.testing.assert_close(padded[:, :, real], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("chunk", [3, 64])
def test_rows_at_left_padding_see_no_later_key_either(chunk: int) -> None:
    q, k, v = (randn(1, 2, 15, 8, seed=seed) for seed in (1, 2, 3))
    mask = torch.arange(15)[None] >= 5
    out = favor(q, k, v, features(12, 8), scale=0.35, causal=True, mask=mask, chunk=chunk)
    assert torch.equal(out[:, :, :5], torch.zeros(1, 2, 5, 8, dtype=torch.float64))


# The estimate of softmax


def test_features_estimate_the_exponential_without_bias() -> None:
    """exp(q . k) = E[phi(q) . phi(k)] (Lemma 1), within four standard errors."""
    q, k = randn(8, seed=1) * 0.4, randn(8, seed=2) * 0.4
    draws = []
    for seed in range(300):
        w = features(16, 8, seed)
        draws.append(((w @ q - q @ q / 2).exp() * (w @ k - k @ k / 2).exp()).mean())
    estimates = torch.stack(draws)
    error = estimates.mean() - (q @ k).exp()
    assert error.abs() < 4 * estimates.std() / math.sqrt(300)


@BOTH_WAYS
def test_the_error_to_softmax_attention_falls_as_one_over_the_root_of_the_features(causal: bool) -> None:
    q, k, v = (randn(1, 2, 24, 8, seed=seed) * 0.4 for seed in (1, 2, 3))
    scores = q @ k.transpose(-1, -2) / math.sqrt(8)
    if causal:
        scores = scores.masked_fill(torch.ones(24, 24).triu(1).bool(), -torch.inf)
    exact = scores.softmax(-1) @ v
    errors = []
    for count in (16, 64, 256, 1024):
        squares = [
            (favor(q, k, v, features(count, 8, seed), scale=8**-0.5, causal=causal, chunk=8) - exact).square().mean()
            for seed in range(15)
        ]
        errors.append(torch.stack(squares).mean().sqrt().item())
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert 5 < errors[0] / errors[3] < 13, errors  # sqrt(1024 / 16) = 8
    assert errors[3] < 0.1 * exact.std().item()


@pytest.mark.parametrize(("count", "width"), [(8, 8), (20, 8), (64, 16), (3, 16)])
def test_rows_are_orthogonal_within_each_block_of_the_width(count: int, width: int) -> None:
    w = features(count, width)
    assert w.shape == (count, width) and w.dtype == torch.float64
    for first in range(0, count, width):
        block = w[first : first + width]
        products = block @ block.T
        off = products - torch.diag(products.diagonal())
        assert off.abs().max() < 1e-12 * products.diagonal().max()
    if count > width:
        assert (w[:width] @ w[width:].T).abs().max() > 0.1, "blocks are drawn one by one"


def test_rows_have_the_norms_of_independent_gaussian_rows() -> None:
    """|w|^2 is chi-squared of K degrees: mean K, variance 2 K; so no two norms are alike."""
    squares = features(8000, 8).square().sum(1)
    assert squares.mean().item() == pytest.approx(8, rel=0.03)
    assert squares.var().item() == pytest.approx(16, rel=0.1)


def test_directions_are_spread_evenly() -> None:
    """Haar: E[w w^T] is the identity, and no coordinate has a preferred sign (QR alone would prefer one)."""
    first_rows = torch.stack([features(4, 4, seed) for seed in range(3000)])  # (draws, rows, channels)
    error = 4 / math.sqrt(3000)
    assert first_rows.mean(0).abs().max() < error
    second = torch.einsum("nrk,nrl->rkl", first_rows, first_rows) / 3000
    assert (second - torch.eye(4)).abs().max() < 2 * error


# Drawing again


def performer(redraw: int) -> Transformer:
    config = BackboneConfig(
        layers=2, width=16, heads=2, feedforward=8, attention="performer", features=16, redraw=redraw, vocabulary=9
    )
    return Transformer(config, "none", 16).initialise(1)


def drawn(model: Transformer) -> list[Tensor]:
    return [buffer.clone() for name, buffer in model.named_buffers() if name.endswith("projection")]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_features_follow_from_seed_and_step_alone_whatever_came_before() -> None:
    model = performer(redraw=10)
    at = {step: drawn(model.begin_step(1, step)) for step in (0, 9, 10, 19, 20)}
    assert same(at[0], at[9]) and same(at[10], at[19])
    assert not same(at[0], at[10]) and not same(at[10], at[20]) and not same(at[0], at[20])
    assert same(at[0], drawn(model.begin_step(1, 5))), "going back gives what stood there"
    assert same(at[10], drawn(performer(redraw=10).begin_step(1, 13)))
    assert not same(at[0], drawn(model.begin_step(2, 0)))


def test_features_are_never_drawn_again_where_redraw_is_0() -> None:
    model = performer(redraw=0)
    assert same(drawn(model.begin_step(1, 0)), drawn(model.begin_step(1, 10**6)))


def test_every_layer_has_features_of_its_own() -> None:
    first, second = drawn(performer(redraw=0))
    assert not torch.equal(first, second)


# Memory


class Largest(TorchDispatchMode):
    """The largest tensor that any operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.numel())
        return out


@BOTH_WAYS
@pytest.mark.parametrize("padded", [False, True])
def test_the_largest_tensor_grows_linearly_with_the_length_forward_and_backward(causal: bool, padded: bool) -> None:
    sizes, saved = [], []
    for length in (512, 2048):
        q, k, v = (randn(1, 1, length, 8, seed=seed, dtype=torch.float32).requires_grad_() for seed in (1, 2, 3))
        mask = torch.arange(length)[None] < length - 7 if padded else None
        kept: list[int] = []

        def pack(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = favor(q, k, v, features(16, 8), scale=0.3, causal=causal, mask=mask, chunk=32)
            out.sum().backward()
        sizes.append(largest.elements)
        saved.append(sum(kept))
    assert sizes[1] <= 4 * sizes[0] and saved[1] <= 4.1 * saved[0]
    assert sizes[1] < 2048 * 2048 / 8


# Powers of two


@pytest.mark.parametrize(("dtype", "smallest"), [(torch.float64, -1022), (torch.float32, -126)])
def test_powers_of_two_are_exact_down_to_the_smallest_normal_and_0_below(dtype: torch.dtype, smallest: int) -> None:
    exponents = list(range(smallest - 80, 1)) + [-(10**5), -(10**6), -2 * 10**6]
    powers = power_of_two(torch.tensor(exponents, dtype=torch.int32), dtype)
    assert powers.dtype == dtype
    assert powers.tolist() == [math.ldexp(1.0, e) if e >= smallest else 0.0 for e in exponents]
    assert torch.finfo(dtype).tiny == math.ldexp(1.0, smallest)
