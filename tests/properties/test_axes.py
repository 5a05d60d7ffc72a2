"""`properties.check` on encodings that read several coordinates: what each kind of broken one is caught by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from findings import NAMES
from torch import Tensor, nn

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.encodings.axial_rope import AxialRope
from posenc.encodings.sinusoidal import sinusoid_table
from posenc.properties.check import MEASUREMENTS, measure, passed
from posenc.properties.subject import Outcome, Subject, grid, side_of
from posenc.properties.theory import measure as theory

pytestmark = pytest.mark.usefixtures("one_thread")


class Plane(Encoding):
    """Minus the distance in the plane."""

    axes = 2
    relative = True
    linear_reason = "not built: no form"

    def distance_bias(self, distances: Tensor, context: Context) -> Tensor:
        return -distances.double().norm(dim=-1)[None].expand(self.stack.heads, -1)


class Space(Plane):
    axes = 3


@pytest.mark.parametrize("encoding", [Plane, Space])
def test_what_reads_two_or_three_coordinates_is_measured_whole(measured: Any, encoding: type[Encoding]) -> None:
    findings = measured(encoding, *(set(NAMES) - {"graph"}), lengths=(72, 193))
    assert passed(list(findings.values())), [each for each in findings.values() if each.passed is False]
    for name in ("causality", "padding", "packed rows", "translation", "order", "layers", "cached decoding", "lengths"):
        assert findings[name].passed is True
    assert "at 24 72 193 tokens" in findings["padding"].measured
    assert all(finding.why for finding in findings.values() if finding.passed is None)


class Diagonal(Plane):
    """Changes when one axis moves against the other: nothing that shifts both alike would see it."""

    def score_bias(self, queries: Tensor, keys: Tensor, context: Context) -> Tensor:
        at = context.key_positions.double()
        return (at[..., 0] - at[..., 1]).sin()[:, None, None].expand(-1, self.stack.heads, context.queries, -1)


class Absolute(Plane):
    relative = False


class RowsAlone(Plane):
    """Cannot tell a row's tokens apart, but can tell rows."""

    tells_order = False


class Stretches(AxialRope):
    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        far = 1 + 1e-9 * positions[..., :1].double()
        return (super().rotate_key(keys, positions, context) * far[:, None]).to(keys.dtype)


class Ignores(AxialRope):
    """Turns by the pass's own coordinates, whatever it is handed."""

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_query(queries, context.query_positions, context)


class Counts(Plane):
    """Counts tokens in place of reading where they stand: padding and earlier packed examples too."""

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        own = torch.arange(context.offset, context.keys)
        return embeddings + sinusoid_table(own, self.stack.width).to(embeddings.dtype)


class Table(Encoding):
    """A table of rows, too small to be shifted in."""

    axes = 2
    linear_form = "as_is"

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.rows = nn.Parameter(torch.ones(8, stack.width))

    @property
    def max_length(self) -> int:
        return 64

    def initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.rows.copy_(torch.randn(8, self.stack.width, generator=generator))

    def embed(self, embeddings: Tensor, positions: Tensor, context: Context) -> Tensor:
        return embeddings + self.rows[positions[..., 0]].to(embeddings.dtype)


def measured_alone(monkeypatch: pytest.MonkeyPatch, encoding: type[Encoding], finding: str) -> Outcome:
    """One measurement of a class, at the short length."""
    monkeypatch.setitem(registry._registered, "broken", (encoding, "a test"))
    measurement = next(each for each in MEASUREMENTS if each.__name__.replace("_", " ") == finding)
    return measurement(Subject("broken", 0, 24, ()))


@pytest.mark.parametrize(
    ("encoding", "finding", "said"),
    [
        (Diagonal, "translation", "declares relative=True, and is not relative"),
        (Absolute, "translation", "declares relative=False, and is relative"),
        (RowsAlone, "order", "declares tells_order=False"),
        (Stretches, "norms", "norms change"),
        (Ignores, "positions", "positions handed are ignored"),
        (Counts, "padding", "padding changes outputs"),
        (Counts, "packed rows", "packed examples are not as they are alone"),
        (Counts, "translation", "declares relative=True, and is not relative"),
    ],
)
def test_what_is_not_true_of_coordinates_is_caught(
    monkeypatch: pytest.MonkeyPatch, encoding: type[Encoding], finding: str, said: str
) -> None:
    _, measured, wrong = measured_alone(monkeypatch, encoding, finding)
    assert measured
    assert said in wrong


def test_a_table_of_coordinates_is_shifted_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    _, measured, why = measured_alone(monkeypatch, Table, "translation")
    assert not measured
    assert "not measured: its table of coordinates has no room" in why
    for finding in ("lengths", "low precision", "causality"):
        _, measured, wrong = measured_alone(monkeypatch, Table, finding)
        assert measured and not wrong


def test_the_grid_reads_row_by_row_and_its_first_axis_grows() -> None:
    assert grid(5, 1, 3).tolist() == [0, 1, 2, 3, 4]
    assert grid(7, 2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]
    assert grid(10, 3, 2)[[0, 1, 2, 4, 9]].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [2, 0, 1]]
    assert [side_of(*case) for case in ((48, 2), (49, 2), (50, 2), (64, 3), (65, 3), (1, 2))] == [7, 7, 8, 4, 5, 1]


def test_one_is_given_as_many_coordinates_as_it_reads() -> None:
    assert Subject("rope", 0, 24, ()).axes == Subject("none", 0, 24, ()).axes == 1
    assert Subject("axial_rope", 0, 24, ()).axes == Subject("layers(axial_rope, none, every=2)", 0, 24, ()).axes == 2


def test_the_theory_of_a_line_is_not_asked_of_a_plane() -> None:
    stack = Stack(layers=1, heads=2, width=16, head_width=8, max_length=64, causal=False, axes=2)
    answers, curves = theory(AxialRope(stack), 0)
    assert all(answer.value is None and "not measured:" in answer.why for answer in answers.values())
    assert "not measured:" in str(curves)


def test_compositions_and_small_tables_are_measured_too() -> None:
    told = ("causality", "padding", "packed rows", "order", "layers", "translation", "positions", "state")
    findings = measure("learned_2d(size=5)+axial_rope", lengths=(), names=told)
    assert passed(findings), [each for each in findings if each.passed is False]
    assert {each.name for each in findings if each.passed} >= {"causality", "padding", "packed rows", "order", "layers"}
