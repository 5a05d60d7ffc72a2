"""`properties.leaks`: what leaks beyond the short length alone, and where a check looks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from posenc.api.encoding import Context, Encoding
from posenc.common.errors import ConfigError
from posenc.common.toml import read_toml
from posenc.config.task import available
from posenc.encodings.none import NoEncoding
from posenc.encodings.sinusoidal import Sinusoidal, sinusoid_table
from posenc.plan import catalogue
from posenc.properties.check import measure
from posenc.properties.subject import DISTANT, MULTIPLES, Subject


class NextBeyond(NoEncoding):
    """Hands each query its next key, in rows longer than what was trained on, and only there."""

    def beyond(self, context: Context) -> bool:
        return context.keys > self.stack.max_length

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        bias = torch.zeros(len(keys), self.stack.heads, context.queries, context.keys, dtype=keys.dtype)
        if self.beyond(context):
            following = keys.roll(-1, dims=2).sum(-1)[..., None, context.offset :]  # (B,H,1,L)
            bias = bias + following.transpose(-1, -2)[..., :, :1] * torch.arange(context.keys)
        return bias


class NextFar(NextBeyond):
    def beyond(self, context: Context) -> bool:
        return context.keys > 1000


class NextAtTheEnd(NextBeyond):
    """The last query but one alone, which sees the last key."""

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        bias = super().score_bias(queries, keys, context)
        return bias * (torch.arange(context.queries) == context.queries - 2)[:, None]


@pytest.mark.parametrize(
    ("encoding", "lengths", "at"),
    [(NextBeyond, (72, 96), "72 96"), (NextFar, (96, 1031), "1,031"), (NextAtTheEnd, (72, 96), "72 96")],
)
def test_later_tokens_that_are_read_beyond_the_trained_length_alone(
    measured: Any, encoding: type[Encoding], lengths: tuple[int, ...], at: str
) -> None:
    assert measured(encoding, "causality")["causality"].passed is True, "at the short length there is nothing to see"
    assert set(lengths) < set(Subject("none", 0, 24).others), "these are among those where it looks unless told"
    causality = measured(encoding, "causality", lengths=lengths)["causality"]
    assert causality.passed is False
    assert f"later tokens reach earlier outputs (causal softmax at {at} tokens" in causality.why


class CountsBeyond(Sinusoidal):
    """Counts tokens itself beyond the trained length: padding, packed neighbours and what is cached too."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        if context.keys <= self.stack.max_length:
            return super().embed(embeddings, positions, context)
        own = torch.arange(context.queries)
        return embeddings + sinusoid_table(own, self.stack.width).to(embeddings.dtype)


def test_padding_packing_and_cached_decoding_beyond_the_trained_length(measured: Any) -> None:
    wanted = {
        "padding": "padding changes outputs (causal softmax left at 72 96",
        "packed rows": "packed examples are not as they are alone (causal softmax at 72 96",
        "cached decoding": "cached decoding differs (causal softmax at 72 96, causal performer at 72 96 tokens)",
    }
    short, found = (measured(CountsBeyond, *wanted, lengths=lengths) for lengths in ((), (72, 96)))
    for name, said in wanted.items():
        assert short[name].passed is True
        assert found[name].passed is False
        assert said in found[name].why


def test_a_limited_encoding_is_measured_as_far_as_it_goes() -> None:
    told = ("causality", "padding", "lengths")
    found = {finding.name: finding for finding in measure("learned", names=told)}
    assert "; at 24 48 tokens" in found["causality"].measured
    assert "; at 24 tokens" in found["padding"].measured, "48 positions hold no padding beside 48 tokens"
    assert found["lengths"].measured == "48 works, 49 is refused"


@pytest.mark.parametrize("length", [1, 0, -5, 4097, 10**30])
def test_a_length_that_cannot_be_paid_for_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=f"{length} tokens cannot be checked: from 2 to 4,096 can"):
        measure("none", lengths=(96, length))


def test_the_other_lengths_are_told_once_each_and_in_order() -> None:
    assert Subject("none", 0, 24, (96, 50, 96)).others == [50, 96]
    assert Subject("none", 0, 24).others == sorted({*(int(48 * by) for by in MULTIPLES), *DISTANT})


def test_a_suite_tells_the_lengths_that_it_scores() -> None:
    assert catalogue.lengths_scored("quick", 4096) == [64, 256]
    assert catalogue.lengths_scored("quick", 100) == [64]


def factors(table: Any) -> Iterator[float]:
    """Every `length_factors`, and every `lengths` of multiples, at any depth of a TOML."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        if key in ("length_factors", "evaluation.length_factors"):
            yield from value
        elif isinstance(value, dict | list):
            yield from factors(value)


def test_every_multiple_that_a_task_or_a_suite_scores_is_looked_at() -> None:
    """But of images: an encoder reads them whole, and nothing can leak. Half of the trained length is the short row."""
    read = [read_toml(path) for kind in ("tasks", "suites") for path in available(kind).values()]
    scored = {by for one in read if one.get("objective") not in ("images", "videos") for by in factors(one)}
    scored = {by for by in scored if by >= 1}
    assert {1, 2, 4} <= scored <= set(MULTIPLES)
