"""Softmax attention: every backend that a CPU runs against loops over plain floats; masks, packed rows, biases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from kernels import call_of, choose_backend, softmax_attention
from models import assert_packed_as_alone, built_in, served
from torch import Tensor
from torch.nn import functional

from posenc.api import registry
from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.stack import Stack
from posenc.attention.softmax import reference
from posenc.attention.softmax import xformers as memory_efficient
from posenc.attention.softmax.biases import hidden_pairs, score_table
from posenc.attention.softmax.kernel import BACKENDS
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError, UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH_WAYS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
ON_CPU = pytest.mark.parametrize("backend", ["reference", "sdpa"])
# Absolute, for outputs of about 1: bf16 rounds weights and outputs to 8 bits, 2^-8 each.
TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-2}
STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=64, causal=True)


SOFTMAX = pytest.mark.parametrize("name", built_in("softmax"))
SERVED = pytest.mark.parametrize(("name", "form"), served("softmax", "decoder", "encoder"))


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Any, seen: Any) -> Tensor:
    """Softmax attention in Python floats: `bias(b, h, i, j)` and `seen(b, i, j)`."""
    out = torch.zeros(q.shape[0], q.shape[1], q.shape[2], v.shape[3], dtype=torch.float64)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys = [j for j in range(k.shape[2]) if seen(b, i, j)]
                row = q[b, h, i].tolist()
                scores = [
                    scale * math.fsum(x * y for x, y in zip(row, k[b, h, j].tolist(), strict=True)) + bias(b, h, i, j)
                    for j in keys
                ]
                weights = [math.exp(score - max(scores)) for score in scores]
                for j, weight in zip(keys, weights, strict=True):
                    out[b, h, i] += weight / math.fsum(weights) * v[b, h, j].double()
    return out


def no_bias(b: int, h: int, i: int, j: int) -> float:
    return 0.0


@ON_CPU
@BOTH_WAYS
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_attention_is_the_textbooks_in_every_precision(backend: str, causal: bool, dtype: torch.dtype) -> None:
    q, k, v = (randn(2, 2, 9, 8, seed=seed).to(dtype) for seed in (1, 2, 3))
    got = softmax_attention(q, k, v, table=None, causal=causal, scale=0.4, backend=backend)
    assert got.dtype == dtype
    expected = by_loops(q.double(), k.double(), v.double(), 0.4, no_bias, lambda b, i, j: j <= i or not causal)
    torch.testing.assert_close(got.double(), expected, atol=TOLERANCES[dtype], rtol=0)


@ON_CPU
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_biases_are_added_after_scaling(backend: str, dtype: torch.dtype) -> None:
    q, k, v = (randn(2, 2, 7, 8, seed=seed).to(dtype) for seed in (1, 2, 3))
    table = randn(2, 2, 7, 7, seed=4).to(dtype)
    got = softmax_attention(q, k, v, table=table, causal=False, scale=0.1, backend=backend)
    expected = by_loops(
        q.double(), k.double(), v.double(), 0.1, lambda b, h, i, j: table[b, h, i, j].item(), lambda b, i, j: True
    )
    torch.testing.assert_close(got.double(), expected, atol=TOLERANCES[dtype], rtol=0)


MASKS = {
    "padded right": ([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], None),
    "padded left": ([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]], None),
    "packed": (None, [[0, 0, 1, 1, 1, 2], [5, 5, 5, 5, 6, 6]]),
    "packed and padded": ([[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]], [[0, 0, 1, 1, 1, 2], [5, 5, 5, 5, 6, 6]]),
}


def masked_context(encoding: Encoding, case: str, queries: int = 6) -> tuple[Context, Any, list[list[int]]]:
    mask, segments = MASKS[case]
    context = Context(
        stack=encoding.stack,
        queries=queries,
        keys=6,
        device=torch.device("cpu"),
        mask=None if mask is None else torch.tensor(mask).bool(),
        segments=None if segments is None else torch.tensor(segments),
    )
    real = mask or [[1] * 6] * 2
    groups = segments or [[0] * 6] * 2

    def seen(b: int, i: int, j: int) -> bool:
        if not real[b][i]:
            return i == j
        return bool(real[b][j]) and groups[b][i] == groups[b][j] and (j <= i or not encoding.stack.causal)

    return prepare(encoding, context), seen, real


@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("queries", [6, 2])
@BOTH_WAYS
def test_real_queries_see_real_keys_of_their_own_segment_alone(case: str, causal: bool, queries: int) -> None:
    stack = Stack(layers=1, heads=2, width=16, head_width=8, max_length=64, causal=causal)
    context, seen, real = masked_context(registry.create("none", stack), case, queries)
    table = hidden_pairs(context)
    assert table is not None and table.shape == (2, 1, queries, 6)
    for b in range(2):
        for i in range(queries):
            at = i + 6 - queries
            if real[b][at]:
                assert table[b, 0, i].tolist() == [seen(b, at, j) for j in range(6)]
            assert table[b, 0, i].any(), "an empty row gives NaN"


@ON_CPU
@BOTH_WAYS
@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("name", ["none", "t5(buckets=4, max_distance=3)"])
def test_masked_and_biased_attention_is_the_loops(
    name: str, dtype: torch.dtype, case: str, causal: bool, backend: str
) -> None:
    stack = Stack(layers=1, heads=2, width=16, head_width=8, max_length=64, causal=causal)
    encoding = registry.create(name, stack)
    encoding.initialise(torch.Generator().manual_seed(0))
    encoding = encoding.to(dtype)
    context, seen, real = masked_context(encoding, case)
    q, k, v = (randn(2, 2, 6, 8, seed=seed).to(dtype) for seed in (1, 2, 3))
    table = score_table(encoding, q, k, context)
    got = softmax_attention(q, k, v, table=table, causal=causal, scale=8**-0.5, backend=backend)
    assert got.isfinite().all(), "padding gives numbers too"

    def bias(b: int, h: int, i: int, j: int) -> float:
        if name == "none":
            return 0.0
        # 4 buckets up to 3. Causal: 0, 1, [2, 2.4), further. Both ways: 2 for each sign, 0 and further.
        row = min(i - j, 3) if causal else (2 if j > i else 0) + min(abs(i - j), 1)
        if causal and i - j == 2:
            row = 2
        return encoding.get_parameter("table")[row, h].item()

    expected = by_loops(q.double(), k.double(), v.double(), 8**-0.5, bias, seen)
    keep = torch.tensor(real).bool()
    torch.testing.assert_close(
        got.double().transpose(1, 2)[keep], expected.transpose(1, 2)[keep], atol=TOLERANCES[dtype], rtol=0
    )


@SERVED
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_sdpa_gives_what_the_reference_gives_for_every_encoding_it_takes(
    name: str, form: str, dtype: torch.dtype
) -> None:
    causal = form == "decoder"
    stack = Stack(layers=1, heads=2, width=16, head_width=8, max_length=64, causal=causal)
    encoding = registry.create(name, stack)
    encoding.initialise(torch.Generator().manual_seed(0))
    if encoding.overrides("mix_values") or encoding.overrides("change_scores"):
        with pytest.raises(NotPossibleError):
            choose_backend("sdpa", encoding, 0.0, "cpu")
        return
    encoding = encoding.to(dtype)
    hidden = randn(2, 50, 16, seed=4).to(dtype)
    context = prepare(encoding, Context(stack=stack, queries=50, keys=50, device=torch.device("cpu"), hidden=hidden))
    q, k, v = (randn(2, 2, 50, 8, seed=seed).to(dtype) for seed in (1, 2, 3))
    outputs = []
    for backend in ("reference", "sdpa"):
        turned = encoding.rotate_query(q, context.query_positions, context)
        out = softmax_attention(
            turned,
            encoding.rotate_key(k, context.query_positions, context),
            v,
            table=score_table(encoding, q, k, context),
            causal=causal,
            scale=encoding.score_scale,
            backend=backend,
        )
        outputs.append(out)
    torch.testing.assert_close(outputs[0], outputs[1], atol=TOLERANCES[dtype], rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_computes_scores_in_float32_under_autocast_too(dtype: torch.dtype) -> None:
    q, k = (randn(1, 2, 30, 64, seed=seed).to(dtype) * 2 for seed in (1, 2))
    exact = ((q.double() @ k.double().transpose(-1, -2)) / 8).softmax(-1)
    with torch.autocast("cpu", dtype):
        got = reference.weights(q, k, 1 / 8, None)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_reference_computes_scores_in_float32_at_the_least(dtype: torch.dtype) -> None:
    q, k = (randn(1, 2, 30, 64, seed=seed).to(dtype) * 2 for seed in (1, 2))
    exact = ((q.double() @ k.double().transpose(-1, -2)) / 8).softmax(-1)
    torch.testing.assert_close(reference.weights(q, k, 1 / 8, None).double(), exact, atol=2e-6, rtol=0)


def test_a_boolean_bias_hides_where_it_is_false_and_minus_infinity_does_the_same() -> None:
    q, k = randn(1, 1, 3, 4, seed=1), randn(1, 1, 3, 4, seed=2)
    seen = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 1]]).bool()
    weights = reference.weights(q, k, 1.0, seen)
    assert torch.equal(weights, reference.weights(q, k, 1.0, torch.zeros(3, 3).masked_fill(~seen, -torch.inf)))
    assert torch.equal(weights[0, 0] > 0, seen)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 3, dtype=torch.float64))


# Packed rows, through the whole model


def model_of(name: str, form: str, **changes: Any) -> Transformer:
    shape = {"layers": 2, "width": 16, "heads": 2, "feedforward": 16, "vocabulary": 20} | changes
    model = Transformer(BackboneConfig(form=form, **shape), name, 64).initialise(3).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # far from a start where attention is nearly even
    return model.eval()


@SERVED
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_packed_rows_give_what_their_examples_give_one_by_one(name: str, form: str, padding: str) -> None:
    tokens = torch.randint(0, 20, (2, 16), generator=torch.Generator().manual_seed(1))
    assert_packed_as_alone(model_of(name, form), tokens, ([3, 7, 1, 5], [10, 6]), padding, room=4)


# Which backend


@pytest.mark.parametrize(
    ("name", "dropout", "device", "taken"),
    [
        ("none", 0.0, "cpu", "sdpa"),
        ("sinusoidal+rope", 0.0, "cpu", "sdpa"),
        ("t5", 0.0, "cpu", "blocks"),
        ("t5", 0.0, "cuda", "sdpa"),
        ("t5", 0.1, "cpu", "reference"),
        ("shaw", 0.0, "cpu", "blocks"),
        ("shaw", 0.0, "cuda", "reference"),
        ("rope+t5+shaw", 0.0, "cpu", "blocks"),
        ("shaw+nezha", 0.0, "cpu", "reference"),
        ("shaw", 0.1, "cpu", "reference"),
        ("rope", 0.1, "cpu", "reference"),
    ],
)
def test_auto_is_a_fixed_rule(name: str, dropout: float, device: str, taken: str) -> None:
    assert choose_backend("auto", registry.create(name, STACK), dropout, device) == taken


@pytest.mark.parametrize("backend", ["sdpa", "xformers"])
@pytest.mark.parametrize("name", ["shaw", "t5+shaw"])
def test_shaw_by_a_backend_without_weights_is_not_possible_and_says_why(name: str, backend: str) -> None:
    with pytest.raises(NotPossibleError, match=rf"not possible.*{backend}.*weights"):
        choose_backend(backend, registry.create(name, STACK), 0.0, "cuda")
    model = Transformer(BackboneConfig(layers=1, width=16, heads=2, feedforward=8), name, 16, backend=backend)
    with pytest.raises(NotPossibleError, match=backend):
        model.initialise(0)(torch.zeros(1, 4, dtype=torch.long))


def test_dropout_on_weights_by_a_backend_without_weights_is_not_possible() -> None:
    with pytest.raises(NotPossibleError, match=r"sdpa.*dropout"):
        choose_backend("sdpa", registry.create("none", STACK), 0.1, "cpu")


@pytest.mark.parametrize("causal", [True, False])
def test_packed_rows_are_xformers_block_diagonal_mask(causal: bool, fresh_seed: int) -> None:
    pytest.importorskip("xformers")
    generator = torch.Generator().manual_seed(fresh_seed)
    segments = (torch.rand(3, 20, generator=generator) < 0.2).cumsum(1)
    got = memory_efficient.packed_bias(segments, causal).materialize((60, 60)) == 0
    stack = Stack(layers=1, heads=2, width=16, head_width=8, max_length=64, causal=causal)
    encoding = registry.create("rope", stack)
    context = Context(stack=stack, queries=20, keys=20, device=torch.device("cpu"), segments=segments)
    seen = hidden_pairs(prepare(encoding, context))
    assert seen is not None
    assert torch.equal(got, torch.block_diag(*seen[:, 0].float()).bool())
    assert memory_efficient.packed_alone(call_of(encoding, context))
    assert not memory_efficient.packed_alone(call_of(registry.create("t5", stack), context))
    with pytest.raises(NotPossibleError, match="stand apart"):
        memory_efficient.packed_bias(torch.tensor([[0, 1, 0]]), causal)


def test_xformers_on_a_cpu_is_not_possible_and_says_why() -> None:
    with pytest.raises(NotPossibleError, match=r"xformers.*cpu.*cuda"):
        choose_backend("xformers", registry.create("none", STACK), 0.0, "cpu")
    model = Transformer(BackboneConfig(layers=1, width=16, heads=2, feedforward=8), "none", 16, backend="xformers")
    with pytest.raises(NotPossibleError, match="xformers"):
        model.initialise(0)(torch.zeros(1, 4, dtype=torch.long))


def test_an_unknown_backend_is_named_with_those_allowed_and_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        choose_backend("sdpaa", registry.create("none", STACK), 0.0, "cpu")
    text = str(caught.value)
    assert "'sdpaa'" in text and "did you mean 'sdpa'" in text and all(name in text for name in BACKENDS)


# Dropout


def test_dropout_falls_on_the_weights_and_keeps_their_mean() -> None:
    q, k, v = (randn(1, 2, 40, 8, seed=seed) for seed in (1, 2, 3))
    torch.manual_seed(0)
    plain = reference.weights(q, k, 0.3, None)
    out = softmax_attention(q, k, v, backend="reference", scale=0.3, causal=False, dropout=0.25)
    torch.manual_seed(0)
    dropped = functional.dropout(plain, 0.25)
    gone = dropped == 0
    assert 0.2 < gone.double().mean().item() < 0.3
    torch.testing.assert_close(out, dropped @ v)


def test_shaws_values_are_mixed_with_the_dropped_weights() -> None:
    """z_i = sum alpha_ij (v_j + aV_ij), with one alpha: a weight that is dropped is dropped from both terms."""
    encoding = registry.create("shaw(clip=2)", STACK)
    encoding.initialise(torch.Generator().manual_seed(0))
    encoding = encoding.double()
    context = prepare(encoding, Context(stack=STACK, queries=6, keys=6, device=torch.device("cpu")))
    q, k, v = (randn(1, 2, 6, 8, seed=seed) for seed in (1, 2, 3))
    table = score_table(encoding, q, k, context)
    assert table is not None
    torch.manual_seed(4)
    got = softmax_attention(
        q,
        k,
        v,
        table=table,
        causal=True,
        scale=1.0,
        backend="reference",
        dropout=0.5,
        encoding=encoding,
        context=context,
    )
    torch.manual_seed(4)
    alpha = functional.dropout(reference.weights(q, k, 1.0, table), 0.5)
    vectors = encoding.get_parameter("value_tables")[0]
    expected = torch.zeros_like(v)
    for i in range(6):
        for j in range(i + 1):
            expected[:, :, i] += alpha[:, :, i, j, None] * (v[:, :, j] + vectors[2 + max(j - i, -2)])
    torch.testing.assert_close(got, expected)


@SOFTMAX
def test_evaluation_drops_nothing(name: str) -> None:
    model = model_of(name, "decoder", attention_dropout=0.5, dropout=0.5)
    tokens = torch.arange(12)[None]
    assert torch.equal(model(tokens), model(tokens))
    assert not torch.equal(model.train()(tokens), model(tokens))
    without = model_of(name, "decoder")
    torch.testing.assert_close(model.eval()(tokens), without(tokens), atol=1e-11, rtol=0)
