"""Single operations under pytest-benchmark: `nox -s bench`, and `nox -s bench -- --benchmark-compare` to compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from posenc import registry
from posenc.attention.favor import favor_attention, orthogonal_features
from posenc.attention.softmax import score_table
from posenc.encoding import Context, Stack, prepare

pytestmark = pytest.mark.benchmark
LENGTH = 1024
STACK = Stack(layers=1, heads=8, width=512, head_width=64, max_length=LENGTH, causal=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def heads() -> torch.Tensor:
    return torch.randn(1, STACK.heads, LENGTH, STACK.head_width)


def context_for(encoding: Any) -> Context:
    return prepare(encoding, Context(stack=STACK, queries=LENGTH, keys=LENGTH, device=torch.device("cpu")))


def made(name: str) -> Any:
    encoding = registry.create(name, STACK)
    encoding.initialise(torch.Generator().manual_seed(0))
    return encoding


@pytest.mark.parametrize("name", ["none", "rope"])
def test_rotate(benchmark: Any, name: str) -> None:
    encoding, x = made(name), heads()
    context = context_for(encoding)
    assert benchmark(lambda: encoding.rotate_query(x, context.query_positions, context)).shape == x.shape


@pytest.mark.parametrize("name", ["t5", "shaw"])
def test_score_table(benchmark: Any, name: str) -> None:
    encoding, x = made(name), heads()
    table = benchmark(lambda: score_table(encoding, x, x, context_for(encoding)))
    assert table.shape[-2:] == (LENGTH, LENGTH)


def test_shaw_values(benchmark: Any) -> None:
    encoding, weights = made("shaw"), torch.rand(1, STACK.heads, LENGTH, LENGTH)
    context = context_for(encoding)
    assert benchmark(lambda: encoding.mix_values(weights, context)).shape == (1, STACK.heads, LENGTH, STACK.head_width)


@pytest.mark.parametrize("name", ["sinusoidal", "learned"])
def test_embed(benchmark: Any, name: str) -> None:
    encoding, x = made(name), torch.randn(1, LENGTH, STACK.width)
    context = context_for(encoding)
    assert benchmark(lambda: encoding.embed(x, context.query_positions, context)).shape == x.shape


@pytest.mark.parametrize("causal", [False, True], ids=["both_ways", "causal"])
def test_favor(benchmark: Any, causal: bool) -> None:
    x, w = heads(), orthogonal_features(128, STACK.head_width, torch.Generator().manual_seed(0)).float()
    out = benchmark(lambda: favor_attention(x, x, x, w, scale=0.125, causal=causal, chunk=128))
    assert out.isfinite().all()
