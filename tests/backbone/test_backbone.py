"""The transformer: alike for every encoding; gradients, counts, state; what it refuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from models import (
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
from torch import Tensor
from torch.nn import functional

from posenc.api import registry
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
    for _ in range(2):  # features are drawn anew at the third step
        torch.manual_seed(5)
        model = model_of(name, attention=attention, dropout=0.1, redraw=2).train()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        for step in range(3):
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


# Gradients, counts, shapes


@every(*FORMS)
def test_gradients_reach_every_parameter(attention: str, name: str, form: str) -> None:
    _gradients_reach_every_parameter(attention, name, form, "pre")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_gradients_reach_every_parameter_between_norms_that_stand_behind(attention: str, form: str) -> None:
    """Where norms stand is nothing to an encoding."""
    _gradients_reach_every_parameter(attention, "t5", form, "post")


def _gradients_reach_every_parameter(attention: str, name: str, form: str, norm: str) -> None:
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
    ("name", "reason"), [("kerple", "not built"), ("nezha", "not built"), ("shaw+rope", "several ways")]
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


@pytest.mark.parametrize("form", ["encoder", "decoder"])
def test_a_norm_of_the_embeddings_stands_behind_what_an_encoding_adds(form: str) -> None:
    shape = {"layers": 1, "width": 16, "heads": 2, "feedforward": 16, "vocabulary": 20, "form": form, "norm": "post"}
    plain, normed = (Transformer(BackboneConfig(**shape, embedding_norm=on), "learned", 8) for on in (False, True))
    for model in (plain, normed):
        model.initialise(3).double().eval()
    weights = normed.state_dict()
    assert {name: weights.pop(f"{form}.embedding_norm.{name}").tolist() for name in ("weight", "bias")} == {
        "weight": [1.0] * 16, "bias": [0.0] * 16,
    }  # fmt: skip
    assert all(weights[name].equal(value) for name, value in plain.state_dict().items()), "drawn as without it"
    tokens = torch.arange(8)[None] % 5
    stack, (encoding,) = plain.get_submodule(form), plain.encodings()
    entering = torch.nn.functional.layer_norm(plain.embed(tokens) + encoding.table * 4, (16,))
    seen: list[torch.Tensor] = []
    stack.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    normed.get_submodule(form).layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    plain.hidden(tokens)
    normed.hidden(tokens)
    torch.testing.assert_close(seen[1], entering, atol=1e-12, rtol=0)
    assert not torch.allclose(seen[0], seen[1])
