"""On a GPU: what `python -m posenc.bench.gpu` does not compare. `nox -s gpu` runs both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kernels import choose_backend, softmax_attention, textbook

from posenc.api import registry
from posenc.api.stack import Stack
from posenc.attention.softmax.kernel import require_kernel
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.bench.agreement import DTYPES, TOLERANCE
from posenc.bench.timing import in_turns
from posenc.common.errors import NotPossibleError
from posenc.encodings.rope import rotate_pairs
from posenc.plan.plan import Selection, find_suite, make
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine"),
]
COMPILED = ["rope", "t5", "alibi", "shaw", "fox", "sinusoidal+rope"]
"""One of each kind of form: compiling every encoding would take minutes."""


def build(encoding: str, attention: str, form: str, length: int = 128, backend: str = "auto") -> Transformer:
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
        model = Transformer(config, encoding, length, backend).initialise(0)
        if attention == "softmax":
            for part in model.encodings():
                choose_backend(backend, part, 0.0, "cuda", True)
            for dtype in DTYPES.values():
                require_kernel(backend, "cuda", dtype)
        return model
    except NotPossibleError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "blocks", "flex", "xformers"])
@pytest.mark.parametrize("encoding", ["rope", "t5"])
def test_packed_pairs_of_an_encoder_decoder_agree_with_the_cpu_in_float64(
    encoding: str, backend: str, precision: str
) -> None:
    """The second row's targets have an unused end, and its source has none."""
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randint(256, (2, length), generator=generator) for length in (72, 90)]
    of_source = torch.tensor([[0] * 40 + [1] * 32, [0] * 10 + [1] * 62])
    of_targets = torch.tensor([[0] * 30 + [1] * 60, [0] * 50 + [1] * 30 + [2] * 10])
    real, found = of_targets < 2, []
    for device in ("cpu", "cuda"):
        model = build(encoding, "softmax", "encoder-decoder", backend="reference" if device == "cpu" else backend)
        model = model.to(device).begin_step(0, 0) if device == "cuda" else model.double()
        source, targets, segments, targets_segments = (x.to(device) for x in (*sides, of_source, of_targets))
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda" and precision == "bfloat16"):
            memory = model.hidden(source, segments=segments)
            hidden = model.decode(targets, memory, segments=targets_segments, memory_segments=segments)
            hidden = hidden[real.to(device)]
        (hidden if device == "cpu" else hidden.float()).square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((hidden.detach().double().cpu(), gradient.double().cpu()))
    (exact, exact_gradient), (got, gradient) = found
    assert (got - exact).abs().max() < TOLERANCE[precision]
    assert (gradient - exact_gradient).norm() / exact_gradient.norm() < TOLERANCE[precision]


@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize("encoding", COMPILED)
def test_inductor_takes_a_training_step_whole(encoding: str, attention: str) -> None:
    model = build(encoding, attention, "decoder").cuda().begin_step(0, 0)
    tokens = torch.randint(256, (2, 128), generator=torch.Generator().manual_seed(0)).cuda()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    results = []
    for each in (model, compiled):
        model.zero_grad()
        out = each(tokens)
        out.square().mean().backward()
        results.append((out.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (plain, gradient), (got, got_gradient) = results
    assert (got - plain).abs().max() < TOLERANCE["float32"]
    assert (got_gradient - gradient).norm() / gradient.norm() < TOLERANCE["float32"]


@pytest.mark.parametrize("length", [4096, 8192])
def test_flex_makes_no_table_of_all_pairs(length: int) -> None:
    """Its memory for one training step of T5 stays below one score for each pair and head."""
    model = build("t5", "softmax", "decoder", length, "flex").cuda()
    tokens = torch.zeros(1, length, dtype=torch.long, device="cuda")
    for _ in range(2):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            model.hidden(tokens).float().square().mean().backward()
    taken = torch.cuda.max_memory_allocated() - before
    print(f"\nt5 by flex, 1 x {length} tokens: {taken / 2**20:.0f} MiB")
    assert taken < 4 * length * length * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("table", ["none", "causal", "bias"])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "xformers"])
def test_every_backend_agrees_with_the_reference_in_float64(backend: str, table: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 100, 64, generator=generator).to(dtype) for _ in range(3))
    bias = torch.randn(1, 4, 100, 100, generator=generator).to(dtype) if table == "bias" else None
    hidden = torch.ones(100, 100, dtype=torch.bool).tril() if table == "causal" else None
    exact = textbook(
        q.double(), k.double(), v.double(), scale=0.125, bias=bias.double() if bias is not None else hidden
    )
    inputs = [x.cuda().requires_grad_() for x in (q, k, v)]
    moved = bias.cuda() if bias is not None else None
    got = softmax_attention(*inputs, table=moved, causal=table == "causal", scale=0.125, backend=backend)
    assert (got.double().cpu() - exact).abs().max() < (1e-2 if dtype == torch.bfloat16 else 1e-4)
    got.float().square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize("compile", ["none", "inductor", "cudagraphs"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cells_train_on_the_gpu(tmp_path: Path, precision: str, compile: str) -> None:
    """Compiled or not, with dropout, to the same score but for rounding."""
    changes = {
        "runtime.device": "cuda", "runtime.precision": precision, "training.steps": 30, "backbone.dropout": 0.1,
        "training.accumulate": 2,
    }  # fmt: skip
    plain = make(find_suite("quick"), Selection(seeds=[0], changes=changes)).cells
    chosen = make(find_suite("quick"), Selection(seeds=[0], changes={**changes, "runtime.compile": compile})).cells
    for cells in zip(plain, chosen, strict=True):
        scores = []
        for cell in cells:
            record = training.train(cell, CellTerms("quick", tmp_path))
            assert record is not None
            assert record["status"] in ("done", "not_possible"), record["traceback"]
            if record["status"] == "done":
                assert record["peak_memory_bytes"] > 0
                assert record["hardware"]["gpu"]
                scores.append([row["value"] for row in record["scores"] if row["value"] is not None])
        assert not scores or scores[0] == pytest.approx(scores[1], rel=5e-3 if precision == "float32" else 5e-2)


def test_rope_fused_beside_clone_is_printed() -> None:
    """Its one kernel moves the bytes that `clone` moves: for people; no time is held against a limit."""
    x = torch.randn(32, 512, 12, 64, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    stack = Stack(layers=1, heads=12, width=768, head_width=64, max_length=512, causal=True)
    turns = registry.create("rope", stack).turns(torch.arange(512, device="cuda")[None, :, None], 64).float()
    fused = torch.compile(rotate_pairs, fullgraph=True, dynamic=False)
    torch.testing.assert_close(fused(x, turns), rotate_pairs(x, turns), atol=1e-2, rtol=1e-2)
    runs = {"clone": x.clone, "eager": lambda: rotate_pairs(x, turns), "fused": lambda: fused(x, turns)}
    for name, timed in in_turns(runs, dict.fromkeys(runs, "clone"), 100, torch.cuda.synchronize).items():
        print(f"\nRoPE on {tuple(x.shape)} bf16, {name}: {timed.seconds.median * 1e6:.0f} us, {timed.ratio} clone")
