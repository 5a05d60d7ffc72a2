"""The transformer: alike for every encoding, causal, blind to padding, the same with a cache, as torch's own layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import (
    CACHED,
    EVERY,
    FORMS,
    SOFTMAX,
    STACK,
    VOCABULARY,
    answer,
    built_in,
    every,
    exact,
    model_of,
    served,
    serves,
    tokens_of,
)  # fmt: skip
from torch import Tensor, nn
from torch.nn import functional

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.attention.kernel import DecodingCache
from posenc.backbone import cost
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer, is_positional
from posenc.common.errors import ConfigError, NotPossibleError
from posenc.common.seeds import derive

pytestmark = pytest.mark.usefixtures("one_thread")


# Alike for every encoding


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_what_is_not_positional_starts_the_same_to_the_bit_under_every_encoding(attention: str, form: str) -> None:
    starts = []
    for name in filter(partial(serves, form=form), built_in(attention)):
        torch.manual_seed(len(starts))  # the global state plays no part
        model = model_of(name, attention=attention, form=form, tied=False)
        own = {key: value for key, value in model.named_parameters() if not is_positional(key)}
        own |= {key: value for key, value in model.named_buffers() if not is_positional(key)}
        starts.append(own)
    for other in starts[1:]:
        assert other.keys() == starts[0].keys()
        for key, value in other.items():
            assert torch.equal(value, starts[0][key]), key


@EVERY
def test_another_seed_starts_another_model(attention: str, name: str) -> None:
    first, second = (dict(model_of(name, attention=attention, seed=seed).state_dict()) for seed in (1, 2))
    for key, value in first.items():
        if value.dim() > 1 and value.unique().numel() > 1:  # what is drawn
            assert not torch.equal(value, second[key]), key
    again = model_of(name, attention=attention, seed=1).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_no_two_parameters_start_alike() -> None:
    model = model_of("shaw", form="encoder-decoder", tied=False)
    seen = [p.flatten()[:8].tolist() for p in model.parameters() if p.dim() > 1]
    assert len({tuple(row) for row in seen}) == len(seen)


def test_parameters_are_drawn_by_their_own_names_whatever_else_the_model_has() -> None:
    small = model_of("none", layers=1).state_dict()
    for more in (model_of("learned", layers=3), model_of("none", form="encoder-decoder", tied=False)):
        state = more.state_dict()
        for key, value in small.items():
            assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_norms_start_as_the_identity_biases_at_0_and_matrices_by_glorots_rule(norm: str) -> None:
    model = model_of("t5", form="encoder-decoder", norm=norm, tied=False, width=64, feedforward=192)
    for key, value in model.named_parameters():
        if is_positional(key):
            continue
        if value.dim() == 1:
            assert torch.equal(value, torch.full_like(value, 1.0 if "norm.weight" in key else 0.0)), key
        elif key != "embedding.weight":
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.9 * bound < value.abs().max().item() <= bound, key
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.1), key


def test_dropout_on_embeddings_falls_on_tokens_and_positions_together() -> None:
    model = model_of("sinusoidal", dropout=0.5, width=64).train()
    seen: list[Tensor] = []
    model.get_submodule("decoder").layers[0].register_forward_pre_hook(  # type: ignore[union-attr]
        lambda module, arguments: seen.append(arguments[0])
    )
    model(tokens_of(2, 20))
    assert 0.4 < (seen[0] == 0).float().mean().item() < 0.6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_dropout_masks_are_the_same_under_every_encoding(
    attention: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mask that is drawn, on activations and weights, and the global state at the end."""
    drawn: list[Tensor] = []
    drop = functional.dropout

    def watched(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p:
            state = torch.get_rng_state()
            drawn.append(drop(torch.ones_like(x), p, True) == 0)
            torch.set_rng_state(state)
        return drop(x, p, training, inplace)

    monkeypatch.setattr(functional, "dropout", watched)
    runs = []
    for name in filter(partial(serves, form=form), built_in(attention)):
        torch.manual_seed(11)
        more = {"attention_dropout": 0.2} if attention == "softmax" else {}
        model = model_of(name, attention=attention, form=form, dropout=0.1, **more).train()
        drawn.clear()
        model.begin_step(3, 4)
        answer(model, tokens_of(2, 9)).sum().backward()
        runs.append(([*drawn], torch.get_rng_state()))
    layers = 2
    dropped = {"decoder": 1 + 2 * layers, "encoder": 1 + 2 * layers, "encoder-decoder": 2 + 5 * layers}[form]
    weights = {"decoder": layers, "encoder": layers, "encoder-decoder": 3 * layers}[form]
    assert len(runs[0][0]) == dropped + (weights if attention == "softmax" else 0)
    assert all(mask.any() for mask in runs[0][0])
    for masks, state in runs[1:]:
        assert len(masks) == len(runs[0][0])
        assert all(torch.equal(x, y) for x, y in zip(masks, runs[0][0], strict=True))
        assert torch.equal(state, runs[0][1])


@SOFTMAX
def test_without_dropout_training_draws_nothing_from_the_global_state(name: str) -> None:
    model = model_of(name).train()
    before = torch.get_rng_state()
    model.begin_step(3, 4)
    model(tokens_of(2, 9)).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_the_same_thing_twice_gives_the_same_bits(attention: str, name: str) -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        model = model_of(name, attention=attention, dropout=0.1, redraw=2).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for step in range(4):
            torch.manual_seed(derive(0, "dropout", step))
            model.begin_step(7, step)
            logits = model(tokens_of(2, 17, seed=step))
            loss = functional.cross_entropy(logits.flatten(0, 1), tokens_of(2, 17, seed=step + 50).flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        runs.append((loss, [p.detach().clone() for p in model.parameters()]))
    assert torch.equal(runs[0][0], runs[1][0])
    assert all(torch.equal(p, q) for p, q in zip(runs[0][1], runs[1][1], strict=True))


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive(seed, *purpose) for seed in (0, 1, 10) for purpose in [(), ("a",), ("b",), ("a", 1), ("a", 10)]}
    assert len(seeds) == 15
    assert all(0 <= seed < 2**63 for seed in seeds)


# Causality


MODELS: dict[Any, Transformer] = {}


def kept(build: Callable[[], Transformer], *key: Any) -> Transformer:
    """Models that several examples of hypothesis share."""
    if key not in MODELS:
        MODELS[key] = build()
    return MODELS[key]


@EVERY
@settings(max_examples=12)
@given(t=st.integers(1, 22), seed=st.integers(0, 1000), whole=st.booleans())
def test_changing_token_t_changes_no_output_before_t_in_the_last_bit(
    attention: str, name: str, t: int, seed: int, whole: bool
) -> None:
    model = kept(lambda: exact(name, attention=attention), "causal", attention, name)
    tokens = tokens_of(2, 23, seed=seed)
    other = tokens.clone()
    changed = slice(t, None) if whole else slice(t, t + 1)
    other[:, changed] = (other[:, changed] + 1 + seed % (VOCABULARY - 1)) % VOCABULARY
    before, after = model(tokens), model(other)
    assert torch.equal(before[:, :t], after[:, :t])
    assert not torch.equal(before[:, t], after[:, t])


@EVERY
def test_causality_holds_in_a_long_row_and_beside_an_encoder(attention: str, name: str) -> None:
    """Long enough for several blocks of torch's kernel and many chunks; both norms; and with padding."""
    long = exact(name, attention=attention, max_length=600, norm="post", layers=1, chunk=64)
    tokens = tokens_of(1, 600)
    other = tokens.clone()
    other[:, 530:] = (other[:, 530:] + 3) % VOCABULARY
    assert torch.equal(long(tokens)[:, :530], long(other)[:, :530])
    if not serves(name, "encoder-decoder"):
        return
    both = exact(name, attention=attention, form="encoder-decoder")
    mask = torch.tensor([[0, 0] + [1] * 11, [1] * 13]).bool()
    targets = tokens_of(2, 13)
    changed = targets.clone()
    changed[:, 8:] = (changed[:, 8:] + 3) % VOCABULARY
    before, after = (answer(both, x, targets_mask=mask) for x in (targets, changed))
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


@every("encoder")
def test_an_encoder_sees_both_ways(attention: str, name: str) -> None:
    model = exact(name, attention=attention, form="encoder")
    tokens = tokens_of(1, 9)
    other = tokens.clone()
    other[:, 8] = (other[:, 8] + 1) % VOCABULARY
    assert not torch.equal(model(tokens)[:, 0], model(other)[:, 0])


@every("encoder")
def test_an_encoder_tells_order_exactly_where_its_encoding_says_so(attention: str, name: str) -> None:
    model = exact(name, attention=attention, form="encoder")
    tokens = torch.arange(9)[None]
    order = torch.tensor([3, 1, 0, 2, 8, 5, 6, 7, 4])
    gap = (model(tokens[:, order]) - model(tokens)[:, order]).abs().max().item()
    assert gap > 1e-3 if model.encodings()[0].tells_order else gap < 1e-10


# Padding


@every("decoder", "encoder")
def test_padding_left_or_right_changes_no_real_output(attention: str, name: str, form: str) -> None:
    model = exact(name, attention=attention, form=form, larger=1.5)
    lengths = (11, 6, 1)
    rows = [tokens_of(1, length, seed=length) for length in lengths]
    alone = [model(row)[0] for row in rows]
    for left in (False, True):
        places = [slice(13 - n, 13) if left else slice(0, n) for n in lengths]
        mask = torch.zeros(3, 13).bool()
        outputs = []
        for filler in (0, 7):
            padded = torch.full((3, 13), filler)
            for b, place in enumerate(places):
                padded[b, place], mask[b, place] = rows[b][0], True
            outputs.append(model(padded, mask=mask))
        assert outputs[0].isfinite().all()
        assert torch.equal(outputs[0][mask], outputs[1][mask]), "what stands at padding is never looked at"
        for b, place in enumerate(places):
            torch.testing.assert_close(outputs[0][b, place], alone[b], atol=1e-12, rtol=1e-12)


@every("encoder-decoder")
def test_padding_of_source_and_targets_changes_no_real_output_of_an_encoder_decoder(attention: str, name: str) -> None:
    model = exact(name, attention=attention, form="encoder-decoder", larger=1.5)
    source, targets = tokens_of(1, 6), tokens_of(1, 5, seed=2)
    alone = model(source, targets)
    assert alone.shape == (1, 5, VOCABULARY)
    for sides in ((3, 0), (0, 3), (1, 2)):
        mask = functional.pad(torch.ones(1, 6).bool(), sides, value=False)
        targets_mask = functional.pad(torch.ones(1, 5).bool(), sides, value=False)
        outputs = [
            model(
                functional.pad(source, sides, value=filler),
                functional.pad(targets, sides, value=filler),
                mask=mask,
                targets_mask=targets_mask,
            )[:, sides[0] : sides[0] + 5]
            for filler in (0, 7)
        ]
        assert torch.equal(*outputs)
        torch.testing.assert_close(outputs[0], alone, atol=1e-12, rtol=1e-12)


@EVERY
def test_gradients_with_padding_are_those_without(attention: str, name: str) -> None:
    tokens, gradients = tokens_of(1, 7), []
    for sides in ((0, 0), (4, 0), (0, 4)):
        model = exact(name, attention=attention, larger=1.0)
        mask = functional.pad(torch.ones(1, 7).bool(), sides, value=False)
        model(functional.pad(tokens, sides, value=3), mask=mask)[mask].square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for other in gradients[1:]:
        for got, expected in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)


# Cached decoding


@pytest.mark.parametrize("name", CACHED)
@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 17), max_size=6, unique=True), left=st.integers(0, 4))
def test_cached_decoding_is_the_uncached_however_the_row_is_cut(name: str, cuts: list[int], left: int) -> None:
    model = kept(lambda: exact(name), "cached", name)
    tokens, mask = tokens_of(2, 18), torch.ones(2, 18).bool()
    mask[1, :left] = False
    given_mask = mask if left else None
    expected = model(tokens, mask=given_mask)
    cache, parts = DecodingCache(2), []
    edges = [0, *sorted(cuts), 18]
    for start, end in pairwise(edges):
        parts.append(model(tokens[:, start:end], mask=mask[:, :end] if left else None, cache=cache))
    assert cache.length == 18
    torch.testing.assert_close(torch.cat(parts, 1)[mask], expected[mask], atol=1e-11, rtol=0)


@pytest.mark.parametrize("name", [name for name in CACHED if serves(name, "encoder-decoder")])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cached_decoding_token_by_token_is_the_uncached_beside_an_encoder(name: str, norm: str) -> None:
    model = exact(name, form="encoder-decoder", norm=norm)
    source, targets = tokens_of(2, 6), tokens_of(2, 10, seed=2)
    expected = model(source, targets)
    cache, memory = DecodingCache(2), model.hidden(source)
    steps = [model.logits(model.decode(targets[:, t : t + 1], memory, cache=cache)) for t in range(10)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-11, rtol=0)


class Everywhere(Encoding):
    """Enters at every hook, from positions, raw queries, raw keys and the layer: nothing may be given wrongly."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return embeddings + 0.1 * positions

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return queries * (1 + 0.2 * positions[:, None])

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return keys * (1 + 0.3 * positions[:, None].double().cos())

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        assert queries.shape[2] == context.queries and keys.shape[2] == context.keys
        far = context.query_positions - context.key_positions[..., 0][:, None]
        return torch.sin(queries) @ keys.transpose(-1, -2) * 0.1 * (1 + context.layer) + far[:, None] * 0.05

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        return (weights @ context.key_positions[:, None].double()).expand(-1, -1, -1, self.stack.head_width)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry._registered, "everywhere", (Everywhere, __file__))
    return "everywhere"


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("part", ["{}", "t5+{}", "{}+rope"])
def test_every_hook_gets_in_cached_decoding_what_it_gets_in_one_pass(everywhere: str, part: str, left: int) -> None:
    model, tokens, mask = exact(part.format(everywhere), larger=1.2), tokens_of(2, 11), torch.ones(2, 11).bool()
    mask[1, :left] = False
    expected = model(tokens, mask=mask if left else None)
    cache, parts = DecodingCache(2), []
    for start, end in pairwise([0, 4, 5, 6, 9, 11]):
        parts.append(model(tokens[:, start:end], mask=mask[:, :end] if left else None, cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1)[mask], expected[mask], atol=1e-10, rtol=0)


@pytest.mark.parametrize("form", ["decoder", "encoder"])
def test_every_hook_gets_in_packed_and_padded_rows_what_it_gets_alone(everywhere: str, form: str) -> None:
    model, tokens = exact(everywhere, form=form, larger=1.2), tokens_of(1, 12)
    mask = torch.tensor([[0] * 2 + [1] * 9 + [0]]).bool()
    packed = model(tokens, mask=mask, segments=torch.tensor([[0] * 2 + [0] * 4 + [1] * 5 + [1]]))
    for place in (slice(2, 6), slice(6, 11)):
        torch.testing.assert_close(packed[:, place], model(tokens[:, place]), atol=1e-10, rtol=0)


def test_a_cache_ends_where_a_learned_table_ends() -> None:
    model, cache = model_of("learned", max_length=4), DecodingCache(2)
    model(tokens_of(1, 4), cache=cache)
    with pytest.raises(NotPossibleError, match=r"4 positions.*5"):
        model(tokens_of(1, 1), cache=cache)


def test_a_performer_and_an_encoder_refuse_what_is_not_built() -> None:
    with pytest.raises(NotPossibleError, match="not built"):
        model_of(attention="performer")(tokens_of(1, 4), cache=DecodingCache(2))
    with pytest.raises(NotPossibleError, match="not built"):
        model_of(attention="performer")(tokens_of(1, 4), segments=torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(NotPossibleError, match="encoder"):
        model_of(form="encoder")(tokens_of(1, 4), cache=DecodingCache(2))
    with pytest.raises(NotPossibleError, match="targets"):
        model_of(form="encoder-decoder")(tokens_of(1, 4))


@pytest.mark.parametrize(
    ("name", "cached"),
    [
        (name, cached)
        for name, _ in served("softmax", "encoder-decoder")
        for cached in (False, *([True] if name in CACHED else []))
    ],
)
def test_packed_rows_of_an_encoder_decoder_are_kept_apart(name: str, cached: bool) -> None:
    """Two pairs in one row, in one pass or token by token; the targets' row has an end that no source belongs to."""
    model = exact(name, form="encoder-decoder", larger=1.5)
    source, targets = tokens_of(1, 8), tokens_of(1, 9, seed=2)
    segments, of_targets = torch.tensor([[0] * 5 + [1] * 3]), torch.tensor([[0] * 2 + [1] * 5 + [2] * 2])
    mask = torch.tensor([[1] * 5 + [1] * 2 + [0]]).bool()
    if cached:
        memory, cache, parts = model.hidden(source, segments=segments, mask=mask), DecodingCache(2), []
        for end in range(1, 10):
            own = {"segments": of_targets[:, :end], "memory_segments": segments, "memory_mask": mask, "cache": cache}
            parts.append(model.logits(model.decode(targets[:, end - 1 : end], memory, **own)))
        packed = torch.cat(parts, 1)
    else:
        packed = model(source, targets, segments=segments, targets_segments=of_targets, mask=mask)
    for places, of_source in ((slice(0, 2), slice(0, 5)), (slice(2, 7), slice(5, 7))):
        alone = model(source[:, of_source], targets[:, places])
        torch.testing.assert_close(packed[:, places], alone, atol=1e-11, rtol=0)
    assert packed.isfinite().all()


def test_packed_rows_of_one_side_alone_are_refused() -> None:
    model, segments = exact("rope", form="encoder-decoder"), torch.tensor([[0, 0, 1, 1]])
    for side in ("segments", "targets_segments"):
        with pytest.raises(NotPossibleError, match="packed"):
            model(tokens_of(1, 4), tokens_of(1, 4), **{side: segments})


# Torch's own layers as a second derivation


def copy_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    parts = [ours.get_submodule(name) for name in ("query", "key", "value")]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.get_parameter("weight") for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.get_parameter("bias") for part in parts]))
    theirs.out_proj.load_state_dict(ours.get_submodule("out").state_dict())


def torchs_layer(layer: nn.Module, config: BackboneConfig, cross: bool) -> nn.Module:
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    theirs = kind(
        config.width,
        config.heads,
        config.feedforward,
        dropout=0.0,
        activation=config.activation,
        batch_first=True,
        norm_first=config.norm == "pre",
        dtype=torch.float64,
    )
    copy_attention(theirs.self_attn, layer.get_submodule("attention"))
    names = [("linear1", "feedforward.inner"), ("linear2", "feedforward.outer"), ("norm1", "attention_norm")]
    if cross:
        copy_attention(theirs.multihead_attn, layer.get_submodule("cross_attention"))  # type: ignore[arg-type]
        names += [("norm2", "cross_norm"), ("norm3", "feedforward_norm")]
    else:
        names += [("norm2", "feedforward_norm")]
    for their_name, our_name in names:
        theirs.get_submodule(their_name).load_state_dict(layer.get_submodule(our_name).state_dict())
    return theirs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_backbone_without_an_encoding_is_torchs_own_layers(
    form: str, norm: str, activation: str, tied: bool
) -> None:
    model = exact("none", form=form, norm=norm, activation=activation, tied=tied)
    source, targets = tokens_of(2, 6), tokens_of(2, 5, seed=2)
    scale = 16**0.5

    def run(name: str, x: Tensor, memory: Tensor | None = None) -> Tensor:
        stack = model.get_submodule(name)
        ahead = torch.ones(x.shape[1], x.shape[1]).triu(1).bool() if name == "decoder" else None
        for layer in stack.layers:  # type: ignore[union-attr]
            theirs = torchs_layer(layer, model.config, memory is not None)
            x = theirs(x, memory, tgt_mask=ahead) if memory is not None else theirs(x, src_mask=ahead)
        if norm == "post":
            return x
        final = stack.get_submodule("final_norm")
        return functional.layer_norm(x, (16,), final.get_parameter("weight"), final.get_parameter("bias"))

    table = model.embedding.weight
    if form == "encoder-decoder":
        expected = run("decoder", scale * table[targets], run("encoder", scale * table[source]))
        got = model(source, targets)
    else:
        expected, got = run(form, scale * table[source]), model(source)
    expected = expected @ (table if tied else model.output.weight).T
    torch.testing.assert_close(got, expected, atol=1e-11, rtol=1e-11)


def test_tokens_enter_with_a_root_mean_square_of_1_whatever_the_width() -> None:
    for width in (16, 64):
        x = model_of(width=width, vocabulary=2000).embed(torch.arange(2000))
        assert x.square().mean().sqrt().item() == pytest.approx(1, abs=0.02)


# Gradients, counts, shapes


@every(*FORMS)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_gradients_reach_every_parameter(attention: str, name: str, form: str, norm: str) -> None:
    model = exact(name, attention=attention, form=form, norm=norm, larger=1.0, tied=False)
    logits = answer(model, tokens_of(2, 20))
    functional.cross_entropy(logits.flatten(0, 1), tokens_of(2, 20, seed=3).flatten()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if attention == "softmax" and key.endswith(("attention.key.bias", "outer_bias", "second_bias")):
            continue  # softmax is blind to what is added to all scores of a query, unless the key is rotated
        assert parameter.grad.abs().max() > 1e-12, key


def test_gradients_reach_the_tables_of_every_layer() -> None:
    model = exact("shaw", layers=3, larger=1.0)
    model(tokens_of(2, 20)).square().sum().backward()
    encoding = model.encodings()[0]
    for name in ("key_tables", "value_tables"):
        gradient = encoding.get_parameter(name).grad
        assert gradient is not None and (gradient.abs().amax((1, 2)) > 1e-9).all()


@pytest.mark.parametrize(("name", "form"), served("softmax", *FORMS))
def test_parameters_are_as_many_as_the_formulas_say(name: str, form: str) -> None:
    d, f, layers = 16, 24, 2
    self_attention = 4 * (d * d + d)
    layer = self_attention + (d * f + f + f * d + d) + 2 * 2 * d
    cross = self_attention + 2 * d
    per_stack = layers * layer + 2 * d
    total = VOCABULARY * d + per_stack * (2 if form == "encoder-decoder" else 1)
    total += layers * cross if form == "encoder-decoder" else 0
    own = sum(parameter.numel() for parameter in registry.create(name, STACK).parameters())  # its own test says which
    positional = own * (2 if form == "encoder-decoder" else 1)
    assert model_of(name, form=form).count_parameters() == {"total": total + positional, "positional": positional}
    untied = model_of(name, form=form, tied=False).count_parameters()
    assert untied["total"] == total + positional + VOCABULARY * d
    post = model_of(name, form=form, norm="post").count_parameters()["total"]
    assert post == total + positional - 2 * d * (2 if form == "encoder-decoder" else 1)


@EVERY
def test_autocast_to_bf16_stays_near_float32(attention: str, name: str) -> None:
    model = model_of(name, attention=attention)
    tokens = tokens_of(2, 20)
    plain = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(tokens)
    low.float().square().mean().backward()
    assert (low.float() - plain).abs().max() < 0.05 * plain.abs().max()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# State


@EVERY
def test_a_loaded_state_answers_as_the_saved_one(attention: str, name: str) -> None:
    first = model_of(name, attention=attention, seed=1, redraw=10).begin_step(1, 25)
    state = first.state_dict()
    assert not any("projection" in key for key in state), "features follow from the seed"
    second = model_of(name, attention=attention, seed=2, redraw=10)
    assert not torch.equal(first(tokens_of(1, 9)), second(tokens_of(1, 9)))
    second.load_state_dict(state)
    second.begin_step(1, 25)
    assert torch.equal(first(tokens_of(1, 9)), second(tokens_of(1, 9)))


# What cannot be


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", 0),
        ("heads", 0),
        ("width", 0),
        ("width", 15),
        ("feedforward", 0),
        ("vocabulary", 0),
        ("features", 0),
        ("chunk", 0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("attention_dropout", 1.5),
        ("redraw", -1),
    ],
)
def test_a_config_without_meaning_is_refused_with_its_key_and_value(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"backbone\.{key} = {value}"):
        model_of(**{key: value})


def test_a_performer_refuses_dropout_on_weights_it_does_not_have() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.attention_dropout"):
        model_of(attention="performer", attention_dropout=0.1)


@pytest.mark.parametrize(
    ("name", "reason"), [("kerple", "not built"), ("shaw", "not built"), ("t5+rope", "several ways")]
)
def test_what_a_performer_cannot_take_is_refused_before_anything_runs(name: str, reason: str) -> None:
    with pytest.raises(NotPossibleError, match=reason):
        model_of(name, attention="performer")


def test_softmax_refuses_rope_outside_before_anything_runs() -> None:
    with pytest.raises(NotPossibleError, match=r"not possible.*19"):
        model_of("rope_outside")


@pytest.mark.parametrize(("name", "features"), [("rope_outside", 13), ("rope_outside(fraction=0.5)", 10)])
def test_features_that_cannot_be_turned_by_pairs_are_refused_before_anything_runs(name: str, features: int) -> None:
    with pytest.raises((NotPossibleError, ConfigError), match=str(features)):
        model_of(name, attention="performer", features=features)


def test_rope_outside_takes_any_width_of_head_since_it_turns_features() -> None:
    model_of("rope_outside", attention="performer", width=15, heads=3)(tokens_of(1, 4))


@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_learned_beyond_its_table_is_refused(attention: str) -> None:
    with pytest.raises(NotPossibleError, match=r"8 positions.*9"):
        model_of("learned", attention=attention, max_length=8)(tokens_of(1, 9))


@EVERY
def test_lengths_other_than_the_trained_one_are_answered_or_refused(attention: str, name: str) -> None:
    model = model_of(name, attention=attention, max_length=16)
    for length in (1, 3, 16, 50):
        if any(encoding.why_not_at(length) for encoding in model.encodings()):
            with pytest.raises(NotPossibleError):
                model(tokens_of(1, length))
        else:
            assert model(tokens_of(1, length)).isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"attention_dropout": 0.1}, {"attention": "performer"}])
def test_a_source_that_is_nothing_but_padding_gives_numbers_and_spoils_no_other_row(changes: dict[str, Any]) -> None:
    model = exact(form="encoder-decoder", **changes)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    out = model(tokens_of(2, 4), tokens_of(2, 5, seed=2), mask=mask)
    assert out.isfinite().all()
    out[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_built_in_encodings_work_can_be_counted(name: str, attention: str) -> None:
    """On tensors without memory, in each direction that it is defined for: what a plan does."""
    if registry.load(name).axes not in (None, 1):
        return  # no task's positions have several axes yet
    for form in (form for form in ("decoder", "encoder") if serves(name, form)):
        config = BackboneConfig(
            form=form, layers=2, width=16, heads=2, feedforward=24, vocabulary=20, attention=attention, features=12
        )
        if registry.create(name, config.stack(64, causal=form == "decoder")).why_not(attention) is None:
            assert cost.count(config, name, 8, 64)[1] > 0
