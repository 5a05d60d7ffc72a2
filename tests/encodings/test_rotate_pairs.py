"""RoPE's product has three forms (complex, some rows at a time for narrow types, plain for compilers): one result."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posenc.encodings import rope
from posenc.encodings.rope import rotate_pairs


def angles_of(rows: int, length: int, width: int, seed: int) -> Tensor:
    """Angles (rows, 1, length, width / 2) in float64."""
    return torch.rand(rows, 1, length, width // 2, generator=torch.Generator().manual_seed(seed)).double() * 2 * math.pi


def turns_of(angles: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.stack((angles.cos(), angles.sin()), dim=-1).to(dtype)


def exact(x: Tensor, angles: Tensor) -> Tensor:
    """In float64, pair by pair as written; channels beyond the angles stay."""
    out = x.double().clone()
    for pair in range(angles.shape[-1]):
        even, odd = x[..., 2 * pair].double(), x[..., 2 * pair + 1].double()
        cos, sin = angles[..., pair].cos(), angles[..., pair].sin()
        out[..., 2 * pair], out[..., 2 * pair + 1] = even * cos - odd * sin, even * sin + odd * cos
    return out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(
    rows=st.integers(1, 2), heads=st.integers(1, 3), length=st.integers(1, 40), pairs=st.integers(1, 5),
    rest=st.integers(0, 3), at_once=st.integers(1, 200), transposed=st.booleans(), seed=st.integers(0, 10_000),
)  # fmt: skip
@settings(max_examples=60)
def test_narrow_types_are_rounded_once_however_many_rows_are_turned_at_once(
    dtype: torch.dtype, rows: int, heads: int, length: int, pairs: int, rest: int, at_once: int, transposed: bool,
    seed: int,
) -> None:  # fmt: skip
    angles = angles_of(rows, length, 2 * pairs, seed)
    x = torch.randn(rows, heads, length, 2 * pairs + rest, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if transposed:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rope, "AT_ONCE", at_once)
        got = rotate_pairs(x, turns_of(angles, torch.float32))
    assert got.dtype == dtype
    true = exact(x, angles)
    # Half a unit in the last place, a hair more for the products' own rounding in float32; below: subnormal float16.
    allowed = true.abs() * torch.finfo(dtype).eps / 2 * 1.001 + 1e-6
    assert ((got.double() - true).abs() <= allowed).all()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 1, 3, 2), (3, 0, 2, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_gradients_are_turned_back_however_they_lie_in_memory(
    dtype: torch.dtype, order: tuple[int, ...], fresh_seed: int
) -> None:
    angles = angles_of(1, 700, 6, fresh_seed)
    wide = torch.promote_types(dtype, torch.float32)
    generator = torch.Generator().manual_seed(fresh_seed)
    x = torch.randn(2, 300, 700, 8, generator=generator).to(dtype)[:, :2].requires_grad_()
    given_back = torch.randn(2, 2, 700, 8, generator=generator).to(dtype)
    back = [order.index(axis) for axis in range(4)]
    given_back = given_back.permute(order).contiguous().permute(back)  # the keys' comes from q @ k^T the other way up
    (got,) = torch.autograd.grad(rotate_pairs(x, turns_of(angles, wide)), x, given_back)
    torch.testing.assert_close(got.double(), exact(given_back, -angles), atol=1e-6, rtol=torch.finfo(dtype).eps)


def test_the_gradient_of_a_gradient_is_turned_forward_again() -> None:
    turns = turns_of(angles_of(1, 5, 4, 0), torch.float32)
    x, back = (torch.randn(1, 1, 5, 4).bfloat16().requires_grad_() for _ in range(2))
    (first,) = torch.autograd.grad(rotate_pairs(x, turns), x, back, create_graph=True)
    seed = torch.randn(1, 1, 5, 4).bfloat16()
    (second,) = torch.autograd.grad(first, back, seed)
    assert torch.equal(second, rotate_pairs(seed, turns))


def test_angles_that_are_learnt_have_gradients_in_every_type() -> None:
    angles = angles_of(1, 5, 4, 0).requires_grad_()
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        x = torch.randn(1, 1, 5, 4).to(dtype)
        turns = turns_of(angles, torch.promote_types(dtype, torch.float32))
        (gradient,) = torch.autograd.grad(rotate_pairs(x, turns).double().sum(), angles)
        (true,) = torch.autograd.grad(exact(x, angles).sum(), angles)
        torch.testing.assert_close(gradient, true, atol=0.05 if dtype == torch.bfloat16 else 1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_compiler_sees_one_product_of_real_numbers(dtype: torch.dtype, fresh_seed: int) -> None:
    """Inductor has no code of its own for complex numbers: it would leave them to single kernels."""
    seen: list[Tensor] = []

    def watch(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.extend(node.meta["example_value"] for node in graph.graph.nodes if "example_value" in node.meta)
        return graph.forward

    x = torch.randn(2, 3, 20, 10, generator=torch.Generator().manual_seed(fresh_seed)).to(dtype)
    angles = angles_of(1, 20, 8, fresh_seed)
    turns = turns_of(angles, torch.float32)
    torch._dynamo.reset()
    got = torch.compile(rotate_pairs, fullgraph=True, backend=watch)(x, turns)
    torch.testing.assert_close(got.double(), exact(x, angles), atol=1e-6, rtol=torch.finfo(dtype).eps)
    assert seen
    assert not any(value.is_complex() for value in seen if isinstance(value, Tensor))
