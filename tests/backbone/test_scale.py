"""Scores that are not divided by the root of a head's width: the same as with queries that many times as large."""

from __future__ import annotations

import pytest
import torch
from models import exact, tokens_of

from posenc.api import registry
from posenc.api.stack import Stack

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_it_is_a_scaled_model_of_larger_queries(attention: str) -> None:
    bare, scaled = (exact("rope", scale=scale, attention=attention) for scale in ("none", "sqrt"))
    tokens = tokens_of(2, 9)
    assert not torch.allclose(bare(tokens), scaled(tokens))
    width = scaled.config.width // scaled.config.heads
    with torch.no_grad():
        for name, parameter in scaled.named_parameters():
            # A Performer's features depend on the norms of both, so each takes half.
            if "attention.query" in name:
                parameter.mul_(width**0.25)
            if "attention.key" in name:
                parameter.mul_(width**0.25)
    torch.testing.assert_close(scaled(tokens), bare(tokens), atol=1e-10, rtol=0)


def test_each_encodings_own_scale_builds_on_it() -> None:
    for name in registry.BUILT_IN:
        if name in registry.NEED_OTHERS:
            continue
        kind = registry.load(name)
        shape = {"layers": 1, "heads": 2, "width": 32, "head_width": 16, "max_length": 8}
        more = {"causal": "causal" in kind.directions, "axes": kind.axes or 1}
        scaled, bare = (registry.create(name, Stack(**shape, **more, scaled=one)).score_scale for one in (True, False))
        assert bare == pytest.approx(4 * scaled), name
