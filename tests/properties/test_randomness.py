"""`properties.randomness`: who draws from a global random state, sets it, or gives two answers to one question."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.encodings.none import NoEncoding
from posenc.encodings.sinusoidal import Sinusoidal


class DrawsGlobally(NoEncoding):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return embeddings + torch.rand(1) if context.training else embeddings


class DrawsFromNumpy(NoEncoding):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return embeddings + float(np.random.normal()) if context.training else embeddings


class DrawsFromPython(NoEncoding):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return embeddings + random.gauss(0, 1) if context.training else embeddings


@pytest.mark.parametrize(
    ("encoding", "whose"), [(DrawsGlobally, "torch"), (DrawsFromNumpy, "NumPy"), (DrawsFromPython, "Python")]
)
def test_one_that_draws_from_a_global_state_in_training(named: Any, encoding: type[Encoding], whose: str) -> None:
    findings = named(encoding, "random state", "repeatable")
    assert [name for name, found in findings.items() if found.passed is False] == ["random state", "repeatable"]
    assert findings["random state"].measured == f"{whose}'s drawn from in training"
    assert "causal softmax in training, causal performer in training" in findings["repeatable"].why


class Seeds(Sinusoidal):
    """Sets the states to what they are after making it, so that each pass leaves them as it found them."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._seed()

    def _seed(self) -> None:
        torch.manual_seed(0)
        np.random.seed(0)

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        self._seed()
        return super().embed(embeddings, positions, context)


def test_one_that_sets_global_states(measured: Any) -> None:
    findings = measured(Seeds, "random state")
    assert findings["random state"].passed is False
    for whose in ("NumPy", "torch"):
        assert f"{whose}'s drawn from in making or initialising and scoring and training" in (
            findings["random state"].measured
        )


OWN = np.random.default_rng(0)


class DrawsFromItsOwn(NoEncoding):
    """Touches no global state, and is another in every pass all the same: two runs of one cell would differ."""

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return queries * (1 + float(OWN.random()))


class GrowsInTraining(NoEncoding):
    """Counts the passes it has seen in training."""

    seen = 0

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        self.seen += context.training
        return embeddings * (1 + self.seen)


def test_one_that_draws_from_a_generator_of_its_own(measured: Any) -> None:
    findings = measured(DrawsFromItsOwn, "random state", "repeatable")
    assert findings["random state"].passed is True
    assert "causal softmax in training, causal softmax in scoring" in findings["repeatable"].why


def test_one_that_remembers_what_it_has_seen_in_training(named: Any) -> None:
    findings = named(GrowsInTraining, "random state", "repeatable")
    assert [name for name, found in findings.items() if found.passed is False] == ["repeatable"]
    assert "in scoring" not in findings["repeatable"].why


class DrawsAsItMay(NoEncoding):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        noise = torch.randn(embeddings.shape[-1], generator=context.generator, dtype=embeddings.dtype)
        return embeddings + noise if context.training else embeddings


def test_noise_from_the_generator_given_is_what_is_asked_for(measured: Any) -> None:
    findings = measured(DrawsAsItMay, "random state", "repeatable")
    assert findings["random state"].passed and findings["repeatable"].passed


class StartsGlobally(Encoding):
    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.table = nn.Parameter(torch.empty(stack.max_length, stack.width))

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.table)

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return embeddings + self.table[positions[..., 0] % len(self.table)]


def test_one_that_starts_from_the_global_state(measured: Any) -> None:
    findings = measured(StartsGlobally, "random state", "start")
    assert findings["random state"].measured == "torch's drawn from in making or initialising"
    assert "decoder.encoding.table (a second time)" in findings["start"].why
