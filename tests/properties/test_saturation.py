"""Rows that linear attention loses in float32: counted where they are, told by `check`, written into the record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from linear_twins import favor
from torch import Tensor

from posenc.api.encoding import Context
from posenc.api.objective import Scored
from posenc.attention.linear.division import counting
from posenc.attention.linear.favor import orthogonal_features
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.config.task import RuntimeConfig
from posenc.encodings.rope import Rope
from posenc.properties.check import measure
from posenc.training import evaluation

BOTH_WAYS = pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])


def attended(norm: float, causal: bool, mask: Tensor | None = None, length: int = 100) -> tuple[Tensor, Tensor, Any]:
    """Outputs in float32 and float64 for queries and keys of one norm, and what was counted in float32."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, length, 16, generator=generator)
    q, k = (norm * x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    given = {"scale": 0.25, "causal": causal, "mask": mask, "chunk": 16}
    w = orthogonal_features(64, 16, generator)
    with counting() as found:
        low = favor(q, k, v, w, **given)
    return low.double(), favor(q.double(), k.double(), v.double(), w, **given), found


@BOTH_WAYS
@pytest.mark.parametrize(
    ("norm", "least", "most"), [(1, 0, 0), (8, 0, 0), (30, 0, 0), (120, 0.1, 0.5), (200, 0.3, 0.9)]
)
def test_rows_that_float32_loses_are_those_counted(norm: float, least: float, most: float, causal: bool) -> None:
    low, exact, found = attended(norm, causal)
    off = ((low - exact).norm(dim=-1) > 0.01 * exact.norm(dim=-1)).double().mean().item()
    assert least <= off <= most
    assert found.rows == 2 * 4 * 100
    assert found.share == pytest.approx(off, abs=0.02)


@BOTH_WAYS
def test_rows_that_see_no_key_are_neither_rows_nor_lost(causal: bool) -> None:
    mask = torch.ones(2, 100, dtype=torch.bool)
    mask[0, :30], mask[1] = False, False
    _, _, found = attended(1.0, causal, mask)
    assert found.rows == 4 * (70 if causal else 100)
    assert found.lost == 0


def test_nothing_is_counted_outside_nor_without_linear_attention() -> None:
    with counting() as found:
        pass
    attended(200, True)
    assert found.rows == 0 and found.share is None


class Far(Rope):
    """Turns, and lengthens by so much that float32 loses rows from ordinary norms on."""

    keeps_norms = False

    def rotate_query(self, queries: Tensor, positions: Tensor, context: Context) -> Tensor:
        return 20 * super().rotate_query(queries, positions, context)

    def rotate_key(self, keys: Tensor, positions: Tensor, context: Context) -> Tensor:
        return 20 * super().rotate_key(keys, positions, context)


def test_an_encoding_that_makes_linear_attention_lose_rows(named: Any) -> None:
    findings = named(Far, "mixed precision", "saturation")
    failed = [name for name, found in findings.items() if found.passed is False]
    assert failed == ["mixed precision", "saturation"]  # such scores are too sharp for bf16, too
    assert "causal performer at norm 8: " in findings["saturation"].why


def test_check_tells_from_which_norms_on_rows_are_lost() -> None:
    (found,) = measure("rope", lengths=(), names=["saturation"])
    told = found.measured
    assert "causal performer 0.0% at 8, 0.0% at 30, " in told
    assert found.passed is True
    (softmax_alone,) = measure("kerple", lengths=(), names=["saturation"])
    assert softmax_alone.passed is None and softmax_alone.why == "it serves no linear attention"


class Objective:
    """Scores a model by running it."""

    metrics = ()

    def score(self, model: Transformer, split: str, length: int) -> Scored:
        with torch.no_grad():
            model.hidden(torch.arange(length)[None] % 9)
        return Scored({"bits": 1.0}, 1)


@pytest.mark.parametrize(("attention", "size", "low", "high"), [("performer", 1, 0, 0), ("performer", 100, 0.01, 1)])
def test_a_score_carries_the_share_of_rows_lost(attention: Any, size: float, low: float, high: float) -> None:
    share = scored(attention, size)["details"]["rows_lost"]
    assert low <= share <= high


def test_a_score_of_softmax_attention_carries_none() -> None:
    assert "details" not in scored("softmax", 100)


def scored(attention: Any, size: float) -> dict[str, Any]:
    """The row of a score of a model whose queries and keys are `size` times as long as at the start."""
    config = BackboneConfig(layers=1, width=32, heads=2, feedforward=8, attention=attention, vocabulary=9)
    model = Transformer(config, "none", 64).initialise(0)
    for name, parameter in model.named_parameters():
        if ".query." in name or ".key." in name:
            parameter.data *= size
    objective: Any = Objective()
    objective.metrics = [type("Metric", (), {"name": "bits"})]
    rows, _ = evaluation.score(objective, model, RuntimeConfig(), "test", 64)
    return rows[0]
