"""Transformer-XL's scores, held against XLNet's, where tokens are counted and where they are not."""

from __future__ import annotations

import math

import pytest
import torch
from goldens import context_of, golden, made, parameters

from posenc.common.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("counted", [True, False])
def test_transformer_xl(counted: bool) -> None:
    theirs = {name: array.double() for name, array in golden("transformer_xl").items()}
    weight = theirs["position_projection"].flatten(1).T
    encoding = made("transformer_xl", 2, stack={"causal": False}, u=theirs["u"], v=theirs["v"], weight=weight)
    context = context_of(encoding, 11)
    assert context.counted
    context.counted = counted
    q, k = theirs["queries"], theirs["keys"]
    scores = q @ k.transpose(-1, -2) * encoding.score_scale + encoding.score_bias(q, k, context)
    torch.testing.assert_close(scores.softmax(-1), theirs["weights_both_ways"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("queries", "keys"), [(9, 9), (1, 9), (4, 9), (1, 1), (2, 2)])
@pytest.mark.parametrize("causal", [True, False])
def test_shifted_rows_are_those_gathered_and_the_formula(queries: int, keys: int, causal: bool) -> None:
    if not causal and queries != keys:
        return  # only a causal model decodes
    encoding = made("transformer_xl(base=50.0)", 2, stack={"causal": causal})
    q, k = torch.randn(1, 2, queries, 8, dtype=torch.float64), torch.randn(1, 2, keys, 8, dtype=torch.float64)
    context = context_of(encoding, keys)
    context.queries = queries
    context.query_positions = context.key_positions[:, keys - queries :]
    shifted = encoding.score_bias(q, k, context)
    context.counted = False
    gathered = encoding.score_bias(q, k, context)
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) | (not causal)
    torch.testing.assert_close(shifted[..., seen], gathered[..., seen], atol=1e-12, rtol=0)
    u, v, weight = (encoding.get_parameter(name)[1] for name in ("u", "v", "weight"))
    i, j = queries - 1, 0
    n = keys - queries + i - j
    angles = [n * 50.0 ** (-2 * c / 16) for c in range(8)]
    r = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
    wanted = (u[1] @ k[0, 1, j] + (q[0, 1, i] + v[1]) @ (weight[8:] @ r)) / 8**0.5
    assert shifted[0, 1, i, j].item() == pytest.approx(wanted.item(), abs=1e-12)


def test_parameters_and_bad_options() -> None:
    assert parameters("transformer_xl") == 2 * (2 * 2 * 8 + 16 * 16)
    with pytest.raises(ConfigError, match="more than 1"):
        made("transformer_xl(base=0.5)")
