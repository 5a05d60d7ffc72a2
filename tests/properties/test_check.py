"""`properties.check`: every built-in encoding is what it declares, and each kind of broken one is caught by name."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from findings import NAMES, failed
from hypothesis import given, settings
from hypothesis import strategies as st
from models import KINDS
from torch import Tensor, nn

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.common.errors import ConfigError, UnknownNameError
from posenc.encodings.none import NoEncoding
from posenc.encodings.rope import Rope
from posenc.encodings.sinusoidal import Sinusoidal, sinusoid_table
from posenc.encodings.t5 import T5
from posenc.properties.check import default_lengths, measure, passed

# The built-in ones


@pytest.mark.parametrize(
    "encoding", ["learned+t5(buckets=8, max_distance=16)", "rope_outside", "shaw(clip=2)", "dape_v2", "fox", "cope"]
)
def test_each_kind_of_encoding_does_what_it_declares(encoding: str) -> None:
    names = [name for name in NAMES if name != "graph"]  # which `nox -s slow` asks of all
    findings = measure(encoding, lengths=(72,), names=names)
    assert [finding.name for finding in findings] == names
    assert not [finding for finding in findings if finding.passed is False]
    assert passed(findings)
    for finding in findings:
        assert finding.what.endswith(".")
        assert finding.why if finding.passed is None else finding.measured


@pytest.mark.slow
@settings(max_examples=8)
@given(
    parts=st.lists(st.sampled_from([*KINDS, "rope(fraction=0.25)", "shaw(clip=3)"]), min_size=1, max_size=2),
    seed=st.integers(0, 2**31),
    length=st.integers(4, 30),
    other=st.integers(2, 150),
)
def test_neither_seed_nor_length_decides(parts: list[str], seed: int, length: int, other: int) -> None:
    findings = measure("+".join(parts), seed=seed, length=length, lengths=(other,))
    assert passed(findings) or findings[1].why == "it serves no stack at all", findings


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [*registry.BUILT_IN, "sinusoidal+rope", "rope(base=500000, fraction=0.5)"])
def test_every_built_in_encoding_passes_the_whole_check(encoding: str, fresh_seed: int) -> None:
    """At three of the lengths at which `posenc check` looks for leaks, others in each run."""
    lengths = random.Random(fresh_seed).sample(default_lengths(), 3)
    findings = measure(encoding, seed=fresh_seed, lengths=lengths)
    assert not [finding for finding in findings if finding.passed is False], lengths


def test_what_does_not_apply_says_why() -> None:
    told = ("attention", "packed rows", "gradients", "backends", "cached decoding")
    findings = {finding.name: finding for finding in measure("rope_outside", lengths=(), names=told)}
    assert findings["backends"].passed is None
    assert findings["backends"].why == "it serves no softmax attention"
    assert findings["packed rows"].passed and "bidirectional performer" in findings["packed rows"].measured
    assert findings["cached decoding"].passed and "causal performer" in findings["cached decoding"].measured
    assert findings["gradients"].why == "it has no parameters"
    assert "equation (19)" in findings["attention"].measured


def test_what_is_measured_is_told_in_numbers() -> None:
    told = ("loads", "causality", "gradients", "lengths")
    findings = {finding.name: finding for finding in measure("learned", names=told)}
    assert "causal softmax 0" in findings["causality"].measured
    assert "causal softmax 3072" in findings["gradients"].measured  # 48 positions, 64 wide
    assert findings["lengths"].measured == "48 works, 49 is refused"
    assert "options: none" in findings["loads"].measured
    assert "base=10000.0" in measure("rope", names=["loads"])[0].measured


def test_measuring_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before, own, numpy_own = torch.get_rng_state(), random.getstate(), np.random.get_state()
    measure("shaw(clip=2)", lengths=(), names=("order", "random state", "repeatable", "start"))
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == own
    assert str(np.random.get_state()) == str(numpy_own)


def test_a_mistyped_name_or_option_is_an_error_not_a_finding() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'rope'"):
        measure("roep")
    with pytest.raises(UnknownNameError, match="bse"):
        measure("rope(bse=2)")
    with pytest.raises(ConfigError, match="more than 1"):
        measure("rope(base=0.5)")


# Leaks


class LooksAhead(NoEncoding):
    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        later = keys.flip(2).cumsum(2).flip(2).sum(-1)  # (B,H,S): each key and those after it
        return (0.1 * later[:, :, None, :]).expand(-1, -1, context.queries, -1)


def test_a_bias_that_looks_at_later_keys(measured: Any) -> None:
    causality = measured(LooksAhead, "causality")["causality"]
    assert causality.passed is False
    assert "later tokens reach earlier outputs (causal softmax at 24 tokens)" in causality.why


class FromTheEnd(Sinusoidal):
    """Counts positions from the row's end: no token is looked at, and yet the row's length is known."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().embed(embeddings, context.lengths[:, None, None] - positions, context)


class FromTheEndUncached(FromTheEnd):
    cached_decoding = False


def test_positions_that_come_from_the_length(measured: Any) -> None:
    findings = measured(FromTheEnd, "causality", "cached decoding")
    assert "token changed: causal softmax 0" in findings["causality"].measured
    assert "how long the row is reaches earlier outputs" in findings["causality"].why
    assert failed(findings) == ["causality", "cached decoding"]


def test_one_that_declares_no_cached_decoding_may_know_the_length(measured: Any) -> None:
    findings = measured(FromTheEndUncached, "causality", "cached decoding")
    assert findings["causality"].passed is True
    assert findings["cached decoding"].measured == "refused"


class Counts(Sinusoidal):
    """Counts tokens itself, padding and earlier packed examples too."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        own = torch.arange(context.offset, context.keys)
        return embeddings + sinusoid_table(own, self.stack.width).to(embeddings.dtype)


def test_one_that_counts_padding(named: Any) -> None:
    findings = named(Counts, "causality", "padding", "packed rows")
    assert failed(findings) == ["padding", "packed rows"]
    assert "causal softmax left" in findings["padding"].why
    assert "right" not in findings["padding"].why


# Declarations that are not true


class SaysRelative(Sinusoidal):
    relative = True


class SaysAbsolute(T5):
    relative = False


class CountsAndSaysRelative(Counts):
    relative = True


class SaysNoOrder(Rope):
    tells_order = False


class SaysOrder(NoEncoding):
    tells_order = True


class Stretches(Rope):
    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return 1.5 * super().rotate_key(keys, positions, context)


@pytest.mark.parametrize(
    ("encoding", "finding", "said"),
    [
        (SaysRelative, "translation", "declares relative=True, and is not relative"),
        (SaysAbsolute, "translation", "declares relative=False, and is relative"),
        (CountsAndSaysRelative, "translation", "declares relative=True, and is not relative"),
        (SaysNoOrder, "order", "declares tells_order=False"),
        (SaysOrder, "order", "declares tells_order=True"),
        (Stretches, "norms", "norms change"),
    ],
)
def test_a_declaration_that_is_not_true(named: Any, encoding: type[Encoding], finding: str, said: str) -> None:
    others = {"padding", "packed rows"} if issubclass(encoding, Counts) else set()
    findings = named(encoding, finding, *others)
    assert findings[finding].passed is False
    assert said in findings[finding].why
    assert set(failed(findings)) == {finding} | others


# Precision


class LowAngles(Rope):
    """Angles built in the dtype of the activations, as much code does."""

    low = torch.bfloat16

    def _rotate(self, x: Tensor, positions: Tensor, context: Context) -> Tensor:
        exponents = torch.arange(0, x.shape[-1], 2) / x.shape[-1]
        dtype = self.low if x.dtype != torch.float64 else x.dtype
        angles = positions[:, None, :, :].to(dtype) * (self.base ** -exponents.double()).to(dtype)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class Float32Angles(LowAngles):
    low = torch.float32


class LowTable(Sinusoidal):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().embed(embeddings, positions.to(embeddings.dtype), context)


@pytest.mark.parametrize(
    ("encoding", "hook", "dtype"),
    [(LowAngles, "rotate_key", "bfloat16"), (Float32Angles, "rotate_key", "float32"), (LowTable, "embed", "bfloat16")],
)
def test_angles_built_in_a_low_precision(named: Any, encoding: type[Encoding], hook: str, dtype: str) -> None:
    findings = named(encoding, "low precision")
    assert failed(findings) == ["low precision"]
    assert f"more than rounding in {dtype}" in findings["low precision"].why
    assert hook in findings["low precision"].why


# Parameters


class Idle(T5):
    """Has a parameter that reaches nothing, and one that is cut off."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.unused = nn.Parameter(torch.zeros(3))
        self.detached = nn.Parameter(torch.zeros(stack.heads, 1))

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return super().distance_bias(distances, context) + self.detached.detach()


def test_parameters_that_get_no_gradient(named: Any) -> None:
    findings = named(Idle, "gradients")
    assert failed(findings) == ["gradients"]
    assert "unused of causal softmax" in findings["gradients"].why
    assert "detached of bidirectional softmax" in findings["gradients"].why
    assert "table" not in findings["gradients"].why


class NoStart(Encoding):
    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.weight = nn.Parameter(torch.zeros(1))


def test_parameters_that_nothing_starts(measured: Any) -> None:
    findings = measured(NoStart, "loads", "causality")
    assert findings["loads"].passed
    assert "NoStart has parameters and must say how they start" in findings["causality"].measured


class FromZero(Encoding):
    """A bias that starts from nothing at all: only moved off its start does it show what it does."""

    relative = True

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.slopes = nn.Parameter(torch.zeros(stack.heads, 1))

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.zeros_(self.slopes)

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return self.slopes * distances


def test_one_that_starts_from_zero_is_measured_all_the_same(named: Any) -> None:
    assert failed(named(FromZero, "translation", "order", "layers", "gradients")) == []
