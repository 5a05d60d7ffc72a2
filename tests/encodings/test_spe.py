"""SPE: its kernel is the authors' own, its codes have that mean, and its linear form is that of wider vectors."""

from __future__ import annotations

import pytest
import torch
from goldens import context_of, golden, made
from torch import Tensor

from posenc.attention.linear.kernel import FORMS
from posenc.common.errors import ConfigError
from posenc.encodings.spe import Spe

pytestmark = pytest.mark.usefixtures("one_thread")


def encoding_of(text: str = "spe", **values: Tensor) -> Spe:
    encoding = made(text, 2, 8, **values)
    assert isinstance(encoding, Spe)
    return encoding


def of_mean(encoding: Spe, queries: Tensor, keys: Tensor) -> Tensor:
    """The mean of the scores over all codes, (B,H,L,L)."""
    places = torch.arange(queries.shape[2])[None, :, None]
    sides = (encoding.spread(x, places, 1, first) for x, first in ((queries, True), (keys, False)))
    query, key = sides
    return query @ key.transpose(-1, -2)


def test_its_kernel_is_the_authors_own() -> None:
    theirs = golden("spe_sine_kernel")
    names = {"frequencies": "freqs", "offsets": "offsets", "gains": "gains"}
    encoding = encoding_of("spe(sines=3)", **{ours: theirs[name] for ours, name in names.items()})
    for channel in range(8):
        unit = torch.zeros(1, 2, 11, 8, dtype=torch.float64)
        unit[..., channel] = 1
        torch.testing.assert_close(of_mean(encoding, unit, unit)[0], theirs["kernel"][:, channel], atol=1e-12, rtol=0)


@pytest.mark.parametrize("text", ["spe", "spe(gated=True)"])
def test_codes_have_that_mean(text: str) -> None:
    encoding = encoding_of(text)
    q, k = torch.randn(2, 1, 2, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(600):
        context = context_of(encoding, 6, training=True, generator=generator)
        query = encoding.rotate_query(q, context.query_positions, context)
        found.append(query @ encoding.rotate_key(k, context.key_positions, context).transpose(-1, -2))
    assert query.shape == (1, 2, 6, 64)
    drawn = torch.stack(found)
    off = (drawn.mean(0) - of_mean(encoding, q, k)) / (drawn.std(0) / 600**0.5)
    assert off.abs().max() < 4.5, "72 means, none far from the kernel in standard errors"
    assert drawn.std(0).min() > 0


def test_a_gate_of_one_has_no_position() -> None:
    gate = torch.full((2, 8), 40.0)
    encoding = encoding_of("spe(gated=True)", gate=gate)
    q, k = torch.randn(2, 1, 2, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(of_mean(encoding, q, k), q @ k.transpose(-1, -2), atol=1e-6, rtol=0)


def test_draws_are_each_batchs_own_in_training_and_one_in_evaluation() -> None:
    encoding, q = encoding_of(), torch.randn(1, 2, 6, 8, dtype=torch.float64)

    def coded(**more: object) -> Tensor:
        context = context_of(encoding, 6, **more)
        return encoding.rotate_query(q, context.query_positions, context)

    generator = torch.Generator().manual_seed(1)
    assert torch.equal(coded(), coded())
    first, second = (coded(training=True, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, coded(training=True, generator=torch.Generator().manual_seed(1)))
    context = context_of(encoding, 6)
    assert torch.equal(encoding.codes(context), encoding.codes(context))
    context.layer = 0
    assert not torch.equal(encoding.codes(context), encoding.fixed[1] / 8)


@pytest.mark.parametrize("causal", [True, False])
def test_in_linear_attention_features_are_drawn_of_the_coded_vectors(causal: bool) -> None:
    encoding = made("spe", 2, 8, stack={"causal": causal})
    x = torch.randn(3, 2, 2, 13, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel = FORMS["wider"](causal=causal, width=encoding.linear_width, features=32, chunk=8)
    kernel.redraw(5)
    context = context_of(encoding, 13)
    found = kernel.attend(*x, encoding, context)
    sides = (
        encoding.rotate_query(x[0], context.query_positions, context),
        encoding.rotate_key(x[1], context.key_positions, context),
    )
    f, g = (y * 8**-0.25 for y in sides)
    f, g = (y @ kernel.projection.T - y.square().sum(-1, keepdim=True) / 2 for y in (f, g))
    logs = torch.logsumexp(f[:, :, :, None] + g[:, :, None], dim=-1)
    if causal:
        logs = logs.masked_fill(torch.ones(13, 13, dtype=torch.bool).triu(1), -torch.inf)
    torch.testing.assert_close(found, logs.softmax(-1) @ x[2], atol=1e-11, rtol=0)


def test_what_it_refuses() -> None:
    with pytest.raises(ConfigError, match="sines=0"):
        made("spe(sines=0)")
