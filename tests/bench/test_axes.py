"""Encodings of several axes in `posenc bench`: their tokens stand on a grid, and the work is as that of text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from posenc.backbone import cost
from posenc.backbone.transformer import Transformer
from posenc.bench.shape import Shape
from posenc.bench.subjects import OnGrid, make_pass, subjects
from posenc.plan import table
from posenc.properties.subject import grid

SHAPE = Shape(layers=1, width=32, heads=2, feedforward=32, vocabulary=16, features=16, chunk=8, rows=1, length=20)


@pytest.mark.parametrize(("encoding", "axes", "side"), [("axial_rope", 2, 5), ("learned_2d", 2, 5), ("m_rope", 3, 3)])
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_tokens_of_a_row_stand_on_the_grid_that_just_holds_it(
    encoding: str, axes: int, side: int, attention: str
) -> None:
    _, subject, *_ = subjects([encoding], [attention], "auto", "cpu", SHAPE, "forward", False)
    assert (subject.encoding, subject.axes, subject.reason) == (encoding, axes, None)
    work = make_pass(subject, SHAPE, "forward", "cpu", "float32")
    assert isinstance(work.model, OnGrid)
    plain = Transformer(SHAPE.backbone(attention, True), encoding, 20, axes=axes).initialise(0)
    places = grid(20, axes, side)[None]
    expected = plain.logits(plain.hidden(work.tokens, coordinates=places))
    torch.testing.assert_close(work.model(work.tokens), expected, atol=0, rtol=0)
    work()
    for kind in ("forward", "step"):
        make_pass(subject, SHAPE, kind, "cpu", "float32")()


def test_a_rotation_in_two_axes_counts_as_one_in_one() -> None:
    backbone = SHAPE.backbone("softmax", True)
    text = cost.count(backbone, "rope", 20, 20)
    assert cost.count(backbone, "axial_rope", 20, 20, axes=2) == text


def test_the_table_has_a_performers_cost_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def row(attention: str, encoding: str, ratio: float | None) -> dict[str, object]:
        ends = {"ratio_low": ratio, "ratio_high": ratio}
        named = {"subject": "posenc", "pass": "step", "attention": attention, "encoding": encoding}
        return {**named, "ratio_to_none": ratio, **ends}

    rows = [row("softmax", "rope", 1.5), row("performer", "rope", 1.2), row("softmax", "spe", None)]
    rows += [row("performer", "rope_outside", 1.25), row("performer", "spe", None)]
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    monkeypatch.setattr(table, "content", lambda name: tmp_path)
    assert table.costs() == {"rope": "1.50 [1.50, 1.50]", "rope_outside": "1.25 [1.25, 1.25] (Performer)"}
