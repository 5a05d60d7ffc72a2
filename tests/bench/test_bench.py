"""Single operations under pytest-benchmark: `nox -s bench`, and `nox -s bench -- --benchmark-compare` to compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_twins import favor

from posenc.api import registry
from posenc.api.encoding import Context, prepare
from posenc.api.stack import Stack
from posenc.attention.linear.favor import orthogonal_features
from posenc.attention.softmax.biases import score_table
from posenc.backbone.config import BackboneConfig
from posenc.backbone.layers import Attention, kernel_for
from posenc.encodings.rope import rotate_pairs

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("what", ["clone", "forward", "backward"])
def test_rope_alone_beside_clone(benchmark: Any, what: str, dtype: torch.dtype) -> None:
    """On [1,12,2048,64]: `clone` reads and writes the same bytes and does nothing else."""
    x = torch.randn(1, 12, 2048, 64).to(dtype).requires_grad_(what == "backward")
    turns = made("rope").turns(torch.arange(2048)[None, :, None], 64).float()
    turned = rotate_pairs(x, turns)
    run = {
        "clone": x.clone,
        "forward": lambda: rotate_pairs(x, turns),
        "backward": lambda: torch.autograd.grad(turned, x, x.detach(), retain_graph=True)[0],
    }[what]
    assert benchmark(run).shape == x.shape


@pytest.mark.parametrize("backend", ["reference", "sdpa", "blocks"])
@pytest.mark.parametrize("name", ["none", "t5", "shaw"])
def test_attention_forward_and_backward(benchmark: Any, name: str, backend: str) -> None:
    if name == "shaw" and backend == "sdpa":
        pytest.skip("sdpa never shows the weights that Shaw's values need")
    config = BackboneConfig(layers=1, width=STACK.width, heads=STACK.heads, feedforward=1)
    encoding = made(name)
    attention = Attention(config, kernel_for(config, encoding, causal=True, backend=backend))
    x = torch.randn(1, LENGTH, STACK.width, requires_grad=True)

    def run() -> torch.Tensor:
        attention(x, encoding, context_for(encoding)).sum().backward()
        assert x.grad is not None
        return x.grad

    assert benchmark(run).shape == x.shape


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


@pytest.mark.parametrize("length", [1024, 2048, 4096, 8192, 16384])
@pytest.mark.parametrize("causal", [False, True], ids=["both_ways", "causal"])
def test_favor(benchmark: Any, causal: bool, length: int) -> None:
    """Forward and backward at one head: linear in the length."""
    x = torch.randn(1, 1, length, STACK.head_width, requires_grad=True)
    w = orthogonal_features(128, STACK.head_width, torch.Generator().manual_seed(0)).float()

    def run() -> torch.Tensor:
        out = favor(x, x, x, w, scale=0.125, causal=causal, chunk=128)
        return torch.autograd.grad(out.square().mean(), x)[0]

    assert benchmark(run).isfinite().all()
