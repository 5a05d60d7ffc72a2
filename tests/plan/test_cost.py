"""The plan's tokens and FLOPs, and the record's, against a count over a run's own batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from posenc.backbone import cost as of_backbone
from posenc.backbone.config import BackboneConfig
from posenc.backbone.cost import forward
from posenc.backbone.transformer import Transformer
from posenc.cli import main
from posenc.objectives import factory
from posenc.objectives.work import Work, of_run
from posenc.plan import cost
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.training.batches import Batches
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

TINY: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 32,
    "backbone.features": 8, "training.steps": 7, "training.batch": 12, "training.validate_every": 7,
}  # fmt: skip


def cell_of(task: str, encoding: str = "rope", **changes: Any) -> Cell:
    chosen = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    cell = make(find_suite(task), Selection(encodings=[encoding], seeds=[3], changes=chosen)).cells[-1]
    assert cell.why_not is None
    return cell


def true_count(cell: Cell) -> tuple[int, int, int]:
    """Tokens, places with padding, and forward FLOPs, counted over the batches that the run's loop reads."""
    settings = cell.settings
    objective = factory.make(settings, None)
    model = Transformer(settings.backbone, settings.encoding_name, settings.max_length, backend="reference")
    model.initialise(settings.seed)
    batches = Batches(objective, settings.training, settings.runtime, settings.length, 0, 1)
    tokens = places = flops = 0
    for step in range(1, settings.training.steps + 1):
        seen, parts = batches.of(settings.seed, step)
        tokens += seen
        for part in parts:
            made = part.rows
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                objective.loss(model, made)
            flops += counter.get_total_flops()
            if settings.training.packed:
                places += sum(made[index].numel() for index in ((5, 8) if len(made) == 12 else (3,)))
            elif settings.objective == "causal_lm":
                places += seen // len(parts)
            else:
                places += sum(made[index].numel() for index in ((0, 2) if len(made) == 6 else (0,)))
    return tokens, places, flops


TASKS = [
    ("multi30k", {"training__accumulate": 2}),
    ("mlm", {}),
    ("glue/mrpc", {}),
    ("cases", {}),
    ("enwik8", {}),
    ("enwik8", {"backbone__chunk": 24}),
    ("diagnostic/copy", {"training__accumulate": 2}),
    ("diagnostic/recall", {"backbone__form": "encoder"}),
]


@pytest.mark.parametrize("attention", ["softmax", "performer"])
@pytest.mark.parametrize(("task", "changes"), TASKS, ids=lambda value: value if isinstance(value, str) else "")
def test_planned_work_is_that_of_a_runs_own_batches(
    task: str, changes: dict[str, Any], attention: str, tmp_path: Path
) -> None:
    if task == "cases":
        task = str(alone("cail2019-scm", tmp_path))
    if attention == "performer":
        changes = changes | {"backbone__attention_dropout": 0.0}
    cell = cell_of(task, backbone__attention=attention, **changes)
    work = cost.Costs(None).work(cell)
    assert_alike(work, cell)


def alone(task: str, folder: Path) -> Path:
    """A suite of a task without the one that it starts from."""
    path = folder / "suite.toml"
    path.write_text(
        f'name = "alone"\ntitle = "Alone"\nbaseline = "none"\nseeds = [0]\n[[grid]]\ntasks = ["{task}"]\n'
        'encodings = ["none"]\nset = { start = "scratch" }\n'
    )
    return path


def assert_alike(work: Work, cell: Cell) -> None:
    tokens, places, flops = true_count(cell)
    assert work.tokens == tokens
    assert work.places == places
    assert work.flops(cell.settings) == pytest.approx(flops, rel=0.01)
    assert not work.estimate


@pytest.mark.parametrize("encoding", ["shaw", "t5", "learned", "sinusoidal+rope"])
def test_whatever_the_encoding(encoding: str) -> None:
    cell = cell_of("multi30k", encoding)
    assert_alike(cost.Costs(None).work(cell), cell)


@pytest.mark.parametrize("form", ["encoder", "decoder"])
@pytest.mark.parametrize(
    "encoding",
    ["t5(buckets=8, max_distance=16)",
     *(pytest.param(one, marks=pytest.mark.slow) for one in ("none", "alibi", "pope", "permuteformer", "cosformer"))],
)  # fmt: skip
def test_each_linear_form_by_a_few_widths(encoding: str, form: Any) -> None:
    """To the digit, though some go from chunk to chunk both ways; a band's far states begin where none is counted."""
    backbone = BackboneConfig(
        form=form, layers=1, width=32, heads=2, feedforward=64, attention="performer", features=16, chunk=8
    )
    widths = torch.arange(3, 120)[:, None]
    ones = torch.ones(len(widths), dtype=torch.long)
    found = forward(backbone, encoding, 128, ones, widths, ones)
    each = range(0, len(widths), 24)
    exact = torch.cat([forward(backbone, encoding, 128, ones[:1], widths[n : n + 1], ones[:1]) for n in each])
    if encoding.startswith("t5"):
        assert float(found[::24].sum()) == pytest.approx(float(exact.sum()), rel=0.02)
    else:
        torch.testing.assert_close(found[::24], exact, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("task", "attention"),
    [("multi30k", "softmax"), ("glue/mrpc", "performer"),
     pytest.param("glue/mrpc", "softmax", marks=pytest.mark.slow),
     pytest.param("multi30k", "performer", marks=pytest.mark.slow)],
)  # fmt: skip
def test_packed_rows_are_counted_as_they_are_packed(task: str, attention: str) -> None:
    cell = cell_of(task, training__packed=True, training__accumulate=2, backbone__attention=attention)
    assert_alike(cost.Costs(None).work(cell), cell)


@pytest.mark.parametrize("task", ["multi30k", "mlm"])
def test_the_record_has_the_planned_tokens_and_flops(task: str, tmp_path: Path) -> None:
    cell = cell_of(task, backbone__attention="softmax")
    work = cost.Costs(None).work(cell)
    record = train(cell, CellTerms(suite="x", store=tmp_path))
    assert record is not None
    assert record["status"] == "done", record["reason"]
    assert record["tokens_seen"] == work.tokens
    assert record["flops_per_token"] == work.flops(cell.settings) / work.tokens
    tokens, places, flops = true_count(cell)
    assert record["flops_per_token"] == pytest.approx(flops / tokens, rel=0.01)
    assert record["padding"] == pytest.approx(1 - tokens / places)
    kept = Store(tmp_path).read_record(cell.id)
    assert kept is not None
    assert kept["padding"] == record["padding"]


def test_more_rows_than_a_plan_looks_at_are_an_estimate() -> None:
    cell = cell_of("multi30k", training__steps=60)
    objective = factory.make(cell.settings, None)
    whole, first = of_run(objective, cell.settings), of_run(objective, cell.settings, limit=20 * 12)
    assert not whole.estimate
    assert first.estimate == "of the first 20 of 60 steps"
    assert first.tokens == pytest.approx(whole.tokens, rel=0.1)
    assert first.flops(cell.settings) == pytest.approx(whole.flops(cell.settings), rel=0.1)


@pytest.mark.parametrize("task", ["multi30k", pytest.param("glue/mrpc", marks=pytest.mark.slow)])
def test_data_that_are_not_tokenised_are_estimated_by_a_sample(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path))
    monkeypatch.setattr(cost, "SMALL", 0)
    monkeypatch.setattr(cost, "SAMPLE", 1000)
    cell = cell_of(task, training__steps=100)
    found = cost.Costs(None).work(cell)
    assert "not tokenised yet" in found.estimate
    assert not list(tmp_path.glob("tokeniser-*"))
    true = of_run(factory.make(cell.settings, None), cell.settings)
    assert found.tokens == pytest.approx(true.tokens, rel=0.2)
    assert found.flops(cell.settings) == pytest.approx(true.flops(cell.settings), rel=0.2)
    again = cost.Costs(None).work(cell)  # now it is tokenised
    assert (again.estimate, again.tokens) == ("", true.tokens)


def test_a_plan_says_what_is_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSENC_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arguments = ["plan", "wmt14", "--scale", "paper", "--encodings", "rope", "--set", "backbone.layers=1"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert f"~{2 * 100_000 * 768 * 256:,}" in done.output
    assert "~ an estimate, wmt14: its data are not at hand" in done.output
    done = CliRunner().invoke(main, ["plan", "multi30k", "--encodings", "rope", "--seeds", "0"])
    assert done.exit_code == 0, done.output
    assert "~" not in done.output
    assert "padding" in done.output


def test_masked_places_alone_are_read_by_the_output_layer() -> None:
    """In closed form: a Transformer's layers over all places, BERT's transform and the vocabulary over the masked."""
    cell = cell_of("mlm", "none", backbone__attention="softmax")
    s, b = cell.settings, cell.settings.backbone
    rows, length = s.training.steps * s.training.batch, s.length
    of_layer = 8 * b.width**2 + 4 * b.width * b.feedforward + 4 * length * b.width
    of_head = 2 * b.width**2 + 2 * b.width * b.vocabulary
    expected = rows * (length * b.layers * of_layer + round(0.15 * length) * of_head)
    assert cost.Costs(None).work(cell).flops(s) == pytest.approx(expected, rel=1e-9)
    _, a_token = of_backbone.count(b, "none", length, length)
    assert a_token == pytest.approx(b.layers * of_layer + of_head, rel=1e-9)
