"""Shaw's equations 3 and 4, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from by_hand import BOTH_WAYS, attend, context_of, joined, layer_of, made, projected, randn, shaw_vectors

from posenc.encodings.shaw import Shaw

pytestmark = pytest.mark.usefixtures("one_thread")


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
