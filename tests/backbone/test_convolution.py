"""The control of a short convolution on queries, keys and values: its formula, its start, and what it may not read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from models import exact, model_of, tokens_of
from runs import cells
from torch import Tensor, nn

from posenc.attention.interface import DecodingCache
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


def convolving(name: str = "rope", **changes: Any) -> Transformer:
    """With taps of random numbers."""
    model = exact(name, convolution=3, **changes)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("taps"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_it_is_its_formula() -> None:
    """Token by token and channel by channel, put in place of the projections of a model without it."""
    model, tokens = convolving("none", layers=1), tokens_of(2, 9)
    attention = model.get_submodule("decoder.layers.0.attention")
    taps = attention.get_parameter("convolution.taps").detach()

    def by_hand(part: nn.Module, _: object, x: Tensor) -> Tensor:
        out, index = x.clone(), parts.index(part)
        for b in range(2):
            for t in range(9):
                for back in range(min(t, 2) + 1):
                    out[b, t] += taps[index, :, 2 - back] * x[b, t - back]
        return out

    expected = model(tokens)
    plain = exact("none", layers=1)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "taps" not in name})
    own = plain.get_submodule("decoder.layers.0.attention")
    parts = [own.get_submodule(name) for name in ("query", "key", "value")]
    for part in parts:
        part.register_forward_hook(by_hand)
    torch.testing.assert_close(plain(tokens), expected, atol=1e-12, rtol=0)
    assert not torch.allclose(plain(tokens), exact("none", layers=1)(tokens))


def test_a_model_starts_as_it_would_without_it() -> None:
    assert torch.equal(model_of("rope", convolution=4)(tokens_of(2, 9)), model_of("rope")(tokens_of(2, 9)))


def test_it_tells_the_order_of_tokens() -> None:
    """Both ways, without an encoding: rows read backwards give other states of their last token but for it."""
    tokens = tokens_of(1, 8)
    turned = torch.cat((tokens[:, :7].flip(1), tokens[:, 7:]), dim=1)
    without = exact("none", form="encoder")
    torch.testing.assert_close(without.hidden(tokens)[:, 7], without.hidden(turned)[:, 7], atol=1e-12, rtol=0)
    model = convolving("none", form="encoder")
    assert not torch.allclose(model.hidden(tokens)[:, 7], model.hidden(turned)[:, 7], atol=1e-3)


@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize("form", ["decoder", "encoder"])
def test_neither_padding_nor_a_packed_neighbour_is_read(form: str, attention: str) -> None:
    model = convolving(form=form, attention=attention)
    tokens, lengths = tokens_of(1, 13), (5, 1, 7)
    segments = torch.tensor([[n for n, length in enumerate(lengths) for _ in range(length)]])
    packed = model.hidden(tokens, segments=segments)
    for n in range(3):
        alone = model.hidden(tokens[:, segments[0] == n])
        torch.testing.assert_close(packed[:, segments[0] == n], alone, atol=1e-11, rtol=0)
        for left, right in ((3, 0), (0, 2)):
            row = torch.nn.functional.pad(tokens[:, segments[0] == n], (left, right), value=7)
            mask = torch.nn.functional.pad(torch.ones(1, lengths[n], dtype=torch.bool), (left, right))
            torch.testing.assert_close(model.hidden(row, mask=mask)[mask], alone[0], atol=1e-11, rtol=0)


@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_cached_decoding_is_the_uncached(attention: str) -> None:
    model, tokens = convolving(attention=attention), tokens_of(2, 12)
    mask = torch.ones(2, 12).bool()
    mask[1, :3] = False
    cache = DecodingCache(2)
    steps = [(0, 1), (1, 5), (5, 6), (6, 7), (7, 12)]
    parts = [model.hidden(tokens[:, a:b], mask=mask[:, :b], cache=cache) for a, b in steps]
    torch.testing.assert_close(torch.cat(parts, 1)[mask], model.hidden(tokens, mask=mask)[mask], atol=1e-11, rtol=0)
    cache = DecodingCache(2)
    model.hidden(tokens[:, :6], cache=cache)
    cache.select(torch.tensor([1, 1, 0]))
    found = model.hidden(tokens[[1, 1, 0], 6:], cache=cache)
    torch.testing.assert_close(found, model.hidden(tokens)[[1, 1, 0], 6:], atol=1e-11, rtol=0)


def test_cross_attention_has_none_and_a_cell_without_it_is_the_cell_it_was() -> None:
    names = [name for name, _ in model_of(form="encoder-decoder", convolution=2).named_parameters() if "taps" in name]
    assert len(names) == 4 and not any("cross" in name for name in names)
    (plain,), (other,) = cells("rope"), cells("rope", backbone__convolution=4)
    assert "convolution" not in plain.config["backbone"] and other.config["backbone"]["convolution"] == 4
    assert plain.id != other.id


@pytest.mark.parametrize("span", [-1, 1, 65])
def test_a_span_that_is_none_is_refused(span: int) -> None:
    config = BackboneConfig(layers=1, width=8, heads=1, feedforward=8)
    with pytest.raises(ConfigError, match=rf"backbone\.convolution = {span}: must be 0 \(none\) or from 2 to 64"):
        replace(config, convolution=span)
