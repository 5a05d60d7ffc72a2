"""Attention in blocks of queries is the reference's: outputs and gradients, on input drawn anew each run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from kernels import choose_backend, textbook
from models import built_in, serves
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.attention.interface import DecodingCache, Memory
from posenc.attention.softmax import blocks, reference
from posenc.attention.softmax.blocks import block_attention
from posenc.attention.softmax.call import Call, Needs
from posenc.attention.softmax.kernel import attend
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")

STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=300, causal=True)
MORE = ["shaw(clip=1)", "shaw(clip=300)", "t5+shaw(clip=5)+rope", "sinusoidal+nezha"]
SERVED = [
    (name, form)
    for name in [*built_in("softmax"), *MORE]
    if blocks.why_not(Needs(registry.create(name, STACK), 0.0, "cpu")) is None
    for form in ("decoder", "encoder")
    if serves(name, form)
]
CASES = ["whole", "padded right", "padded left", "packed", "packed, padded left"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}


def close(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Within the tolerance, relative to the largest expected number."""
    size = max(expected.abs().max().item(), 1e-3)
    torch.testing.assert_close(got / size, expected / size, atol=TOLERANCE[dtype], rtol=0)


def pair_table(
    line: Tensor | None, near: Tensor | None, clip: int, seen: Tensor | None, shape: tuple[int, ...], causal: bool
) -> Tensor:
    """What is added to every score (B,H,L,S), pair by pair, with distances of -clip and less at 0."""
    _, _, length, keys = shape
    i, j = torch.arange(keys - length, keys)[:, None], torch.arange(keys)
    distance = j - i
    table = torch.zeros(shape, dtype=torch.float64)
    if line is not None:
        table = table + line[:, distance + keys - 1]
    if near is not None:
        bins = distance.clamp(-clip, 0 if causal else clip) + clip - 1
        gathered = near.gather(-1, bins.clamp_min(0).expand(shape))
        table = table + gathered * (bins >= 0)
    if causal:
        table = table.masked_fill(distance > 0, -torch.inf)
    return table if seen is None else table.masked_fill(~seen, -torch.inf)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("parts", ["plain", "line", "near", "line and near"])
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_blocks_give_what_explicit_weights_give(causal: bool, parts: str, masked: bool, fresh_seed: int) -> None:
    generator = torch.Generator().manual_seed(fresh_seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    for _ in range(4):
        length, clip, rows = integer(1, 40), integer(1, 12), integer(1, 17)
        keys = length + integer(0, 2) * integer(1, 9)
        print(f"{length=} {keys=} {clip=} {rows=}")
        q, k, v = randn(2, 3, length, 5), randn(2, 3, keys, 5), randn(2, 3, keys, 4)
        line = randn(3, length + keys - 1) if "line" in parts else None
        near = randn(2, 3, length, clip if causal else 2 * clip) if "near" in parts else None
        seen = None
        if masked:
            i, j = torch.arange(keys - length, keys)[:, None], torch.arange(keys)
            seen = (torch.rand(2, 1, length, keys, generator=generator) < 0.5) | (i == j)
            seen = seen & (j <= i) if causal else seen
        inputs = [x for x in (q, k, v, line, near) if x is not None]

        ahead = torch.arange(1 - keys, length)
        laid = line.masked_fill(ahead > 0, -torch.inf) if causal and line is not None else line
        got, sums = block_attention(
            q, k, v, scale=0.4, causal=causal, line=laid, near=near, clip=clip, seen=seen, rows=rows
        )
        table = pair_table(line, near, clip, seen, (2, 3, length, keys), causal)
        weights = reference.weights(q, k, 0.4, table)
        expected = weights @ v
        close(got, expected, torch.float64)
        loss_got, loss = (got * got.detach().sin()).sum(), (expected * expected.detach().sin()).sum()
        if near is not None:
            assert sums is not None
            distance = torch.arange(keys) - torch.arange(keys - length, keys)[:, None]
            bins = [distance == d for d in range(1 - clip, 1 if causal else clip)]
            bins += [] if causal else [distance >= clip]
            direct = torch.stack([(weights * b).sum(-1) for b in bins], dim=-1)
            close(sums, direct, torch.float64)
            loss_got, loss = loss_got + (sums * near.detach()).sum(), loss + (direct * near.detach()).sum()
        for ours, theirs in zip(torch.autograd.grad(loss_got, inputs), torch.autograd.grad(loss, inputs), strict=True):
            close(ours, theirs, torch.float64)


def model_of(name: str, form: str, backend: str, seed: int, dtype: torch.dtype) -> Transformer:
    config = BackboneConfig(form=form, layers=2, width=16, heads=2, feedforward=16, vocabulary=20)  # type: ignore[arg-type]
    model = Transformer(config, name, 300, backend).initialise(seed).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # far from a start where attention is nearly even
    return model


def batch(case: str, length: int, generator: torch.Generator) -> dict[str, Any]:
    """A mask and segments of three rows."""
    given: dict[str, Any] = {}
    counts = torch.randint(1, length + 1, (3, 1), generator=generator)
    index = torch.arange(length)
    if "right" in case:
        given["mask"] = index < counts
    if "left" in case:
        given["mask"] = index >= length - counts
    if "packed" in case:
        given["segments"] = (torch.rand(3, length, generator=generator) < 0.1).cumsum(1)
    return given


def cases_of(name: str) -> list[tuple[str, torch.dtype]]:
    """Every mask where something is added by distance: without, blocks see no more of an encoding than of `none`."""
    encoding = registry.create(name, STACK)
    biased = encoding.overrides("distance_bias") or encoding.overrides("score_bias")
    masks = CASES if biased else [CASES[0], CASES[-1]]
    return [(mask, torch.float64) for mask in masks] + [(CASES[-1], torch.float32)]


@pytest.mark.parametrize(
    ("name", "form", "case", "dtype"), [(name, form, *case) for name, form in SERVED for case in cases_of(name)]
)
def test_a_model_by_blocks_is_the_model_by_the_reference(
    name: str, form: str, case: str, dtype: torch.dtype, fresh_seed: int
) -> None:
    generator = torch.Generator().manual_seed(fresh_seed)
    length = int(torch.randint(1, 200, (), generator=generator))
    tokens = torch.randint(0, 20, (3, length), generator=generator)
    given = batch(case, length, generator)
    results = []
    for backend in ("blocks", "reference"):
        model = model_of(name, form, backend, fresh_seed, dtype)
        hidden = model.hidden(tokens, **given)
        assert hidden.isfinite().all(), "padding gives numbers too"
        real = hidden if "mask" not in given else hidden[given["mask"]]
        (real * torch.linspace(-1, 1, real.numel(), dtype=dtype).view_as(real)).sum().backward()
        results.append((real.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (got, got_grads), (expected, grads) = results
    close(got, expected, dtype)
    assert got_grads.keys() == grads.keys()
    whole = max(grad.abs().max() for grad in grads.values())
    for parameter, grad in grads.items():
        # Keys' biases have no gradient but for rounding: all are held relative to the largest.
        difference = (got_grads[parameter] - grad).abs().max() / whole
        assert difference < 10 * TOLERANCE[dtype], f"{parameter}: {difference}"


@pytest.mark.parametrize("name", ["t5", "shaw(clip=3)", "rope"])
def test_cached_decoding_by_blocks_is_the_uncached(name: str, fresh_seed: int) -> None:
    model = model_of(name, "decoder", "blocks", fresh_seed, torch.float64).eval()
    tokens = torch.randint(0, 20, (2, 30), generator=torch.Generator().manual_seed(fresh_seed))
    cache, parts = DecodingCache(2), []
    for start, end in [(0, 7), (7, 8), (8, 9), (9, 21), (21, 30)]:
        parts.append(model.hidden(tokens[:, start:end], cache=cache))
    close(torch.cat(parts, dim=1), model.hidden(tokens), torch.float64)


@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_is_computed_in_float32_and_rounded_once(autocast: bool, fresh_seed: int) -> None:
    generator = torch.Generator().manual_seed(fresh_seed)
    q, k, v = (torch.randn(2, 2, 100, 16, generator=generator).bfloat16() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got, _ = block_attention(q, k, v, scale=0.25, causal=False)
        wide, _ = block_attention(q.float(), k.float(), v.float(), scale=0.25, causal=False)
    assert (wide - textbook(q.float(), k.float(), v.float(), scale=0.25)).abs().max() < 1e-5
    expected = textbook(q.double(), k.double(), v.double(), scale=0.25)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), expected, atol=2**-8, rtol=2**-8)


class _Elsewhere(Encoding):
    """Positions of its own, and a bias by distance."""

    def positions(self, context: Context) -> Tensor:
        return 2 * torch.arange(context.keys)[None, :, None]

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return -distances.abs()[None].float().expand(self.stack.heads, -1)


class _Pairs(Encoding):
    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return queries.square() @ keys.square().transpose(-1, -2)


def test_what_has_no_form_without_a_table_is_refused_and_auto_takes_another() -> None:
    for encoding, word, other in ((_Elsewhere(STACK), "positions", "sdpa"), (_Pairs(STACK), "Shaw", "sdpa")):
        with pytest.raises(NotPossibleError, match=f"blocks.*{word}"):
            choose_backend("blocks", encoding, 0.0, "cpu")
        assert choose_backend("auto", encoding, 0.0, "cpu") == other
    with pytest.raises(NotPossibleError, match=r"blocks.*dropout"):
        choose_backend("blocks", registry.create("t5", STACK), 0.1, "cpu")
    with pytest.raises(NotPossibleError, match="blocks"):
        choose_backend("blocks", registry.create("shaw+nezha", STACK), 0.0, "cpu")


# FlexAttention: the same without a table, on a CPU without gradients


def as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch computes FlexAttention from the functions that it gets, without tracing them for a compiler first."""
    import torch.nn.attention.flex_attention as torchs

    monkeypatch.setattr(torchs, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, raising=False)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["decoder", "encoder"])
@pytest.mark.parametrize("name", ["rope", "t5", "shaw(clip=3)", "t5+nezha(clip=150)+rope"])
def test_a_model_by_flex_is_the_model_by_the_reference(
    name: str, form: str, case: str, monkeypatch: pytest.MonkeyPatch, fresh_seed: int
) -> None:
    if (name, case) != ("t5+nezha(clip=150)+rope", CASES[-1]):  # that one is traced, as everywhere else
        as_written(monkeypatch)
    generator = torch.Generator().manual_seed(fresh_seed)
    length = int(torch.randint(1, 140, (), generator=generator))
    tokens = torch.randint(0, 20, (3, length), generator=generator)
    given = batch(case, length, generator)
    flex, plain = (model_of(name, form, backend, fresh_seed, torch.float32) for backend in ("flex", "reference"))
    with torch.no_grad():
        if form == "encoder" and name not in ("rope", "t5"):
            with pytest.raises(NotPossibleError, match="backend 'flex' has no Shaw's form both ways: not built"):
                flex.hidden(tokens, **given)
            return
        got, expected = flex.hidden(tokens, **given), plain.hidden(tokens, **given)
    real = given.get("mask", torch.ones_like(tokens).bool())
    close(got[real], expected[real], torch.float32)


def test_flex_reads_the_line(fresh_seed: int) -> None:
    """What it gives changes with the encoding's numbers: it is not another backend in its place."""
    model = model_of("t5", "decoder", "flex", fresh_seed, torch.float32)
    tokens = torch.randint(0, 20, (2, 30), generator=torch.Generator().manual_seed(fresh_seed))
    with torch.no_grad():
        before = model.hidden(tokens)
        model.get_parameter("decoder.encoding.table")[3] += 5  # three tokens back
        after = model.hidden(tokens)
        plain = model_of("t5", "decoder", "reference", fresh_seed, torch.float32)
        plain.load_state_dict(model.state_dict())
        close(after, plain.hidden(tokens), torch.float32)
    assert torch.equal(before[:, :3], after[:, :3]) and (before[:, 3:] - after[:, 3:]).abs().max() > 0.01


def test_training_by_flex_on_a_cpu_is_not_possible_and_says_why() -> None:
    with pytest.raises(NotPossibleError, match=r"not possible: backend 'flex' has no backward pass on a CPU"):
        model_of("t5", "decoder", "flex", 0, torch.float32)(torch.zeros(1, 4, dtype=torch.long))
    assert choose_backend("flex", registry.create("t5", STACK), 0.0, "cuda", True) == "flex"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["causal", "both ways", "padded", "packed", "packed, padded"])
def test_flex_without_an_encoding_is_the_reference(
    case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, fresh_seed: int
) -> None:
    """Of cross-attention: queries that find nothing of their own see all, as where the table is laid out."""
    if (case, dtype) != ("packed, padded", torch.float32):  # that one is traced, as everywhere else
        as_written(monkeypatch)
    generator = torch.Generator().manual_seed(fresh_seed)
    length, keys = 150, 150 if case == "causal" else 260
    q, k, v = (torch.randn(2, 2, n, 16, generator=generator).to(dtype) for n in (length, keys, keys))
    mask = torch.arange(keys) < torch.tensor([[130], [0]]) if "padded" in case else None
    segments = None
    if "packed" in case:  # in any order; the queries' have some that the keys have not
        segments = tuple(torch.randint(0, n, (2, m), generator=generator) for n, m in ((5, length), (3, keys)))
    memory = Memory(v.new_zeros(2, keys, 1), mask, segments)
    call = Call(queries=q, keys=k, values=v, scale=0.25, causal=case == "causal", memory=memory)
    if case == "causal":
        call = replace(call, memory=None)
    got, shown = attend("flex", call), memory.seen
    shown = torch.ones(length, keys).bool().tril() if case == "causal" else shown
    expected = textbook(q.double(), k.double(), v.double(), scale=0.25, bias=shown)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=3e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)
