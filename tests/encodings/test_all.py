"""What holds for all encodings: positions, distances, randomness, parameters."""

from __future__ import annotations

import pytest
import torch
from by_hand import BOTH_WAYS, Shifted, context_of, dot, layer_of, made, randn, stack_of

from posenc.api import registry
from posenc.api.composite import Composite
from posenc.encodings.none import NoEncoding

pytestmark = pytest.mark.usefixtures("one_thread")


# Positions


def test_positions_count_real_tokens_from_the_first_of_each_row() -> None:
    encoding = NoEncoding(stack_of())
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    positions = context_of(encoding, 5, mask=mask).key_positions
    assert positions.shape == (3, 5, 1)
    assert [positions[b, mask[b], 0].tolist() for b in range(3)] == [[0, 1, 2], [0, 1, 2], [0, 1, 2, 3, 4]]


def test_positions_start_again_in_each_packed_segment() -> None:
    encoding = NoEncoding(stack_of())
    segments = torch.tensor([[4, 4, 4, 2, 2, 4, 4, 4], [0, 1, 1, 1, 1, 1, 1, 2]])
    positions = context_of(encoding, 8, segments=segments).key_positions[..., 0]
    assert positions.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 0]]


def test_positions_of_packed_rows_that_are_padded_left() -> None:
    encoding = NoEncoding(stack_of())
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 0]]).bool()
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2]])
    positions = context_of(encoding, 7, segments=segments, mask=mask).key_positions[0, :, 0]
    assert positions[mask[0]].tolist() == [0, 1, 0, 1]


def test_queries_are_the_last_of_the_keys() -> None:
    context = context_of(NoEncoding(stack_of()), keys=9, queries=2)
    assert context.query_positions[..., 0].tolist() == [[7, 8]]
    assert context.offset == 7


# Distance alone


@BOTH_WAYS
@pytest.mark.parametrize("text", ["none", "t5", "shaw", "nezha", "rope", "t5+shaw", "rope(base=500, fraction=0.5)+t5"])
def test_softmax_attention_of_a_relative_encoding_is_the_same_when_all_positions_shift(text: str, causal: bool) -> None:
    stack, x = stack_of(causal=causal), randn(2, 40, 16)
    outputs = []
    for by in (0, 1, 777, 100_000):
        encoding = Composite(stack, [Shifted(stack, by=by), made(text, causal=causal)])
        assert encoding.relative
        module, context = layer_of(encoding), context_of(encoding, 40)
        assert context.key_positions[0, 0, 0] == by
        outputs.append(module(encoding.embed(x, context.query_positions, context), encoding, context))
    plain = made(text, causal=causal)
    outputs.append(layer_of(plain)(x, plain, context_of(plain, 40)))
    for out in outputs[1:]:
        torch.testing.assert_close(out, outputs[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("text", ["sinusoidal", "sinusoidal+rope"])
def test_absolute_encodings_do_change_when_all_positions_shift(text: str) -> None:
    stack, x = stack_of(), randn(2, 10, 16)
    outputs = []
    for by in (0, 5):
        encoding = Composite(stack, [Shifted(stack, by=by), made(text)])
        assert not encoding.relative
        context = context_of(encoding, 10)
        outputs.append(layer_of(encoding)(encoding.embed(x, context.query_positions, context), encoding, context))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-2


@BOTH_WAYS
@pytest.mark.parametrize("text", ["t5", "shaw", "nezha", "rope"])
def test_scores_of_equal_queries_and_equal_keys_are_constant_along_diagonals(text: str, causal: bool) -> None:
    encoding = made(text, causal=causal)
    q, k = randn(1, 2, 1, 8, seed=3).expand(1, 2, 40, 8), randn(1, 2, 1, 8, seed=4).expand(1, 2, 40, 8)
    context = context_of(encoding, 40)
    turned_q = encoding.rotate_query(q, context.query_positions, context)
    scores = dot(turned_q, encoding.rotate_key(k, context.key_positions, context)) * encoding.score_scale
    if encoding.overrides("distance_bias"):
        at = torch.arange(40)
        scores = scores + encoding.distance_bias((at[None] - at[:, None]).flatten(), context).unflatten(1, (40, 40))
    if encoding.overrides("score_bias"):
        scores = scores + encoding.score_bias(q, k, context)
    torch.testing.assert_close(scores[..., 1:, 1:], scores[..., :-1, :-1], atol=1e-11, rtol=0)
    assert scores.std() > 1e-3


def test_without_an_encoding_both_ways_attention_cannot_tell_order() -> None:
    encoding = made("none", causal=False)
    module, x = layer_of(encoding), randn(1, 9, 16)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    context = context_of(encoding, 9)
    torch.testing.assert_close(module(x[:, order], encoding, context), module(x, encoding, context)[:, order])
    assert not encoding.tells_order


# What all of them must do


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_no_encoding_touches_the_global_random_state(name: str) -> None:
    before = torch.get_rng_state()
    encoding = registry.create(name, stack_of())
    encoding.initialise(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_parameters_follow_from_the_seed_alone(name: str) -> None:
    first, same, other = made(name, 1), made(name, 1), made(name, 2)
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    made(name, 1).initialise(generator)
    draws = not torch.equal(generator.get_state(), before)
    for p, q, r in zip(first.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, r) or p.unique().numel() == 1 or not draws, "what is drawn differs by seed"


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_hooks_keep_the_dtype_of_what_they_are_given(name: str, dtype: torch.dtype) -> None:
    axes = registry.load(name).axes or 1
    encoding = registry.create(name, stack_of(axes=axes))
    encoding.initialise(torch.Generator().manual_seed(3))
    x, q = torch.ones(1, 6, 16, dtype=dtype), torch.ones(1, 2, 6, 8, dtype=dtype)
    coordinates = torch.arange(6)[None, :, None].expand(-1, -1, axes) if axes > 1 else None
    context = context_of(encoding, 6, hidden=x, coordinates=coordinates)
    assert encoding.embed(x, context.query_positions, context).dtype == dtype
    assert encoding.rotate_query(q, context.query_positions, context).dtype == dtype
    if encoding.overrides("score_bias"):
        wide = torch.promote_types(dtype, torch.float32)  # biases may be in more digits than scores
        assert encoding.score_bias(q, q, context).dtype in (dtype, wide)
    if encoding.overrides("mix_values"):
        assert encoding.mix_values(torch.ones(1, 2, 6, 6, dtype=dtype), context).dtype == dtype


@pytest.mark.parametrize(
    ("name", "count"), [("none", 0), ("sinusoidal", 0), ("learned", 64 * 16), ("t5", 32 * 2),
                        ("shaw", 2 * 2 * (2 * 16 + 1) * 8), ("nezha", 0), ("rope", 0), ("rope_outside", 0)],
)  # fmt: skip
def test_parameters_are_so_many(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in registry.create(name, stack_of()).parameters()) == count
