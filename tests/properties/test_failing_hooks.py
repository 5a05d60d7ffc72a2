"""`properties.check` of hooks that fail, of what cannot be made or loaded, and of lengths that are not as declared."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from findings import NAMES, failed
from torch import Tensor, nn

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.api.starts import normal_
from posenc.common.errors import NotPossibleError, PluginError
from posenc.encodings.none import NoEncoding
from posenc.encodings.sinusoidal import Sinusoidal
from posenc.properties.check import measure


class Raises(NoEncoding):
    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        raise ZeroDivisionError("no angle")


class WrongShape(NoEncoding):
    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return torch.zeros(1, len(distances))


class NoTensor(NoEncoding):
    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return None  # type: ignore[return-value]


class NoNumber(NoEncoding):
    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        return torch.full((1, context.stack.heads, context.queries, context.keys), float("nan"))


class WrongType(NoEncoding):
    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return keys.float().bfloat16()


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        (Raises, "hook rotate_query of Raises raised ZeroDivisionError: no angle"),
        (WrongShape, "hook distance_bias of WrongShape gave shape (1, 47) where it must be (4, 47)"),
        (NoTensor, "hook embed of NoTensor gave a NoneType, and no tensor"),
        (NoNumber, "hook score_bias of NoNumber gave values that are not finite"),
        (WrongType, "hook rotate_key of WrongType gave torch.bfloat16 where it must be torch.float64"),
    ],
)
def test_a_hook_that_fails_is_named(measured: Any, encoding: type[Encoding], said: str) -> None:
    for text in ("broken", "broken+sinusoidal"):
        findings = measured(encoding, "loads", "causality", text=text)
        assert findings["causality"].measured == said
        assert findings["loads"].passed


def test_a_hook_that_fails_in_one_measurement_keeps_no_other_from_going_on(measured: Any) -> None:
    asked = [name for name in NAMES if name != "graph"]
    findings = measured(Raises, *asked)
    assert list(findings) == asked
    assert {"causality", "lengths"} <= set(failed(findings)) and findings["loads"].passed


class CannotBeMade(NoEncoding):
    def __init__(self, stack: Stack) -> None:
        raise RuntimeError("no such table")


class ServesNothing(NoEncoding):
    linear_form = None
    softmax_reason = "not possible: it is an example"


class GivesNoReason(NoEncoding):
    linear_form = None
    linear_reason = " "


def test_one_that_cannot_be_made(measured: Any) -> None:
    findings = measured(CannotBeMade, *NAMES)
    assert failed(findings) == ["loads", "attention"]
    assert "CannotBeMade.__init__ raised RuntimeError: no such table" in findings["loads"].why
    assert findings["causality"].why == "it serves no stack"


def test_one_that_serves_no_stack_says_why(measured: Any) -> None:
    findings = measured(ServesNothing, *NAMES)
    assert failed(findings) == ["attention"]
    assert "causal softmax: not possible: it is an example" in findings["attention"].measured
    assert failed(named_again := {f.name: f for f in measure("rope_outside+t5", lengths=())}) == ["attention"], (
        named_again
    )


def test_a_refusal_must_have_a_reason(measured: Any) -> None:
    assert "no reason for causal performer" in measured(GivesNoReason, "attention")["attention"].why


class Unlimited(Sinusoidal):
    """Says that it has an end, and answers beyond it."""

    @property
    def max_length(self) -> int:
        return 40

    def why_not_at(self, length: int) -> None:
        return None


class Stops(Sinusoidal):
    """Says that it has no end, and has one."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        if context.keys > 64:
            raise NotPossibleError("not possible: too long")
        return super().embed(embeddings, positions, context)


class Remembers(Sinusoidal):
    """Keeps the longest length seen, as some dynamic variants do."""

    longest = 32

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        self.longest = max(self.longest, context.keys)
        return super().embed(embeddings, positions * 32 / self.longest, context)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        (Unlimited, "41 tokens are not refused"),
        (Stops, "NotPossibleError: not possible: too long"),
        (Remembers, "the same row gives something else after a longer one"),
    ],
)
def test_lengths_that_are_not_as_declared(measured: Any, encoding: type[Encoding], said: str) -> None:
    found = measured(encoding, "lengths")["lengths"]
    assert found.passed is False
    assert said in found.why + found.measured


def test_a_package_that_cannot_be_imported_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.Entry("gone", "no_such_module:Gone", "somebody 1.0")
    installed = ({**registry._installed()[0], "gone": entry}, {})
    monkeypatch.setattr(registry, "_installed", lambda: installed)
    with pytest.raises(PluginError, match=r"somebody 1\.0.*no_such_module"):
        measure("gone")


def test_a_learned_table_can_be_declared_by_a_plug_in(named: Any) -> None:
    class Table(Encoding):
        def __init__(self, stack: Stack, *, rows: int = 30) -> None:
            super().__init__(stack)
            self.table = nn.Parameter(torch.empty(rows, stack.width))

        @property
        def max_length(self) -> int:
            return len(self.table)

        def initialise(self, generator: torch.Generator) -> None:
            normal_(self.table, 0.02, generator)

        def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
            return embeddings + self.table[positions[..., 0]].to(embeddings.dtype)

    findings = named(Table, "causality", "padding", "translation", "cached decoding", "lengths")
    assert failed(findings) == []
    assert findings["lengths"].measured == "30 works, 31 is refused"
