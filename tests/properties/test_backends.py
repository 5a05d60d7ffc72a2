"""What `check` sees of backends, bf16, stored weights, compilers and memory: encodings that are wrong there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from posenc.api.encoding import Context
from posenc.encodings.none import NoEncoding
from posenc.encodings.shaw import Shaw
from posenc.encodings.sinusoidal import Sinusoidal

pytestmark = pytest.mark.usefixtures("one_thread")


class OtherTable(Shaw):
    """Its tables are not what its hooks answer: backends that take the tables give something else."""

    def clipped_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        keys, values = super().clipped_vectors(context)
        return 2 * keys, values


def test_a_table_that_is_not_what_the_hooks_answer(measured: Any) -> None:
    found = measured(OtherTable, "backends")["backends"]
    assert found.passed is False
    assert "a backend gives something else (causal softmax blocks, bidirectional softmax blocks)" in found.why


class InHalfPrecision(Sinusoidal):
    """Outside float64 it takes its channels in another order."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        placed = super().embed(embeddings, positions, context)
        return placed if embeddings.dtype == torch.float64 else placed.flip(-1)


def test_a_model_that_bf16_moves_far(measured: Any) -> None:
    found = measured(InHalfPrecision, "mixed precision")["mixed precision"]
    assert found.passed is False and "of the norm" in found.why


class Unsaved(Sinusoidal):
    """A table of its own that no checkpoint holds."""

    def initialise(self, generator: torch.Generator) -> None:
        self.drawn = torch.randn(self.stack.width, generator=generator)

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().embed(embeddings, positions, context) + self.drawn.to(embeddings.dtype)


def test_what_a_checkpoint_does_not_hold(measured: Any) -> None:
    found = measured(Unsaved, "state")["state"]
    assert found.passed is False and "does not give the same again" in found.why


class LooksAtNumbers(Sinusoidal):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().embed(embeddings, positions, context) * (2.0 if embeddings.sum() > 0 else 1.0)


def test_a_hook_that_breaks_a_compilers_graph(measured: Any) -> None:
    found = measured(LooksAtNumbers, "graph")["graph"]
    assert found.passed is False and "it cannot be one graph (causal softmax" in found.why


class VectorOfEachPair(NoEncoding):
    """A vector as wide as the model for every pair of tokens, as naive forms of Shaw's have it."""

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        every = queries[:, :, :, None] + keys[:, :, None]  # (B,H,L,S,K)
        return every.sin().sum(-1).sub(0.1)


def test_a_vector_for_each_pair_of_tokens(measured: Any) -> None:
    found = measured(VectorOfEachPair, "memory")["memory"]
    assert found.passed is False and "64 numbers or more for each pair of tokens" in found.why


@pytest.mark.slow
def test_what_is_sound_passes_all_five(measured: Any) -> None:
    names = ("backends", "mixed precision", "state", "graph", "memory")
    found = measured(Shaw, *names)
    assert [found[name].passed for name in names] == [True] * 5
    assert "causal softmax blocks" in found["backends"].measured
    assert "2.0 times that of half the length" in found["memory"].measured  # no table of L x S by blocks
