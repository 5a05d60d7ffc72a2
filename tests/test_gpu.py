"""On a GPU: every encoding and attention against the CPU in float64, and the time of a step. `nox -s gpu`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from posenc import registry, training
from posenc.attention import reference
from posenc.attention.softmax import softmax_attention
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.errors import NotPossibleError
from posenc.plan import Choice, find_suite, make
from posenc.store import Store

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine"),
]
ENCODINGS = [*registry.BUILT_IN, "sinusoidal+rope", "t5+rope"]
TOLERANCE = {"float32": 2e-4, "bfloat16": 6e-2}
"""Largest difference of hidden states (of a size near 1), and of gradients relative to their norm, from float64."""


def build(encoding: str, attention: str, form: str, length: int = 128) -> Transformer:
    config = BackboneConfig(
        form=form,
        layers=2,
        width=128,
        heads=4,
        feedforward=256,
        attention=attention,
        features=64,  # type: ignore[arg-type]
    )
    try:
        return Transformer(config, encoding, length).initialise(0)
    except NotPossibleError as error:
        pytest.skip(str(error))


def outputs(model: Transformer, tokens: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states at real tokens, and the gradient of their mean square, on the CPU in float64."""
    hidden = model.hidden(tokens, mask=mask)
    hidden = hidden if mask is None else hidden[mask]
    hidden.float().square().mean().backward() if hidden.dtype != torch.float64 else hidden.square().mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return hidden.detach().double().cpu(), gradient.double().cpu()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("form", ["decoder", "encoder"])
@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_gpu_agrees_with_the_cpu_in_float64(
    encoding: str, attention: str, form: str, padded: bool, precision: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (3, 128), generator=generator)
    mask = torch.arange(128) < torch.tensor([[128], [100], [77]]) if padded else None
    exact, exact_gradient = outputs(build(encoding, attention, form).double(), tokens, mask)
    model = build(encoding, attention, form).cuda().begin_step(0, 0)
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        got, gradient = outputs(model, tokens.cuda(), None if mask is None else mask.cuda())
    assert (got - exact).abs().max() < TOLERANCE[precision]
    assert (gradient - exact_gradient).norm() / exact_gradient.norm() < TOLERANCE[precision]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("table", ["none", "causal", "bias"])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "xformers"])
def test_every_backend_agrees_with_the_reference_in_float64(backend: str, table: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 100, 64, generator=generator).to(dtype) for _ in range(3))
    bias = torch.randn(1, 4, 100, 100, generator=generator).to(dtype) if table == "bias" else None
    hidden = torch.ones(100, 100, dtype=torch.bool).tril() if table == "causal" else None
    exact, _ = reference.attend(
        q.double(), k.double(), v.double(), scale=0.125, bias=bias.double() if bias is not None else hidden
    )
    inputs = [x.cuda().requires_grad_() for x in (q, k, v)]
    moved = bias.cuda() if bias is not None else None
    got = softmax_attention(*inputs, table=moved, causal=table == "causal", scale=0.125, backend=backend)
    assert (got.double().cpu() - exact).abs().max() < (1e-2 if dtype == torch.bfloat16 else 1e-4)
    got.float().square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cells_train_on_the_gpu(tmp_path: Path, precision: str) -> None:
    changes = {"runtime.device": "cuda", "runtime.precision": precision, "training.steps": 30}
    for cell in make(find_suite("quick"), Choice(seeds=[0], changes=changes)).cells:
        record = training.train(cell, "quick", Store(tmp_path), None)
        assert record["status"] == "done", record["traceback"]
        assert record["peak_memory_bytes"] > 0
        assert record["hardware"]["gpu"]


@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_the_time_of_a_step_is_printed(attention: str) -> None:
    """Encodings in turns, bf16, forward and backward: a median of rounds for each, for people; nothing is required."""
    shape = {"layers": 4, "width": 256, "heads": 4, "feedforward": 1024, "features": 128}
    models = {}
    for encoding in registry.BUILT_IN:
        config = BackboneConfig(attention=attention, **shape)  # type: ignore[arg-type]
        try:
            models[encoding] = Transformer(config, encoding, 1024).initialise(0).cuda().begin_step(0, 0)
        except NotPossibleError:
            continue
    tokens = torch.randint(256, (8, 1024), device="cuda")
    times: dict[str, list[float]] = {encoding: [] for encoding in models}
    for _ in range(23):
        for encoding, model in models.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16):
                model(tokens).float().square().mean().backward()
            torch.cuda.synchronize()
            times[encoding].append(time.perf_counter() - start)
    print(f"\n{attention}, 8 x 1024 tokens, bf16, {torch.cuda.get_device_name()}")
    for encoding, seconds in times.items():
        middle = sorted(seconds[3:])[10] * 1000
        print(f"  {encoding:<14}{middle:8.2f} ms")
        assert middle > 0
