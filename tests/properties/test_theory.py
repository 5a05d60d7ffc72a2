"""The theory's properties, measured: against derivations of their own, and of encodings that break them."""

from __future__ import annotations

import cmath
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.common.errors import ConfigError
from posenc.config.task import task_at
from posenc.encodings.rope import Rope
from posenc.plan.plan import Selection, find_suite, make
from posenc.properties import theory
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms

pytestmark = pytest.mark.usefixtures("one_thread")
STACK = Stack(layers=1, heads=2, width=32, head_width=16, max_length=512, causal=False)


def made(name: str) -> Encoding:
    encoding = registry.create(name, STACK)
    encoding.initialise(torch.Generator().manual_seed(0))
    return encoding.double()


class CoarseAngles(Rope):
    """Angles in float32: what a library that computes them so would have."""

    def turns(self, positions: Tensor, width: int) -> Tensor:
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        angles = positions[..., 0].float()[:, None, :, None] * self.base**-exponents
        return torch.stack((angles.cos(), angles.sin()), dim=-1).double()


class Stretched(Rope):
    """Turned and made longer with the position."""

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return super().rotate_query(queries, positions, context) * (1 + 1e-5 * positions[:, None])


@pytest.mark.parametrize("name", ["none", "t5", "shaw", "nezha", "rope", "rope(base=500)", "rope+t5"])
def test_scores_of_relative_encodings_do_not_change_when_all_positions_shift(name: str) -> None:
    assert (theory.relative_error(made(name), 0).value or 0.0) < theory.LIMITS["relative_error"]


@pytest.mark.parametrize("name", ["sinusoidal", "learned", "sinusoidal+rope"])
def test_scores_of_absolute_encodings_change(name: str) -> None:
    assert (theory.relative_error(made(name), 0).value or 0.0) > 0.01


def test_what_breaks_a_claim_is_found() -> None:
    coarse, stretched = CoarseAngles(STACK).double(), Stretched(STACK).double()
    assert (theory.relative_error(coarse, 0).value or 0.0) > theory.LIMITS["relative_error"]
    assert (theory.sparse_error(coarse, 0).value or 0.0) > theory.LIMITS["sparse_error"]
    assert (theory.norm_error(stretched, 0).value or 0.0) == pytest.approx(1.0, rel=1e-6)  # 1e-5 at position 100,000


def test_rope_keeps_norms_and_its_sparse_product_is_the_matrix_of_equation_15() -> None:
    assert (theory.norm_error(made("rope"), 0).value or 0.0) < 1e-14
    assert (theory.sparse_error(made("rope"), 0).value or 0.0) < 1e-11
    expected = [10000 ** (-2 * i / 16) for i in range(8)]
    assert theory.angles(made("rope")).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_bound_is_equation_37_in_loops() -> None:
    theta, found = [10000 ** (-2 * i / 16) for i in range(8)], theory.decay(made("rope"), 0)
    assert not isinstance(found, str)
    values = []
    for distance in found.distances:
        partial, total = 0j, 0.0
        for angle in theta:
            partial += cmath.exp(1j * distance * angle)
            total += abs(partial)
        values.append(total / 8)
    assert found.bound == pytest.approx([value / values[0] for value in values], rel=1e-9)
    assert values[0] == pytest.approx(4.5)  # the mean of 1 to 8
    decay = theory.measure(made("rope"), 0)[0]["bound_decay"].value
    assert decay == pytest.approx(sum(values[-51:]) / 51 / values[0])


def test_scores_of_the_same_content_by_distance_are_what_the_formula_gives() -> None:
    found = theory.decay(made("rope"), 0)
    assert not isinstance(found, str)
    # The mean over tokens of |x|^2-weighted cosines comes near the plain mean of the cosines.
    cosines = [sum(math.cos(d * 10000 ** (-2 * i / 16)) for i in range(8)) / 8 for d in found.distances]
    assert found.same == pytest.approx(cosines, abs=0.1)
    assert found.same[0] == 1.0
    # Independent queries and keys: turning changes nothing of their scores' size, whatever the bound does.
    assert min(found.random[1:]) > 0.7 and max(found.random[1:]) < 1.4


def test_t5s_bias_is_in_the_scores() -> None:
    """Scores of one token with itself differ by the bias alone."""
    encoding = made("t5")
    x = torch.randn(1, 1, 32, dtype=torch.float64).expand(1, 40, 32)
    table = theory.scores(encoding, x, torch.arange(40), 1)
    context = Context(stack=STACK, queries=40, keys=40, device=x.device)
    bias = encoding.distance_bias(torch.arange(-39, 1), context)
    torch.testing.assert_close(table[0, :, -1] - table[0, :, -1:, -1], bias - bias[:, -1:], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "question", "why"),
    [
        ("none", "norm_error", "leaves queries and keys alone"),
        ("t5", "sparse_error", "does not rotate"),
        ("sinusoidal", "bound_decay", "does not rotate"),
    ],
)
def test_a_question_that_makes_no_sense_says_why(name: str, question: str, why: str) -> None:
    answer = theory.measure(made(name), 0)[0][question]
    assert answer.value is None
    assert why in answer.why


def test_an_encoding_that_sets_positions_itself_is_not_asked_by_position() -> None:
    class Backwards(Encoding):
        def positions(self, context: Context) -> Tensor:
            return super().positions(context).flip(1)

    assert "positions itself" in theory.relative_error(Backwards(STACK), 0).why
    assert "positions itself" in str(theory.decay(Backwards(STACK), 0))


def test_learned_is_measured_within_its_table() -> None:
    found = theory.decay(registry_learned(100), 0)
    assert not isinstance(found, str)
    assert len(found.distances) == 100


def registry_learned(length: int) -> Encoding:
    stack = Stack(layers=1, heads=2, width=32, head_width=16, max_length=length, causal=False)
    encoding = registry.create("learned", stack)
    encoding.initialise(torch.Generator().manual_seed(0))
    return encoding.double()


def test_every_encoding_gets_a_record_with_an_answer_or_a_reason(tmp_path: Path) -> None:
    changes = {"backbone.width": 128, "backbone.heads": 2}  # heads as wide as the paper's, and fewer
    cells = make(find_suite("paper"), Selection(tasks=["theory"], changes=changes)).cells
    names = [cell.config["encoding"]["name"] for cell in cells]
    assert names == ["none", "sinusoidal", "learned", "t5", "shaw", "rope", "nezha"]
    holds: dict[str, Any] = {}
    for cell in cells:
        record = training.train(cell, CellTerms("test", tmp_path))
        assert record is not None
        assert record["status"] == "done", record["traceback"]
        rows = {row["metric"]: row for row in record["scores"]}
        assert set(rows) == {"relative_error", "norm_error", "sparse_error", "bound_decay", "same_decay"}
        assert all((row["value"] is None) == bool(row["why"]) for row in rows.values())
        details = rows["bound_decay"]["details"]
        holds[cell.config["encoding"]["name"]] = details["holds"]
        assert len(details["distances"]) == len(details["same"]) == len(details["random"]) == 256
        assert record["tokens_seen"] == 0 and record["stages"] == [] and record["items"] is None
    every = {"relative_error": True, "norm_error": True, "sparse_error": True, "bound_decay": True}
    assert holds["rope"] == every, "Figure 2 and equations 13 to 16 and 34"
    assert {name for name, found in holds.items() if found["relative_error"]} == {"none", "t5", "shaw", "rope", "nezha"}


def test_a_theory_task_trains_nothing_and_any_other_something() -> None:
    with pytest.raises(ConfigError, match=r"training.steps = 5: objective 'theory' wants 0"):
        task_at("theory", "smoke", {"training.steps": (5, "here")})
    with pytest.raises(ConfigError, match=r"training.steps = 0: objective 'causal_lm' wants at least 1"):
        task_at("enwik8", "smoke", {"training.steps": (0, "here")})
    with pytest.raises(ConfigError, match=r"data.source = 'stdlib': objective 'theory' cannot learn from it"):
        make(find_suite("theory"), Selection(changes={"data.source": "stdlib"}))
