"""Randomized positions: sorted samples of a longer range, each example's by its own length."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from goldens import context_of, made
from torch import Tensor

from posenc.api.encoding import Context, prepare
from posenc.common.errors import NotPossibleError

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(text: str, length: int, seed: int | None = None, **more: Any) -> Tensor:
    encoding = made(text)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    context = Context(
        stack=encoding.stack, queries=length, keys=length, device=torch.device("cpu"), training=seed is not None,
        generator=generator, **more,
    )  # fmt: skip
    return prepare(encoding, context).key_positions[..., 0]


def test_positions_rise_within_the_range_and_every_subset_is_as_likely() -> None:
    counts = torch.zeros(5)
    for seed in range(600):
        (found,) = drawn("randomized(longest=5)", 2, seed)
        assert 0 <= found[0] < found[1] < 5
        counts[found] += 1
    assert (counts / 600 - 2 / 5).abs().max() < 0.08  # four standard errors
    assert (drawn("randomized", 30, 1) != drawn("randomized", 30, 2)).any()


def test_real_positions_rise_and_have_fractions() -> None:
    (found,) = drawn("random_float(longest=100)", 50, 3)
    assert (found.diff() > 0).all() and found[0] >= 0 and found[-1] < 100 and (found % 1 != 0).all()


@pytest.mark.parametrize("text", ["randomized(longest=40)", "random_float(longest=40)"])
def test_an_example_stands_where_it_would_alone(text: str) -> None:
    (five,), (eight,) = drawn(text, 5), drawn(text, 8)
    assert torch.equal(drawn(text, 5), drawn(text, 5))  # an evaluation draws once
    segments = torch.tensor([[0] * 5 + [1] * 8])
    assert torch.equal(drawn(text, 13, segments=segments)[0], torch.cat((five, eight)))
    mask = segments == 1
    assert torch.equal(drawn(text, 13, mask=mask)[0, 5:], eight)
    assert torch.equal(drawn(text, 13, mask=~mask)[0, :5], five)


def test_rope_reads_them() -> None:
    encoding = made("randomized(longest=40)+rope")
    x = torch.randn(1, 2, 6, 8, dtype=torch.float64)
    context = context_of(encoding, 6)
    plain = made("rope")
    wanted = plain.rotate_query(x, drawn("randomized(longest=40)", 6)[..., None], context_of(plain, 6))
    torch.testing.assert_close(encoding.rotate_query(x, context.query_positions, context), wanted)


def test_a_row_longer_than_the_range_is_refused() -> None:
    with pytest.raises(NotPossibleError, match="it has 5 positions, and 6 were asked for"):
        drawn("randomized(longest=5)", 6)
