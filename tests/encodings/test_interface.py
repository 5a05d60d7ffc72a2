"""The hooks and what the context tells them: each against a plain form, in every backend that takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernels import softmax_attention
from models import VOCABULARY, tokens_of
from torch import Tensor

from posenc.api import registry
from posenc.api.composite import Composite
from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.stack import Stack
from posenc.attention.interface import DecodingCache
from posenc.backbone.config import BackboneConfig
from posenc.backbone.cost import backend_taken
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.encodings.rope import Rope

pytestmark = pytest.mark.usefixtures("one_thread")

STACK = Stack(layers=4, heads=2, width=16, head_width=8, max_length=64, causal=True)
FORMS = pytest.mark.parametrize("form", ["decoder", "encoder"])
CPU = torch.device("cpu")


def model_with(
    encoding: str | Callable[[Stack], Encoding], form: str = "decoder", backend: str = "reference", axes: int = 1
) -> Transformer:
    """Four layers in float64 with an encoding, written or made; all else the same whatever it is."""
    config: Any = {"form": form, "layers": 4, "width": 16, "heads": 2, "feedforward": 24, "vocabulary": VOCABULARY}
    text = encoding if isinstance(encoding, str) else "none"
    model = Transformer(BackboneConfig(**config), text, 64, backend=backend).initialise(3)
    for _, stack in model.stacks:
        if not isinstance(encoding, str):
            stack.encoding = encoding(replace(stack.encoding.stack, axes=axes))
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


def far(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > 1e-3)


def pairs(distances: Tensor, context: Context) -> Tensor:
    """What stands at signed distances (..., S) for each pair of a pass, from a table that begins at -L."""
    index = torch.arange(context.keys)
    return distances[..., index - index[context.offset :, None] + context.keys]


def table_of(context: Context, layer: int) -> Tensor:
    """A bias of a layer's own, (H, 2 S + 1) from distance -S on."""
    generator = torch.Generator().manual_seed(100 + layer)
    return torch.randn(context.stack.heads, 129, generator=generator, dtype=torch.float64)[:, 64 - context.keys :]


class ByLayerBias(Encoding):
    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return table_of(context, context.layer)[:, distances + context.keys]


class PlainByLayerBias(Encoding):
    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return pairs(table_of(context, context.layer), context)[None]


@FORMS
@pytest.mark.parametrize("backend", ["reference", "sdpa", "blocks", "flex"])
@torch.no_grad()
def test_a_bias_that_differs_by_layer_is_each_layers_own(backend: str, form: str) -> None:
    tokens = tokens_of(2, 20)
    plain = model_with(PlainByLayerBias, form).hidden(tokens)
    same(model_with(ByLayerBias, form, backend).hidden(tokens), plain)

    class First(ByLayerBias):
        shared = True

    assert far(model_with(First, form, backend).hidden(tokens), plain), "declared shared, it is layer 0's everywhere"


def test_a_shared_bias_is_asked_for_once_a_pass_and_one_that_is_not_in_each_layer() -> None:
    asked: list[int] = []

    class Counts(ByLayerBias):
        def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
            asked.append(context.layer)
            return super().distance_bias(distances, context)

    for backend in ("reference", "sdpa", "blocks", "flex"):
        for shared in (True, False):
            Counts.shared = shared
            asked.clear()
            with torch.no_grad():
                model_with(Counts, backend=backend).hidden(tokens_of(1, 9))
            assert asked == ([0] if shared else [0, 1, 2, 3])


def test_what_is_made_once_is_its_owners_alone() -> None:
    class Half(Rope):
        def turns(self, positions: Tensor, width: int) -> Tensor:
            return super().turns(positions / 2, width)

    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    one, half = Rope(STACK), Half(STACK)
    both = Composite(STACK, [one, half])
    context = prepare(both, Context(stack=STACK, queries=9, keys=9, device=CPU))
    got = both.rotate_query(x, context.query_positions, context)
    alone = []
    for part in (one, half):
        context = prepare(part, Context(stack=STACK, queries=9, keys=9, device=CPU))
        x = part.rotate_query(x, context.query_positions, context)
        alone.append(x)
    same(got, x)
    assert far(alone[0], alone[1])


class Stretched(Rope):
    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_query(queries, positions / 4, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_key(keys, positions / 4, context)


class SetsPositions(Rope):
    def positions(self, context: Context) -> Tensor:
        return super().positions(context) / 4


@torch.no_grad()
def test_the_positions_given_are_used() -> None:
    tokens = tokens_of(2, 20)
    stretched, plain = model_with(Stretched).hidden(tokens), model_with(Rope).hidden(tokens)
    same(stretched, model_with(SetsPositions).hidden(tokens))
    assert far(stretched, plain)
    cache, model = DecodingCache(4), model_with(Stretched)
    same(torch.cat([model.hidden(tokens[:, n : n + 1], cache=cache) for n in range(20)], dim=1), stretched)


# Axes


class Plane(Encoding):
    """Two coordinates: minus the distance in the plane."""

    axes = 2

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        assert distances.shape[1:] == (2,)
        return -distances.double().norm(dim=-1)[None].expand(self.stack.heads, -1)


class PlainPlane(Encoding):
    axes = 2

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        at = context.key_positions.double()
        return -torch.cdist(at[:, context.offset :], at)[:, None].expand(-1, self.stack.heads, -1, -1)


@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa"])
@torch.no_grad()
def test_coordinates_of_the_batch_are_the_positions(backend: str) -> None:
    tokens = tokens_of(3, 12)
    grid = torch.stack(torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"), dim=-1).view(1, 12, 2)
    plain, model = (model_with(kind, "encoder", backend, axes=2) for kind in (PlainPlane, Plane))
    same(model.hidden(tokens, coordinates=grid), plain.hidden(tokens, coordinates=grid))
    scattered = torch.tensor([0, 5, 1, 7, 2, 9, 4, 3, 8, 6, 11, 10])
    assert far(model.hidden(tokens, coordinates=grid[:, scattered]), model.hidden(tokens, coordinates=grid))


@pytest.mark.parametrize("name", ["rope", "sinusoidal", "learned", "t5", "shaw", "nezha", "sinusoidal+rope"])
def test_more_coordinates_than_an_encoding_reads_are_refused(name: str) -> None:
    words = "it reads 1 coordinate of a position, and positions here have 2"
    assert words in str(registry.create(name, replace(STACK, axes=2)).why_not("softmax"))
    coordinates = torch.zeros(1, 9, 2, dtype=torch.long)
    with pytest.raises(NotPossibleError, match=words):
        model_with(name).hidden(tokens_of(1, 9), coordinates=coordinates)
    with pytest.raises(NotPossibleError, match="it reads 2 coordinates of a position, and positions here have 1"):
        model_with(Plane).hidden(tokens_of(1, 9))
    model_with("none").hidden(tokens_of(1, 9), coordinates=coordinates)
    with pytest.raises(NotPossibleError, match="the parts read 1 and 2 coordinates"):
        Composite(STACK, [Plane(STACK), Rope(STACK)])


def test_a_table_of_rows_refuses_positions_between_them() -> None:
    with pytest.raises(NotPossibleError, match="whole positions"):
        model_with("learned").hidden(tokens_of(1, 9), coordinates=torch.rand(1, 9, 1))


# Scores of one's own, changed scores


class Own(Encoding):
    """Half of what queries and keys have in common, and a change that mixes heads, over a bias by distance."""

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return table_of(context, 0)[:, distances + context.keys]

    def pair_scores(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return torch.minimum(queries[..., :, None, :], keys[..., None, :, :]).sum(-1)

    def change_scores(self, scores: Tensor, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        assert scores.shape[-2:] == context.visible.shape[-2:] and scores.isfinite().all()
        return scores + scores.flip(1).tanh() * (queries[..., :1] + keys[..., 0][..., None, :])

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        return weights.cumsum(-1)[..., -self.stack.head_width :]


def own_by_hand(q: Tensor, k: Tensor, v: Tensor, context: Context, scale: float) -> Tensor:
    count, out = context.keys, torch.zeros_like(v)
    bias = table_of(context, 0)
    for b in range(len(q)):
        scores = torch.zeros(2, count, count, dtype=torch.float64)
        for h in range(2):
            for i in range(count):
                for j in range(count):
                    scores[h, i, j] = scale * torch.minimum(q[b, h, i], k[b, h, j]).sum() + bias[h, j - i + count]
        for h in range(2):
            for i in range(count):
                seen = range(i + 1) if context.stack.causal else range(count)
                row = torch.stack(
                    [scores[h, i, j] + scores[1 - h, i, j].tanh() * (q[b, h, i, 0] + k[b, h, j, 0]) for j in seen]
                )
                weights = torch.zeros(count, dtype=torch.float64)
                weights[list(seen)] = row.softmax(0)
                out[b, h, i] = weights @ v[b, h] + weights.cumsum(0)[-v.shape[-1] :]
    return out


@FORMS
@torch.no_grad()
def test_own_scores_changed_scores_and_mixed_values_are_the_loops(form: str) -> None:
    model, x = model_with(Own, form), torch.randn(2, 10, 16, dtype=torch.float64)
    stack = model.get_submodule("decoder" if form == "decoder" else "encoder")
    encoding: Any = stack.encoding
    context = prepare(encoding, Context(stack=encoding.stack, queries=10, keys=10, device=CPU))
    module: Any = stack.get_submodule("layers.0.attention")
    q, k, v = (part(x).unflatten(-1, (2, 8)).transpose(1, 2) for part in (module.query, module.key, module.value))
    expected = module.out(own_by_hand(q, k, v, context, 8**-0.5).transpose(1, 2).flatten(2))
    same(module(x, encoding, context), expected)
    assert context.hidden is x


def test_own_and_changed_scores_leak_nothing_and_need_a_backend_that_shows_scores() -> None:
    tokens = tokens_of(2, 12)
    with torch.no_grad():
        model = model_with(Own, backend="auto")
        whole = model.hidden(tokens)
        for t in range(1, 12):
            other = tokens.clone()
            other[:, t] = (other[:, t] + 1) % VOCABULARY
            assert torch.equal(model.hidden(other)[:, :t], whole[:, :t])
        mask = torch.ones(2, 15, dtype=torch.bool)
        mask[:, :3] = False
        same(model.hidden(torch.nn.functional.pad(tokens, (3, 0)), mask=mask)[:, 3:], whole)
    for backend in ("sdpa", "blocks", "flex"):
        with pytest.raises(NotPossibleError, match=f"backend '{backend}' never shows attention weights, and it has sc"):
            model_with(Own, backend=backend).hidden(tokens)
    with pytest.raises(NotPossibleError, match="two of the composed encodings have scores of their own"):
        Composite(STACK, [Own(STACK), Own(STACK)])


# Windows, and layers that differ


class Windowed(Rope):
    def window(self, layer: int) -> int | None:
        return None if layer == 3 else 4


class PlainWindowed(Rope):
    """The same, hidden by a bias of pairs."""

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        index = torch.arange(context.keys)
        away = (index - index[context.offset :, None]).abs() >= 4
        return torch.zeros(1, 2, *away.shape, dtype=torch.float64).masked_fill(away & (context.layer != 3), -1e9)


CASES: dict[str, dict[str, Tensor]] = {
    "whole": {},
    "padded": {"mask": torch.arange(20) >= torch.tensor([[0], [6]])},
    "packed": {"segments": (torch.arange(20) >= torch.tensor([[9], [13]])).long()},
}


@FORMS
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "backend", ["auto", "reference", "sdpa", "blocks", pytest.param("flex", marks=pytest.mark.slow)]
)
@torch.no_grad()
def test_a_window_hides_what_is_further_back_in_every_backend(backend: str, case: str, form: str) -> None:
    given, tokens = CASES[case], tokens_of(2, 20)
    real = given.get("mask", torch.ones(2, 20, dtype=torch.bool))
    expected = model_with(PlainWindowed, form).hidden(tokens, **given)
    same(model_with(Windowed, form, backend).hidden(tokens, **given)[real], expected[real])
    if case == "whole":
        assert far(expected, model_with(Rope, form).hidden(tokens))
    if form == "decoder" and case != "packed":
        cache, model = DecodingCache(4), model_with(Windowed, form, backend)
        mask = given.get("mask")
        steps = [
            model.hidden(tokens[:, n : n + 1], mask=None if mask is None else mask[:, : n + 1], cache=cache)
            for n in range(20)
        ]
        same(torch.cat(steps, dim=1)[real], expected[real])


class Some(Rope):
    """RoPE in all layers but the second and the fourth; there a bias of its own."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.shaw = registry.create("shaw(clip=3)", replace(stack, layers=2))

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return queries if context.layer % 2 else super().rotate_query(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return keys if context.layer % 2 else super().rotate_key(keys, positions, context)

    def _asked(self, hook: str, first: Tensor, context: Context, *given: Any) -> Tensor:
        if not context.layer % 2:
            return torch.zeros(())
        own = replace(context, layer=context.layer // 2, cache={})
        own.key_positions, own.query_positions = context.key_positions, context.query_positions
        out: Tensor = getattr(self.shaw, hook)(first, *given, own)
        return out

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return (
            self._asked("score_bias", queries, context, keys).expand(1, 2, context.queries, context.keys)
            if (not context.layer % 2)
            else self._asked("score_bias", queries, context, keys)
        )

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        return self._asked("mix_values", weights, context)


@FORMS
@pytest.mark.parametrize("outside", ["", "sinusoidal+"])
@torch.no_grad()
def test_layers_have_the_encoding_written_for_them(outside: str, form: str) -> None:
    tokens = tokens_of(2, 20)
    model, by_hand = model_with(f"{outside}layers(rope, shaw(clip=3), every=2)", form), model_with(Some, form)
    (name, stack), (_, plain) = model.stacks[0], by_hand.stacks[0]
    owned = dict(stack.encoding.named_parameters())
    assert {tuple(p.shape) for p in owned.values()} == {(2, 7, 8)}, f"tables for two layers in {name}"
    for key, parameter in plain.encoding.named_parameters():
        parameter.copy_(next(value for other, value in owned.items() if other.endswith(key.rpartition(".")[2])))
    if outside:
        sums = [registry.create("sinusoidal", plain.encoding.stack), plain.encoding]
        plain.encoding = Composite(plain.encoding.stack, sums)
    same(model.hidden(tokens), by_hand.hidden(tokens))
    assert far(model.hidden(tokens), model_with(f"{outside}rope", form).hidden(tokens))


@torch.no_grad()
def test_a_window_of_layers_is_the_first_encodings_alone() -> None:
    tokens = tokens_of(2, 20)
    same(
        model_with("layers(rope, rope, every=4, window=4)", backend="blocks").hidden(tokens),
        model_with(Windowed).hidden(tokens),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layers(rope, none, every=5)", "every=5 of 4 layers"),
        ("layers(sinusoidal, none)", r"one of layers\(...\) enters embeddings, which serves all layers: use \+"),
        ("layers(rope, layers(rope, none, every=2), every=2)", r"layers\(...\) inside layers"),
    ],
)
def test_layers_that_cannot_be_are_refused(text: str, words: str) -> None:
    with pytest.raises(NotPossibleError, match=words):
        registry.create(text, STACK)


def test_layers_in_a_performer() -> None:
    made = registry.create("layers(rope, none, every=2)", STACK)
    assert made.linear_form == "inside" and made.why_not("performer") is None
    assert registry.create("layers(rope, kerple, every=2)", STACK).why_not("performer")
    assert registry.create("layers(rope, t5, every=2)", STACK).why_not("performer") is None  # each layer its own form
    windowed = registry.create("layers(rope, none, every=2, window=8)", STACK)
    assert windowed.why_not("performer") == "not built: a sliding window in linear attention"
    config = BackboneConfig(layers=4, width=16, heads=2, feedforward=24, attention="performer", features=8)
    outputs = {}
    for name in ("layers(rope, none, every=4)", "rope", "none"):
        model = Transformer(config, name, 64).initialise(3).double().eval()
        with torch.no_grad():
            outputs[name] = model.hidden(tokens_of(1, 20))
    assert far(outputs["layers(rope, none, every=4)"], outputs["rope"])
    assert far(outputs["layers(rope, none, every=4)"], outputs["none"])


def test_biases_that_a_kernel_rounds_are_said() -> None:
    config = BackboneConfig(layers=4, width=16, heads=2, feedforward=24)

    def taken(name: str, device: str, precision: str, asked: str = "auto") -> str:
        return backend_taken(config, name, 64, asked, device, precision=precision)

    assert taken("t5", "cuda", "bfloat16") == "sdpa (biases in bfloat16)"
    assert taken("t5", "cuda", "float32") == "sdpa" and taken("rope", "cuda", "bfloat16") == "sdpa"
    assert taken("t5", "cpu", "bfloat16") == "blocks" and taken("t5", "cuda", "bfloat16", "flex") == "flex"
    assert taken("layers(rope, t5, every=4)", "cuda", "bfloat16") == "sdpa+sdpa (biases in bfloat16)"


@pytest.mark.parametrize("backend", ["reference", "blocks"])
@torch.no_grad()
def test_biases_stay_in_float32_beside_activations_in_bfloat16(backend: str) -> None:
    """A bias that bfloat16 cannot tell from none changes the scores all the same."""

    class Fine(Encoding):
        def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
            return (256.0 + distances.float() / 4)[None].expand(self.stack.heads, -1)

    x = torch.zeros(1, 2, 9, 8, dtype=torch.bfloat16)
    values = torch.eye(9, 8, dtype=torch.bfloat16).expand(1, 2, 9, 8)
    stack = replace(STACK, causal=False)
    context = prepare(Fine(stack), Context(stack=stack, queries=9, keys=9, device=CPU))
    got = softmax_attention(
        x, x, values, backend=backend, scale=1.0, causal=False, encoding=Fine(stack), context=context
    )
    expected = (torch.arange(9) / 4).softmax(0)
    torch.testing.assert_close(got[0, 0, 0].float(), expected[:8], atol=2e-3, rtol=0)
