"""What heads do with position: held to what the definitions of encodings say, and to the weights of the backends."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from posenc.attention.softmax.reference import watched
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import NotPossibleError
from posenc.encodings.alibi import slopes
from posenc.properties.anatomy import Anatomy, diagonals, look
from posenc.properties.sensitivity import EDITS, edited, sensitivity
from posenc.properties.similarity import similarity

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 24
TOKENS = torch.randint(32, (3, LENGTH), generator=torch.Generator().manual_seed(7))


def model(encoding: str, form: str = "decoder", attention: str = "softmax", backend: str = "auto") -> Transformer:
    shape = BackboneConfig(
        form=form, vocabulary=32, layers=2, width=64, heads=4, feedforward=64, features=32, attention=attention
    )  # type: ignore[arg-type]
    return Transformer(shape, encoding, LENGTH, backend).initialise(3).double().eval()


def lines(found: Anatomy) -> Tensor:
    assert found.score is not None
    return found.score


def test_diagonals_are_summed_by_distance() -> None:
    table = torch.arange(12.0).view(3, 4)
    expected = [sum(table[i, j].item() for i in range(3) for j in range(4) if i - j == n) for n in range(-3, 3)]
    assert diagonals(table).tolist() == expected


@pytest.mark.parametrize("form", ["decoder", "encoder"])
@pytest.mark.parametrize("encoding", ["none", "shaw", "alibi", "rope", "dape(bias=kerple)"])
def test_its_maps_are_the_weights_that_attention_has(encoding: str, form: str) -> None:
    found = look(model(encoding, form), TOKENS)
    with watched() as weights:
        model(encoding, form, backend="reference").hidden(TOKENS[:1])
    torch.testing.assert_close(found.maps, torch.cat(weights).detach(), atol=1e-12, rtol=0)
    index = torch.arange(LENGTH)
    away = (found.maps * (index[:, None] - index).abs()).sum(-1).mean(-1)
    alone = look(model(encoding, form), TOKENS[:1])
    torch.testing.assert_close(alone.mean_distance, away)
    torch.testing.assert_close(alone.first_token, found.maps[:, :, 1:, 0].mean(-1))


@pytest.mark.parametrize("form", ["decoder", "encoder"])
@pytest.mark.parametrize("encoding", ["none", "rope", "alibi", "shaw"])
def test_a_performers_implied_weights_give_its_output(encoding: str, form: str) -> None:
    made = model(encoding, form, "performer")
    found = look(made, TOKENS)
    torch.testing.assert_close(found.maps.sum(-1), torch.ones(2, 4, LENGTH, dtype=torch.float64))
    assert found.score is None and "no scores" in found.why["to_scores"]
    if encoding == "shaw":
        return  # vectors enter its values as well
    attention, outputs = made.stacks[0][1].get_submodule("layers.0.attention"), []
    attention.register_forward_hook(lambda module, given, out: outputs.append((given, out)))
    made.hidden(TOKENS[:1])
    (x, _, context, _), out = outputs[0]
    values = attention.projected(x, context)[2]
    torch.testing.assert_close(attention.out((found.maps[0] @ values[0]).transpose(0, 1).flatten(1))[None], out)


def test_weights_that_may_be_negative_have_no_entropy() -> None:
    found = look(model("rope_outside", attention="performer"), TOKENS)
    assert found.entropy is None and "negative" in found.why["entropy"]


@pytest.mark.parametrize("form", ["decoder", "encoder"])
def test_similarity_is_its_formula(form: str) -> None:
    made = {name: model(name, form).encodings()[0] for name in ("none", "rope", "alibi", "t5", "sinusoidal")}
    found = {name: similarity(one, LENGTH) for name, one in made.items()}
    distances = torch.arange(0 if form == "decoder" else 1 - LENGTH, LENGTH, dtype=torch.float64)
    theta = torch.tensor([10000 ** (-2 * i / 16) for i in range(8)], dtype=torch.float64)
    rope = 2 / math.sqrt(16) * (distances[:, None] * theta).cos().sum(1)
    torch.testing.assert_close(found["rope"], rope.expand(2, 4, -1), atol=1e-12, rtol=0)
    assert (found["none"] - 4).abs().max() < 1e-12
    alibi = -slopes(4)[:, None] * distances.abs()
    torch.testing.assert_close(found["alibi"] - found["none"], alibi.expand(2, -1, -1), atol=1e-12, rtol=0)
    bias = made["t5"].distance_bias(-distances.long(), None)  # type: ignore[arg-type]  # it asks nothing of the context
    torch.testing.assert_close(found["t5"] - found["none"], bias.detach().expand(2, -1, -1), atol=1e-12, rtol=0)
    # A head's 8 of the 32 frequencies: p_i . p_j is the sum of their cosines.
    omega = torch.tensor([10000 ** (-2 * i / 64) for i in range(32)], dtype=torch.float64).view(4, 8)
    waves = (distances[:, None] * omega[:, None]).cos().sum(-1) / 4
    torch.testing.assert_close(found["sinusoidal"][0] - found["none"][0], waves, atol=1e-9, rtol=0)


@pytest.mark.parametrize("encoding", ["alibi", "t5"])
def test_scores_on_text_differ_from_those_without_position_by_the_line(encoding: str) -> None:
    bare, found = look(model("none"), TOKENS), look(model(encoding), TOKENS)
    bias = model(encoding).encodings()[0].distance_bias(-found.distances, None)  # type: ignore[arg-type]
    line = bias.double().detach()
    torch.testing.assert_close(lines(found)[0] - lines(bare)[0], line, atol=1e-6, rtol=0)
    # What is added, over the scores of content alone, by hand.
    pairs = LENGTH - found.distances.double()
    added = ((line.square() * pairs).sum(-1) / pairs.sum()).sqrt()
    assert found.to_scores is not None and bare.to_scores is not None
    torch.testing.assert_close(found.to_scores[0], added / _content(pairs.sum()), atol=1e-6, rtol=1e-6)
    assert not bare.to_scores.any() and not bare.to_values.any() and bare.to_embeddings == 0


def _content(pairs: Tensor) -> Tensor:
    """The root mean square (H,) of scale * q.k over the pairs that are seen, in the first layer."""
    made, seen = model("none"), list[Tensor]()

    def note(attention: Any, given: Any, _: Any) -> None:
        seen.extend(attention.projected(given[0], given[2]))

    made.stacks[0][1].get_submodule("layers.0.attention").register_forward_hook(note)
    made.hidden(TOKENS)
    scores = (seen[0] @ seen[1].transpose(-1, -2) / 4).tril().detach()
    return (scores.square().sum((0, 2, 3)) / (len(TOKENS) * pairs)).sqrt()


def test_a_steeper_slope_of_alibi_attends_nearer() -> None:
    for made in (model("alibi"), model("alibi", "encoder"), model("alibi", attention="performer")):
        found = look(made, TOKENS).mean_distance
        assert all((steep < flat).all() for steep, flat in pairwise(found.unbind(1)))  # slopes fall from head to head


def test_uniform_attention_has_the_entropy_of_a_logarithm() -> None:
    made = model("none")
    for name, parameter in made.named_parameters():
        if "attention.query" in name:
            parameter.data.zero_()
    found = look(made, TOKENS)
    logs = torch.arange(1, LENGTH + 1).double().log().mean().expand(2, 4)
    ones = torch.ones(2, 4, dtype=torch.float64)
    assert found.entropy is not None and found.evenness is not None
    torch.testing.assert_close(found.entropy, logs)
    torch.testing.assert_close(found.evenness, ones)
    torch.testing.assert_close(found.first_token, (1 / torch.arange(2, LENGTH + 1).double()).mean() * ones)
    torch.testing.assert_close(found.mean_distance, (LENGTH - 1) / 4 * ones)


def test_order_is_nothing_to_no_encoding_both_ways_and_something_to_all_others() -> None:
    for kind in ("softmax", "performer"):
        assert max(sensitivity(model("none", "encoder", kind), TOKENS).divergence.values()) < 1e-12
    for name in ("sinusoidal", "rope", "t5"):
        assert min(sensitivity(model(name, "encoder"), TOKENS).divergence.values()) > 1e-9
    found = sensitivity(model("rope"), TOKENS, TOKENS.roll(-1, 1))
    assert found.loss is not None and found.rise.keys() == EDITS.keys() == found.divergence.keys()
    logs = model("rope").logits(model("rope").hidden(TOKENS)).log_softmax(-1)[:, -6:]
    truth = TOKENS.roll(-1, 1)[:, -6:, None]
    assert found.loss == pytest.approx(-logs.gather(-1, truth).mean().item(), rel=1e-12)


def test_edits_move_the_context_alone() -> None:
    for edit in EDITS:
        after = edited(TOKENS, edit)
        assert torch.equal(after[:, 18:], TOKENS[:, 18:]) and not torch.equal(after, TOKENS)
        assert torch.equal(after[:, :18].sort().values, TOKENS[:, :18].sort().values)
        assert torch.equal(after, edited(TOKENS, edit))
    assert torch.equal(edited(TOKENS, "shifted")[:, 1:18], TOKENS[:, :17])


@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_measured_twice_it_is_the_same_to_the_bit_and_leaves_the_model_alone(attention: str) -> None:
    made = model("rope", attention=attention).float().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    first, second = look(made, TOKENS), look(made, TOKENS)
    for name, value in vars(first).items():
        assert not isinstance(value, Tensor) or torch.equal(value, vars(second)[name])
    assert sensitivity(made, TOKENS) == sensitivity(made, TOKENS)
    assert made.training and all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_two_stacks_are_refused() -> None:
    with pytest.raises(NotPossibleError, match="encoder-decoder"):
        look(model("rope", "encoder-decoder"), TOKENS)
