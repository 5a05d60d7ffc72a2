"""T5's buckets by exact arithmetic, and attention with its biases."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import BOTH_WAYS, attend, context_of, dot, joined, layer_of, made, projected, randn, t5_bias, t5_bucket

from posenc.encodings.t5 import T5, bucket

pytestmark = pytest.mark.usefixtures("one_thread")


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
