"""Cached decoding and packed rows give what one pass over one row gives, and what every hook gets there."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import (
    CACHED,
    exact,
    kept,
    model_of,
    served,
    serves,
    tokens_of,
)  # fmt: skip
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.attention.interface import DecodingCache
from posenc.common.errors import NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_what_is_not_possible_is_refused() -> None:
    with pytest.raises(NotPossibleError, match="cached decoding would not equal"):
        model_of("fox", attention="performer")(tokens_of(1, 4), cache=DecodingCache(2))
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
