"""Every built-in encoding against a second derivation, written from its paper's equation in loops and plain floats."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from posenc.api import registry
from posenc.api.composite import Composite
from posenc.api.encoding import Context, Encoding, prepare
from posenc.api.stack import Stack
from posenc.backbone.config import BackboneConfig
from posenc.backbone.layers import Attention, kernel_for
from posenc.common.errors import NotPossibleError
from posenc.encodings import rope as rope_module
from posenc.encodings.learned import Learned
from posenc.encodings.nezha import Nezha
from posenc.encodings.none import NoEncoding
from posenc.encodings.rope import Rope, RopeOutside
from posenc.encodings.shaw import Shaw
from posenc.encodings.sinusoidal import Sinusoidal
from posenc.encodings.t5 import T5, bucket

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH_WAYS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])


def stack_of(**changes: Any) -> Stack:
    given = {"layers": 2, "heads": 2, "width": 16, "head_width": 8, "max_length": 64, "causal": True} | changes
    return Stack(**given)


def context_of(encoding: Encoding, keys: int, queries: int | None = None, **more: Any) -> Context:
    context = Context(
        stack=encoding.stack,
        queries=keys if queries is None else queries,
        keys=keys,
        device=torch.device("cpu"),
        **more,
    )
    return prepare(encoding, context)


def started(encoding: Encoding, seed: int = 0) -> Encoding:
    """Drawn and then made larger, so that its effect is far above any tolerance."""
    encoding.initialise(torch.Generator().manual_seed(seed))
    return encoding.double()


def made(text: str, seed: int = 0, **changes: Any) -> Encoding:
    return started(registry.create(text, stack_of(**changes)), seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Shifted(Encoding):
    """Sets all positions further along by a constant."""

    relative = True
    linear_form = "as_is"

    def __init__(self, stack: Stack, *, by: int = 0) -> None:
        super().__init__(stack)
        self.by = by

    def initialise(self, generator: torch.Generator) -> None:
        pass

    def positions(self, context: Context) -> Tensor:
        return super().positions(context) + self.by


# One attention layer with an encoding, and the same by hand


def layer_of(encoding: Encoding, attention: str = "softmax", seed: int = 5, **changes: Any) -> Attention:
    stack = encoding.stack
    config = BackboneConfig(
        **(
            {"layers": stack.layers, "width": stack.width, "heads": stack.heads, "feedforward": 8}
            | {"attention": attention, "features": 10, "chunk": 3}
            | changes
        )
    )
    torch.manual_seed(seed)
    module = Attention(config, kernel_for(config, encoding, causal=stack.causal, backend="auto")).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.kernel.redraw(seed)
    return module


def projected(module: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B,H,L,K), head h from channels h K to (h + 1) K."""
    width = x.shape[-1] // module.heads
    out = []
    for linear in (module.query, module.key, module.value):
        y = x @ linear.weight.T + linear.bias
        out.append(torch.stack([y[..., h * width : (h + 1) * width] for h in range(module.heads)], dim=1))
    return out[0], out[1], out[2]


def joined(module: Attention, heads: Tensor) -> Tensor:
    return torch.cat(list(heads.unbind(1)), dim=-1) @ module.out.weight.T + module.out.bias


def attend(scores: Tensor, values: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Softmax over the keys by the plain formula, and its weighted mean of values."""
    length = scores.shape[-1]
    seen = torch.tensor([[float(j <= i or not causal) for j in range(length)] for i in range(length)])
    weights = scores.exp() * seen.double()
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("bhij,bhjk->bhik", weights, values), weights


def rotation(position: float, width: int, base: float = 10000.0) -> Tensor:
    """R of equations (15) and (16) of RoFormer: blocks [[cos, -sin], [sin, cos]] of m theta_i down the diagonal."""
    matrix = torch.zeros(width, width, dtype=torch.float64)
    for i in range(1, width // 2 + 1):
        angle = position * base ** (-2 * (i - 1) / width)
        a, b = 2 * i - 2, 2 * i - 1  # the paper's channels 2i - 1 and 2i
        matrix[a, a], matrix[a, b] = math.cos(angle), -math.sin(angle)
        matrix[b, a], matrix[b, b] = math.sin(angle), math.cos(angle)
    return matrix


def rotated(x: Tensor, positions: list[int], base: float = 10000.0) -> Tensor:
    turns = torch.stack([rotation(p, x.shape[-1], base) for p in positions])
    return torch.einsum("lij,bhlj->bhli", turns, x)


def shaw_vectors(table: Tensor, length: int, clip: int) -> Tensor:
    """a_ij = w[clip(j - i)], the whole L x L x K of it."""
    rows = [[table[clip + max(-clip, min(clip, j - i))] for j in range(length)] for i in range(length)]
    return torch.stack([torch.stack(row) for row in rows])


def t5_bucket(distance: int, buckets: int, max_distance: int, both_ways: bool) -> int:
    """Exact: past the `exact` single ones, bucket >= exact + j iff (n / exact)^wide >= (max / exact)^j."""
    first = 0
    if both_ways:
        buckets //= 2
        first = buckets if distance > 0 else 0
        n = abs(distance)
    else:
        n = max(-distance, 0)
    exact = buckets // 2
    if n < exact:
        return first + n
    wide = buckets - exact
    reached = 0
    while reached < wide - 1 and Fraction(n, exact) ** wide >= Fraction(max_distance, exact) ** (reached + 1):
        reached += 1
    return first + exact + reached


def t5_bias(encoding: T5, length: int) -> Tensor:
    both_ways = not encoding.stack.causal
    rows = [
        [encoding.table[t5_bucket(j - i, encoding.buckets, encoding.max_distance, both_ways)] for j in range(length)]
        for i in range(length)
    ]
    return torch.stack([torch.stack(row) for row in rows]).permute(2, 0, 1)


def dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.einsum("bhik,bhjk->bhij", x, y)


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


# Sinusoidal


@pytest.mark.parametrize(("width", "base", "scale"), [(16, 10000.0, 1.0), (6, 500.0, 0.3), (512, 10000.0, 1.0)])
def test_sinusoidal_adds_the_papers_sines_and_cosines(width: int, base: float, scale: float) -> None:
    encoding = Sinusoidal(stack_of(width=width, head_width=width // 2), base=base, scale=scale)
    x = randn(2, 20, width)
    out = encoding.embed(x, context_of(encoding, 20).query_positions, context_of(encoding, 20))
    for p in range(20):
        for i in range(width // 2):
            angle = p / base ** (2 * i / width)
            for b in range(2):
                assert out[b, p, 2 * i].item() == pytest.approx(
                    x[b, p, 2 * i].item() + scale * math.sin(angle), abs=1e-12
                )
                assert out[b, p, 2 * i + 1].item() == pytest.approx(
                    x[b, p, 2 * i + 1].item() + scale * math.cos(angle), abs=1e-12
                )


def test_sinusoidal_is_exact_at_far_positions_in_float32() -> None:
    parts = Composite(stack_of(), [Shifted(stack_of(), by=100_000), Sinusoidal(stack_of())])
    context = context_of(parts, 3)
    out = parts.embed(torch.zeros(1, 3, 16), context.query_positions, context)
    assert out.dtype == torch.float32
    for p in range(3):
        for i in range(8):
            angle = (100_000 + p) / 10000 ** (2 * i / 16)
            assert out[0, p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert out[0, p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_sinusoidal_refuses_an_odd_width() -> None:
    with pytest.raises(ValueError, match="odd"):
        Sinusoidal(stack_of(width=15, heads=1, head_width=15))


# Learned


def test_learned_adds_the_row_of_each_position_times_the_root_of_the_width() -> None:
    encoding = started(Learned(stack_of()))
    assert encoding.table.shape == (64, 16)
    x = randn(2, 6, 16)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]).bool()
    context = context_of(encoding, 6, mask=mask)
    out = encoding.embed(x, context.query_positions, context)
    for b, first in ((0, 0), (1, 2)):
        for t in range(first, 6):
            torch.testing.assert_close(out[b, t], x[b, t] + 4.0 * encoding.table[t - first], atol=1e-12, rtol=0)


def test_learned_starts_with_a_standard_deviation_of_one_over_the_root_of_the_width() -> None:
    encoding = started(Learned(stack_of(max_length=4096)))
    assert encoding.table.std().item() == pytest.approx(0.25, rel=0.02)


@pytest.mark.parametrize("text", ["learned", "learned+rope", "rope+learned"])
def test_learned_has_no_answer_beyond_its_table(text: str) -> None:
    encoding = made(text, max_length=10)
    assert encoding.why_not_at(10) is None
    context_of(encoding, 10)
    assert "not possible" in (encoding.why_not_at(11) or "")
    with pytest.raises(NotPossibleError, match=r"10 positions.*11"):
        context_of(encoding, 11)
    with pytest.raises(NotPossibleError):
        context_of(encoding, keys=11, queries=1)


# T5


@pytest.mark.parametrize(
    ("buckets", "max_distance"),
    [
        (32, 128),
        (16, 64),
        (64, 256),
        (8, 20),
        (4, 3),
        (12, 100),
        (32, 17),
        (32, 1000),
        (20, 250),
        (128, 200),
        (20, 320),
        (40, 640),
    ],
)
@BOTH_WAYS
def test_t5_buckets_are_those_of_exact_arithmetic(buckets: int, max_distance: int, causal: bool) -> None:
    distances = list(range(-300, 301))
    got = bucket(torch.tensor(distances), buckets, max_distance, bidirectional=not causal).tolist()
    assert got == [t5_bucket(d, buckets, max_distance, not causal) for d in distances]


def test_t5_buckets_of_the_papers_setting_at_the_edges() -> None:
    """16 exact ones and 16 up to 128 in a decoder; 8 and 8 for each sign in an encoder: by hand."""
    causal = bucket(-torch.tensor([0, 1, 15, 16, 127, 128, 5000]), 32, 128, bidirectional=False)
    assert causal.tolist() == [0, 1, 15, 16, 31, 31, 31]
    both = bucket(
        torch.tensor([0, -7, -8, -16, -32, -64, -127, -128, 1, 7, 8, 16, 32, 64, 128]), 32, 128, bidirectional=True
    )
    assert both.tolist() == [0, 7, 8, 10, 12, 14, 15, 15, 17, 23, 24, 26, 28, 30, 31]


@BOTH_WAYS
def test_t5_attention_is_that_of_biased_scores(causal: bool) -> None:
    encoding = made("t5(buckets=8, max_distance=12)", causal=causal)
    assert isinstance(encoding, T5) and encoding.table.shape == (8, 2)
    module, x = layer_of(encoding), randn(2, 20, 16)
    q, k, v = projected(module, x)
    heads, _ = attend(dot(q, k) / math.sqrt(8) + t5_bias(encoding, 20), v, causal)
    got = module(x, encoding, context_of(encoding, 20))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-12, rtol=0)


def test_t5_shares_one_table_among_all_layers() -> None:
    encoding, x = made("t5", layers=3), randn(1, 20, 16)
    module, context = layer_of(encoding), context_of(encoding, 20)
    outputs = []
    for context.layer in range(3):
        outputs.append(module(x, encoding, context))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


# Shaw


@BOTH_WAYS
@pytest.mark.parametrize("clip", [1, 3, 16])
def test_shaw_attention_is_equations_3_and_4_with_tables_of_each_layer(clip: int, causal: bool) -> None:
    encoding = made(f"shaw(clip={clip})", causal=causal)
    assert isinstance(encoding, Shaw)
    assert encoding.key_tables.shape == encoding.value_tables.shape == (2, 2 * clip + 1, 8)
    module, x, length = layer_of(encoding), randn(2, 9, 16), 9
    q, k, v = projected(module, x)
    context = context_of(encoding, length)
    for context.layer in (0, 1):
        a_key = shaw_vectors(encoding.key_tables[context.layer], length, clip)
        a_value = shaw_vectors(encoding.value_tables[context.layer], length, clip)
        scores = torch.einsum("bhik,bhijk->bhij", q, k[:, :, None] + a_key) / math.sqrt(8)
        _, weights = attend(scores, v, causal)
        heads = torch.einsum("bhij,bhijk->bhik", weights, v[:, :, None] + a_value)
        got = module(x, encoding, context)
        torch.testing.assert_close(got, joined(module, heads), atol=1e-12, rtol=0)


def test_shaw_starts_by_glorots_rule() -> None:
    encoding = made("shaw(clip=100)")
    bound = math.sqrt(6 / (201 + 8))
    for table in (encoding.key_tables, encoding.value_tables):
        assert 0.98 * bound < table.abs().max().item() <= bound
        assert table.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


# NEZHA


def sinusoid(distance: int, width: int) -> Tensor:
    pairs = [distance / 10000 ** (2 * k / width) for k in range(width // 2)]
    return torch.tensor([f(angle) for angle in pairs for f in (math.sin, math.cos)], dtype=torch.float64)


@BOTH_WAYS
@pytest.mark.parametrize("clip", [1, 3, 64])
def test_nezha_attention_is_shaws_with_sinusoids_of_the_clipped_distance(clip: int, causal: bool) -> None:
    encoding = made(f"nezha(clip={clip})", causal=causal)
    assert not list(encoding.parameters())
    module, x, length = layer_of(encoding), randn(2, 9, 16), 9
    q, k, v = projected(module, x)
    vectors = torch.stack(
        [torch.stack([sinusoid(max(-clip, min(clip, j - i)), 8) for j in range(length)]) for i in range(length)]
    )
    scores = torch.einsum("bhik,bhijk->bhij", q, k[:, :, None] + vectors) / math.sqrt(8)
    _, weights = attend(scores, v, causal)
    heads = torch.einsum("bhij,bhijk->bhik", weights, v[:, :, None] + vectors)
    context = context_of(encoding, length)
    for context.layer in (0, 1):
        torch.testing.assert_close(module(x, encoding, context), joined(module, heads), atol=1e-12, rtol=0)


def test_nezha_and_shaw_composed_keep_tables_of_their_own() -> None:
    """Both clip at the same distance, so they share the bins in the cache and nothing else."""
    whole, nezha, shaw = made("nezha(clip=4)+shaw(clip=4)"), made("nezha(clip=4)"), made("shaw(clip=4)")
    q, k, weights = randn(1, 2, 9, 8), randn(1, 2, 9, 8), randn(1, 2, 9, 9).softmax(-1)
    contexts = [context_of(encoding, 9) for encoding in (whole, nezha, shaw)]
    scores = [
        encoding.score_bias(q, k, context) for encoding, context in zip((whole, nezha, shaw), contexts, strict=True)
    ]
    torch.testing.assert_close(scores[0], scores[1] + scores[2], atol=1e-12, rtol=0)
    values = [
        encoding.mix_values(weights, context) for encoding, context in zip((whole, nezha, shaw), contexts, strict=True)
    ]
    torch.testing.assert_close(values[0], values[1] + values[2], atol=1e-12, rtol=0)


def test_nezhas_released_table_is_the_papers_turned_by_the_clip_and_no_other_family() -> None:
    """The released code counts rows from 0: sines and cosines of clip(j - i) + clip, as its docstring here says."""
    clip, width = 5, 8

    class Released(Nezha):
        def key_vectors(self, context: Context) -> Tensor:
            return torch.stack([sinusoid(row, width) for row in range(2 * clip + 1)])

    paper, released = Nezha(stack_of(), clip=clip), Released(stack_of(), clip=clip)
    blocks = []
    for pair in range(width // 2):
        angle = clip / 10000 ** (2 * pair / width)
        rows = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        blocks.append(torch.tensor(rows, dtype=torch.float64))
    turn = torch.block_diag(*blocks)
    tables = [encoding.key_vectors(context_of(encoding, 9)) for encoding in (paper, released)]
    torch.testing.assert_close(tables[1], tables[0] @ turn.T, atol=1e-12, rtol=0)
    assert (tables[0] - tables[1]).abs().max() > 0.5, "their numbers are not the same"
    q, k, weights = randn(1, 2, 9, width), randn(1, 2, 9, width), randn(1, 2, 9, 9).softmax(-1)
    ours = paper.score_bias(q @ turn, k @ turn, context_of(paper, 9))
    torch.testing.assert_close(released.score_bias(q, k, context_of(released, 9)), ours, atol=1e-12, rtol=0)
    ours = paper.mix_values(weights, context_of(paper, 9)) @ turn.T
    torch.testing.assert_close(released.mix_values(weights, context_of(released, 9)), ours, atol=1e-12, rtol=0)
    for word in ("the paper's", "released code", "counted from 0"):
        assert word in (Nezha.__doc__ or "")


def test_nezha_refuses_heads_of_odd_width() -> None:
    with pytest.raises(ValueError, match="head width 7 is odd"):
        registry.load("nezha")(stack_of(width=14, head_width=7))


# RoPE


@pytest.mark.parametrize(("base", "width"), [(10000.0, 8), (500000.0, 6), (10000.0, 64)])
def test_rope_is_the_block_diagonal_rotation_of_equations_15_and_16(base: float, width: int) -> None:
    encoding = Rope(stack_of(heads=1, width=width, head_width=width), base=base)
    x, context = randn(2, 3, 12, width), context_of(encoding, 12)
    expected = rotated(x, list(range(12)), base)
    torch.testing.assert_close(encoding.rotate_query(x, context.query_positions, context), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(encoding.rotate_key(x, context.key_positions, context), expected, atol=1e-12, rtol=0)


@BOTH_WAYS
def test_rope_attention_rotates_queries_and_keys_and_never_values(causal: bool) -> None:
    encoding = made("rope", causal=causal)
    module, x = layer_of(encoding), randn(2, 9, 16)
    q, k, v = projected(module, x)
    heads, _ = attend(dot(rotated(q, list(range(9))), rotated(k, list(range(9)))) / math.sqrt(8), v, causal)
    got = module(x, encoding, context_of(encoding, 9))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-12, rtol=0)


@given(m=st.integers(0, 50_000), n=st.integers(0, 50_000), by=st.integers(0, 50_000), seed=st.integers(0, 1000))
def test_rope_scores_depend_on_the_distance_alone(m: int, n: int, by: int, seed: int) -> None:
    encoding = Rope(stack_of(heads=1, width=64, head_width=64))
    q, k = randn(64, seed=seed), randn(64, seed=seed + 1)

    def score(query_at: int, key_at: int) -> float:
        turned = []
        for x, position in ((q, query_at), (k, key_at)):
            turns = encoding.turns(torch.tensor([[[position]]]), 64)
            turned.append(rope_module.rotate_pairs(x.view(1, 1, 1, 64), turns).flatten())
        return torch.dot(*turned).item()

    assert score(m + by, n + by) == pytest.approx(score(m, n), abs=1e-8)
    # ... and it is q . R_{n - m} k (equation 16), not of the opposite sense.
    assert score(m, n) == pytest.approx((q @ rotation(n - m, 64) @ k).item(), abs=1e-8)


@given(seed=st.integers(0, 10_000), pairs=st.integers(1, 9), length=st.integers(1, 40))
def test_rope_keeps_norms(seed: int, pairs: int, length: int) -> None:
    encoding = Rope(stack_of(heads=1, width=2 * pairs, head_width=2 * pairs))
    x, context = randn(1, 1, length, 2 * pairs, seed=seed), context_of(encoding, length)
    out = encoding.rotate_query(x, context.query_positions, context)
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), atol=1e-13, rtol=1e-13)


def test_rope_with_a_fraction_turns_the_first_channels_and_leaves_the_rest() -> None:
    encoding = Rope(stack_of(heads=1, width=16, head_width=16), fraction=0.25)
    x, context = randn(1, 2, 10, 16), context_of(encoding, 10)
    out = encoding.rotate_query(x, context.query_positions, context)
    assert torch.equal(out[..., 4:], x[..., 4:])
    torch.testing.assert_close(out[..., :4], rotated(x[..., :4], list(range(10))), atol=1e-12, rtol=0)


@pytest.mark.parametrize("options", [{"fraction": 0.3}, {"fraction": 0.125}, {"fraction": 0.0}, {"base": 1.0}])
def test_rope_refuses_options_without_meaning(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Rope(stack_of(), **options)


@pytest.mark.parametrize("width", [8, 20, 50, 80, 100])
def test_rope_takes_every_fraction_that_is_an_even_number_of_channels(width: int) -> None:
    """Also where the product is off in floats: 0.14 * 100 is 14.000000000000002."""
    for channels in range(2, width + 1, 2):
        fraction = round(channels / width, 3)
        if Fraction(str(fraction)) * width == channels:
            assert Rope(stack_of(heads=1, width=width, head_width=width), fraction=fraction).rotated(width) == channels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rope_angles_at_position_100_000_are_right_to_1e_6_whatever_the_activations(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    product = rope_module.rotate_pairs

    def watched(x: Tensor, turns: Tensor) -> Tensor:
        seen.append(turns)
        return product(x, turns)

    monkeypatch.setattr(rope_module, "rotate_pairs", watched)
    stack = stack_of(heads=1, width=64, head_width=64)
    encoding = Composite(stack, [Shifted(stack, by=99_990), Rope(stack)]).to(dtype)
    context = context_of(encoding, 20)
    x = torch.tensor([1.0, 0.0] * 32).to(dtype).expand(1, 1, 20, 64)
    outputs = [encoding.rotate_query(x, context.query_positions, context)]
    outputs.append(encoding.rotate_key(x, context.key_positions, context))
    assert len(seen) == 2
    for turns, out in zip(seen, outputs, strict=True):
        assert out.dtype == dtype
        for t in range(20):
            for i in range(32):
                angle = (99_990 + t) * 10000 ** (-2 * i / 64)
                assert turns[0, 0, t, i, 0].item() == pytest.approx(math.cos(angle), abs=1e-6)
                assert turns[0, 0, t, i, 1].item() == pytest.approx(math.sin(angle), abs=1e-6)
                half_ulp = torch.finfo(dtype).eps / 2
                assert out[0, 0, t, 2 * i].item() == pytest.approx(math.cos(angle), rel=1.01 * half_ulp, abs=1e-6)
                assert out[0, 0, t, 2 * i + 1].item() == pytest.approx(math.sin(angle), rel=1.01 * half_ulp, abs=1e-6)


def test_rope_in_the_layout_of_two_halves_is_this_one_with_its_channels_permuted() -> None:
    encoding = Rope(stack_of(heads=1, width=16, head_width=16))
    x, context = randn(1, 1, 11, 16), context_of(encoding, 11)
    angles = torch.tensor([[p * 10000 ** (-2 * i / 16) for i in range(8)] * 2 for p in range(11)], dtype=torch.float64)
    halves = x * angles.cos() + torch.cat((-x[..., 8:], x[..., :8]), dim=-1) * angles.sin()  # Llama and NeoX
    ours_of = [channel // 2 + 8 * (channel % 2) for channel in range(16)]  # our channel takes that one of theirs
    ours = encoding.rotate_query(x[..., ours_of], context.query_positions, context)
    torch.testing.assert_close(ours, halves[..., ours_of], atol=1e-12, rtol=0)
    plain = encoding.rotate_query(x, context.query_positions, context)
    assert not torch.allclose(plain, halves)


def naive_features(x: Tensor, projection: Tensor) -> Tensor:
    """phi(x) of Lemma 1 as it stands, not stabilised."""
    return torch.exp(torch.einsum("bhlk,mk->bhlm", x, projection) - (x * x).sum(-1)[..., None] / 2)


def linear_attention(turned: Tensor, plain: Tensor, values: Tensor, causal: bool) -> Tensor:
    """Sum over seen keys of numerator weights times values, over the sum of denominator weights."""
    length = plain.shape[-1]
    out = torch.zeros_like(values)
    for i in range(length):
        seen = range(i + 1) if causal else range(length)
        denominator = sum(plain[..., i, j] for j in seen)
        out[:, :, i] = sum(turned[..., i, j, None] * values[:, :, j] for j in seen) / denominator[..., None]
    return out


@BOTH_WAYS
def test_rope_outside_is_equation_19(causal: bool) -> None:
    encoding = made("rope_outside", causal=causal)
    module, x = layer_of(encoding, "performer"), randn(2, 10, 16) * 0.5
    q, k, v = projected(module, x)
    phi_q, phi_k = (naive_features(y * 8**-0.25, module.kernel.projection) for y in (q, k))
    turned = dot(rotated(phi_q, list(range(10))), rotated(phi_k, list(range(10))))
    heads = linear_attention(turned, dot(phi_q, phi_k), v, causal)
    got = module(x, encoding, context_of(encoding, 10))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-11, rtol=1e-11)


@BOTH_WAYS
def test_rope_inside_rotates_before_the_features(causal: bool) -> None:
    encoding = made("rope", causal=causal)
    module, x = layer_of(encoding, "performer"), randn(2, 10, 16) * 0.5
    q, k, v = projected(module, x)
    phi_q, phi_k = (naive_features(rotated(y, list(range(10))) * 8**-0.25, module.kernel.projection) for y in (q, k))
    heads = linear_attention(dot(phi_q, phi_k), dot(phi_q, phi_k), v, causal)
    got = module(x, encoding, context_of(encoding, 10))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-11, rtol=1e-11)


def test_rope_outside_has_no_form_in_softmax_attention() -> None:
    encoding = RopeOutside(stack_of())
    assert "not possible" in (encoding.why_not("softmax") or "")
    assert encoding.why_not("performer") is None


@pytest.mark.parametrize("name", ["kerple", "shaw", "nezha"])
def test_kerple_and_shaw_say_why_they_are_not_built_in_a_performer(name: str) -> None:
    assert "not built" in (made(name).why_not("performer") or "")
    assert "not built" in (made(f"{name}+rope").why_not("performer") or "")


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


# Composition


def test_composed_sinusoidal_and_rope_apply_both() -> None:
    both, rope, sines = made("sinusoidal+rope"), made("rope"), made("sinusoidal")
    x, context = randn(2, 12, 16), context_of(both, 12)
    embedded = both.embed(x, context.query_positions, context)
    alone = context_of(sines, 12)
    assert torch.equal(embedded, sines.embed(x, alone.query_positions, alone))
    assert torch.equal(layer_of(both)(embedded, both, context), layer_of(rope)(embedded, rope, context_of(rope, 12)))


@BOTH_WAYS
def test_composed_t5_shaw_and_rope_add_up(causal: bool) -> None:
    """q . k comes rotated; Shaw's key term takes queries as projected; T5's bias is added after scaling."""
    whole = made("t5(buckets=8, max_distance=10)+rope+shaw(clip=2)", causal=causal)
    assert isinstance(whole, Composite)
    t5, _, shaw = whole.parts
    module, x, at = layer_of(whole), randn(2, 12, 16), list(range(12))
    q, k, v = projected(module, x)
    a_key, a_value = shaw_vectors(shaw.key_tables[0], 12, 2), shaw_vectors(shaw.value_tables[0], 12, 2)
    scores = (dot(rotated(q, at), rotated(k, at)) + torch.einsum("bhik,ijk->bhij", q, a_key)) / math.sqrt(8)
    heads, weights = attend(scores + t5_bias(t5, 12), v, causal)
    heads = heads + torch.einsum("bhij,ijk->bhik", weights, a_value)
    got = module(x, whole, context_of(whole, 12))
    torch.testing.assert_close(got, joined(module, heads), atol=1e-12, rtol=0)


@pytest.mark.parametrize("clips", [(2, 5), (5, 2)])
def test_two_shaw_encodings_of_different_clips_add_up(clips: tuple[int, int]) -> None:
    whole = made(f"shaw(clip={clips[0]})+shaw(clip={clips[1]})")
    assert isinstance(whole, Composite)
    module, x = layer_of(whole), randn(1, 12, 16)
    q, k, v = projected(module, x)
    scores, heads = dot(q, k), torch.zeros_like(q)
    for part, clip in zip(whole.parts, clips, strict=True):
        scores = scores + torch.einsum("bhik,ijk->bhij", q, shaw_vectors(part.key_tables[0], 12, clip))
    heads, weights = attend(scores / math.sqrt(8), v, True)
    for part, clip in zip(whole.parts, clips, strict=True):
        heads = heads + torch.einsum("bhij,ijk->bhik", weights, shaw_vectors(part.value_tables[0], 12, clip))
    torch.testing.assert_close(module(x, whole, context_of(whole, 12)), joined(module, heads), atol=1e-12, rtol=0)


def test_two_ropes_of_different_bases_rotate_one_after_the_other() -> None:
    whole = made("rope(base=10000)+rope(base=50)")
    x, context = randn(1, 2, 12, 8), context_of(whole, 12)
    expected = rotated(rotated(x, list(range(12))), list(range(12)), base=50.0)
    torch.testing.assert_close(whole.rotate_query(x, context.query_positions, context), expected, atol=1e-12, rtol=0)


class Scaled(NoEncoding):
    """Its paper divides by sqrt(3 K)."""

    @property
    def score_scale(self) -> float:
        return (3 * self.stack.head_width) ** -0.5


@pytest.mark.parametrize("composed", [False, True])
def test_a_score_scale_of_an_encodings_own_is_taken(composed: bool) -> None:
    stack = stack_of()
    encoding: Encoding = Scaled(stack)
    if composed:
        encoding = Composite(stack, [NoEncoding(stack), encoding])
    module, x = layer_of(encoding), randn(1, 9, 16)
    q, k, v = projected(module, x)
    heads, _ = attend(dot(q, k) / math.sqrt(3 * 8), v, True)
    torch.testing.assert_close(module(x, encoding, context_of(encoding, 9)), joined(module, heads), atol=1e-12, rtol=0)


def test_two_parts_that_set_positions_cannot_be_composed() -> None:
    stack = stack_of()
    with pytest.raises(NotPossibleError, match="positions"):
        Composite(stack, [Shifted(stack), Shifted(stack)])


def test_rope_inside_and_outside_cannot_be_composed_in_a_performer() -> None:
    assert "not possible" in (made("rope+rope_outside").why_not("performer") or "")


class Refusing(NoEncoding):
    """Says no for reasons of its own, as an encoding may."""

    def why_not(self, attention: str) -> str | None:
        return "not possible: its own reason"

    def why_not_at(self, length: int) -> str | None:
        return "not possible: its own length" if length > 5 else None


def test_a_composition_refuses_what_one_of_its_parts_refuses() -> None:
    stack = stack_of()
    whole = Composite(stack, [NoEncoding(stack), Refusing(stack)])
    assert whole.why_not("softmax") == "not possible: its own reason"
    assert whole.why_not_at(6) == "not possible: its own length"


def test_declarations_of_a_composition_follow_from_its_parts() -> None:
    assert not made("sinusoidal+rope").relative and made("t5+rope").relative
    assert made("none+rope").tells_order and not made("none+none").tells_order
    assert made("sinusoidal+rope").linear_form == "inside"
    assert made("sinusoidal+rope_outside").linear_form == "outside"
    assert made("sinusoidal+learned").linear_form == "as_is"
    assert made("sinusoidal+rope_outside").why_not("softmax")


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
