"""`properties.layers` and the positions handed to hooks: each layer its own, and what is given is used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_
from posenc.encodings.rope import Rope
from posenc.encodings.sinusoidal import Sinusoidal
from posenc.encodings.t5 import T5
from posenc.properties.check import measure


def failed(findings: dict[str, Any]) -> list[str]:
    return [name for name, finding in findings.items() if finding.passed is False]


class PerLayer(Encoding):
    """A slope for each layer and head: an honest bias by distance that differs by layer."""

    relative = True

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.slopes = nn.Parameter(torch.empty(stack.layers, stack.heads, 1))

    def initialise(self, generator: torch.Generator) -> None:
        normal_(self.slopes, 0.3, generator)

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return self.slopes[context.layer] * distances


class SaysShared(PerLayer):
    """Says that one bias serves all layers, and means another in each."""

    shared = True


class KeepsTheFirst(PerLayer):
    """Keeps what it made in the pass's first layer, and gives it to all others."""

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        key = ("kept", len(distances))
        if key not in context.cache:
            context.cache[key] = super().distance_bias(distances, context)
        kept: Tensor = context.cache[key]
        return kept


def test_each_layer_has_a_bias_of_its_own(named: Any) -> None:
    findings = named(PerLayer, "layers")
    assert failed(findings) == []
    assert "its bias by distance differs by layer: causal softmax" in findings["layers"].measured


@pytest.mark.parametrize("encoding", [SaysShared, KeepsTheFirst])
def test_layers_that_get_the_first_ones_bias(measured: Any, encoding: type[Encoding]) -> None:
    findings = measured(encoding, "layers")
    assert failed(findings) == ["layers"]
    why = findings["layers"].why
    assert "what attention adds is not what the encoding answers for the layer" in why
    assert "causal softmax layer 1" in why and "causal softmax layer 2" in why and "layer 0" not in why


class AnotherBiasInPairs(T5):
    """A fast form that is not what the plain hooks say: Shaw's tables with the distances turned round."""

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        table = torch.linspace(-1, 1, 3 * queries.shape[-1], dtype=queries.dtype).view(3, -1)
        distances = context.key_positions[:, None, :, 0] - context.query_positions[:, :, None, 0]
        return (queries @ table.T).gather(-1, (distances.clamp(-1, 1) + 1)[:, None].expand(*queries.shape[:2], -1, -1))

    def mix_values(self, weights: Tensor, context: Context) -> Tensor:
        return 0 * weights[..., : self.stack.head_width].sum(-1, keepdim=True).expand(-1, -1, -1, self.stack.head_width)

    def clipped_vectors(self, context: Context) -> tuple[Tensor, Tensor]:
        table = torch.linspace(-1, 1, 3 * self.stack.head_width, dtype=torch.float64).view(3, -1)
        return table.flip(0), torch.zeros_like(table)


def test_a_fast_form_that_is_not_the_plain_one(measured: Any) -> None:
    found = measured(AnotherBiasInPairs, "layers")["layers"]
    assert found.passed is False
    assert "causal softmax layer 0" in found.why


@pytest.mark.parametrize("name", ["rope", "t5", "shaw"])
def test_layers_of_built_in_encodings(name: str) -> None:
    (found,) = measure(name, lengths=(), names=["layers"])
    assert found.passed is True
    assert "differs by layer" not in found.measured


# Positions that are handed


class Own(Rope):
    """Turns by the pass's own positions, whatever it is handed."""

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_query(queries, context.query_positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_key(keys, context.query_positions, context)


class Remembers(Sinusoidal):
    """Makes its table once a pass: what it is handed second gets what was made first."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        if "made" not in context.cache:
            context.cache["made"] = super().embed(torch.zeros_like(embeddings), positions, context)
        return embeddings + context.cache["made"]


class Quarter(Own):
    """What a plug-in's author writes on top of one that ignores positions: it trains plain rope."""

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_query(queries, positions / 4, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_key(keys, positions / 4, context)


class HonestQuarter(Rope):
    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_query(queries, positions / 4, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_key(keys, positions / 4, context)


@pytest.mark.parametrize(("encoding", "hook"), [(Own, "rotate_query"), (Quarter, "rotate_key"), (Remembers, "embed")])
def test_positions_handed_that_are_ignored(named: Any, encoding: type[Encoding], hook: str) -> None:
    findings = named(encoding, "positions")
    assert failed(findings) == ["positions"]
    assert "positions handed are ignored, the pass's own are used" in findings["positions"].why
    assert f"causal softmax {hook}" in findings["positions"].why


def test_positions_that_are_used_as_handed(named: Any) -> None:
    assert failed(named(HonestQuarter, "positions", "translation", "layers")) == []


class NoPosition(Encoding):
    """Scales queries, and has no use for positions."""

    tells_order = False
    relative = True

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return 2 * queries


def test_a_hook_that_has_no_use_for_positions_is_told_and_not_blamed(measured: Any) -> None:
    found = measured(NoPosition, "positions")["positions"]
    assert found.passed is True
    assert "no position enters, handed or the pass's own: causal softmax rotate_query" in found.measured
