"""NEZHA as Shaw's form with sinusoids, by the paper and by the released code."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import BOTH_WAYS, attend, context_of, joined, layer_of, made, projected, randn, stack_of
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context
from posenc.encodings.nezha import Nezha

pytestmark = pytest.mark.usefixtures("one_thread")


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
