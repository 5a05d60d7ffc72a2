"""FoX and CABLE, held against what the authors' own code answers."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, made, parameters

pytestmark = pytest.mark.usefixtures("one_thread")


def test_fox() -> None:
    theirs = golden("fox")
    encoding = made("fox", 2, weight=theirs["gate_weight"], bias=theirs["gate_bias"])
    context = context_of(encoding, 12, hidden=theirs["hidden"])
    q, k, v = (theirs[name] for name in ("queries", "keys", "values"))
    scores = q @ k.transpose(-1, -2) / 8**0.5 + encoding.score_bias(q, k, context)
    weights = scores.masked_fill(~context.visible, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights @ v, theirs["output"], atol=1e-12, rtol=0)


def test_cable() -> None:
    """Their whole attention: without 1/sqrt(K), which is put back here."""
    theirs = golden("cable")
    encoding = made("cable", 2, weight=theirs["gate_weight"], bias=theirs["gate_bias"])
    hidden = theirs["hidden"]
    context = context_of(encoding, 11, hidden=hidden)
    mixed = hidden @ theirs["qkv_weight"].T + theirs["qkv_bias"]
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in mixed.chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) + encoding.score_bias(q, k, context)
    heads = scores.masked_fill(~context.visible, -torch.inf).softmax(-1) @ v
    output = heads.transpose(1, 2).flatten(2) @ theirs["out_weight"].T + theirs["out_bias"]
    torch.testing.assert_close(output, theirs["output"], atol=1e-12, rtol=0)


def test_cable_is_fox_with_its_gate_negated() -> None:
    generator = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(2, 16, generator=generator), torch.randn(2, generator=generator)
    fox, cable = made("fox", 2, weight=weight, bias=bias), made("cable", 2, weight=-weight, bias=-bias)
    hidden = torch.randn(3, 9, 16, generator=generator, dtype=torch.float64)
    x = torch.zeros(3, 2, 9, 8, dtype=torch.float64)
    answers = [one.score_bias(x, x, context_of(one, 9, hidden=hidden)) for one in (fox, cable)]
    assert torch.equal(*answers) and answers[0].abs().max() > 1


@pytest.mark.parametrize(("text", "count"), [("fox", 2 * 2 * (16 + 1)), ("cable", 2 * 2 * (16 + 1))])
def test_parameters(text: str, count: int) -> None:
    assert parameters(text) == count
