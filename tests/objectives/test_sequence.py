"""The objective `sequence`: how rows stand in a model, what is scored, and that models learn what they can."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError, NotPossibleError, PluginError, UnknownNameError
from posenc.config.task import EvaluationConfig, available, task_at
from posenc.data import sources
from posenc.data.sequences.generator import UNASKED
from posenc.data.sequences.source import Sequences
from posenc.objectives import factory
from posenc.objectives.sequence import Sequence
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

TINY: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16,
    "training.steps": 4, "training.batch": 4, "training.validate_every": 2, "evaluation.rows": 20,
}  # fmt: skip


def of(name: str, length: int, form: str, rows: int = 40, **options: Any) -> Sequence:
    data = sources.load(f"sequences/{name}", None, options)
    assert isinstance(data, Sequences)
    return Sequence(data, length, EvaluationConfig(length_factors=[1, 2], rows=rows), form == "decoder")


def model_of(objective: Sequence, form: Any, encoding: str = "rope", layers: int = 1) -> Transformer:
    shape = BackboneConfig(form=form, vocabulary=objective.extra + 1, layers=layers, width=16, heads=2, feedforward=16)
    return Transformer(shape, encoding, 64).initialise(0).eval()


@pytest.mark.parametrize("form", ["encoder", "decoder"])
def test_where_an_answer_stands(form: str) -> None:
    objective = of("addition", 9, form)
    for step in range(1, 9):
        tokens, targets = (tensor.numpy() for tensor in objective.batch(0, step, 5))
        size = objective.size(0, step)
        digits = size // 2
        assert tokens.shape == targets.shape == (5, size + digits + 1)
        assert (targets[:, :size] == UNASKED).all()
        for row, asked in zip(tokens.tolist(), targets[:, size:].tolist(), strict=True):
            told = "".join("0123456789+?"[symbol] for symbol in row)
            answer = "".join(map(str, asked))
            assert told == told[:size] + ("?" * (digits + 1) if form == "encoder" else "?" + answer[:-1])
            first, second = told[:size].split("+")
            assert int(first) + int(second) == int(answer)
    assert {objective.size(0, step) for step in range(1, 60)} == {3, 5, 7, 9}
    assert [objective.size(1, step) for step in range(1, 9)] != [objective.size(0, step) for step in range(1, 9)]


def test_an_exact_match_is_what_greedy_decoding_gives() -> None:
    objective = of("sorting", 8, "decoder", rows=40, kinds=2)
    model = model_of(objective, "decoder").train()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(1, 31):
        optimiser.zero_grad()
        objective.loss(model, objective.batch(0, step, 16)).backward()
        optimiser.step()
    scored = objective.score(model.eval(), "test", 8)
    decoded = []
    for tokens, targets in objective.fixed("test", 8):
        size = int((targets[0] == UNASKED).sum())
        for row, asked in zip(tokens, targets, strict=True):
            read = row[: size + 1]  # with the sign
            while len(read) < len(row) + 1:
                read = torch.cat([read, model(read[None])[0, -1, : objective.classes].argmax()[None]])
            decoded.append(bool((read[size + 1 :] == asked[size:]).all()))
    assert scored.each["exact_match"].tolist() == [float(one) for one in decoded]
    assert 0 < np.mean(decoded) < 1, "some are right, else nothing was compared"
    assert scored.values["exact_match"] == np.mean(decoded)


@pytest.mark.parametrize(("name", "form"), [("copy", "encoder"), ("recall", "decoder"), ("flip_flop", "decoder")])
def test_scores_do_not_hang_on_batches_and_loss_is_at_what_is_asked(name: str, form: str) -> None:
    objective = of(name, 32, form)
    model = model_of(objective, form)
    one = objective.score(model, "test", 32)
    objective.evaluation = replace(objective.evaluation, batch_tokens=1)
    other = objective.score(model, "test", 32)
    assert one.values == other.values and one.items == 40
    assert all((one.each[key] == other.each[key]).all() for key in one.each)
    tokens, targets = objective.batch(0, 1, 3)
    logits = model(tokens)[..., : objective.classes]
    by_hand = [
        -logits[row, place].log_softmax(-1)[targets[row, place]]
        for row, place in (targets != UNASKED).nonzero().tolist()
    ]
    loss = objective.loss(model, (tokens, targets)).item()
    assert loss == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
    assert objective.targets((tokens, targets)) == len(by_hand) and objective.seen((tokens, targets)) == tokens.numel()


def test_what_the_test_sets_hold() -> None:
    """At the trained length every size alike; beyond it one size; of flip-flop other shares too."""
    objective = of("copy", 10, "encoder", rows=50, kinds=26)
    sizes = [int((targets[0] == UNASKED).sum()) for _, targets in objective.fixed("test", 10)]
    counts = [len(tokens) for tokens, _ in objective.fixed("test", 10)]
    assert sizes == objective.sequences.sizes("test", 10) and sum(counts[2:]) >= 35 and max(counts) <= 8
    assert [tuple(tokens.shape) for tokens, _ in objective.fixed("test", 20)] == [(50, 40)]
    assert objective.tests == [("test", 10), ("test", 20)]
    flips = of("flip_flop", 32, "decoder")
    assert flips.tests == [(split, n) for split in ("test", "test_sparse", "test_dense") for n in (32, 64)]
    told = {split: next(iter(flips.fixed(split, 64)))[0][:, 2:-2:2] for split, n in flips.tests if n == 64}
    shares = {split: float((kinds == 4).float().mean()) for split, kinds in told.items()}
    assert shares["test_dense"] < 0.2 < 0.7 < shares["test"] < 0.9 < 0.95 < shares["test_sparse"]
    odd = of("recall", 32, "decoder", vocabulary=40)
    with pytest.raises(NotPossibleError, match="sequences/recall has no rows of 64 symbols"):
        odd.score(model_of(odd, "decoder"), "test", 64)


DIAGNOSTIC = sorted(name for name in available("tasks") if name.startswith("diagnostic/"))


@pytest.mark.parametrize("name", DIAGNOSTIC)
def test_no_one_answer_scores_more_than_chance_at_any_length(name: str) -> None:
    """What has one answer in all its rows would be right, or wrong, by luck: as counts of rows of one size are."""
    (cell,) = make(find_suite(name), Selection(encodings=["none"], seeds=[0])).cells
    objective = factory.make(cell.settings, None)
    assert isinstance(objective, Sequence)
    told = 0
    for split, length in objective.tests:
        with suppress(NotPossibleError):
            answers = torch.cat([targets[targets != UNASKED] for _, targets in objective.fixed(split, length)])
            share = float(answers.bincount().max()) / len(answers)
            assert share < objective.baselines()["chance"] + 0.1, f"{split} at {length}"
            told += 1
    assert told


def test_a_tiny_run_from_plan_to_record(tmp_path: Path) -> None:
    """Its numbers do not hang on the process: parts of a batch give what the whole does."""
    told: Any = {**TINY, "length": 6}
    records: list[Record] = []
    for accumulate in (1, 2):
        asked = Selection(encodings=["learned"], seeds=[1], changes={**told, "training.accumulate": accumulate})
        (cell,) = make(find_suite("diagnostic/copy"), asked).cells
        assert cell.config["data"]["options"] == {"kinds": 16} and cell.settings.max_length == 12
        assert cell.settings.backbone.vocabulary == 17
        record = train(cell, CellTerms(suite="s", store=tmp_path))
        assert record is not None and record["status"] == "done", record
        records.append(record)
    first, second = records
    assert first["baselines"] == {"chance": 1 / 16} and first["data"]["generated"] and first["padding"] == 0
    assert first["tokens_seen"] == second["tokens_seen"]
    why = {(row["length"], row["metric"]): row for row in first["scores"] if row["split"] == "test"}
    assert set(why) == {(n, metric) for n in (6, 12) for metric in ("accuracy", "exact_match")}
    assert "it has 12 positions, and 24 were asked for" in why[12, "accuracy"]["why"], "the others stand"
    assert why[6, "accuracy"]["value"] is not None and why[6, "accuracy"]["items"] <= 20
    losses = [[row["loss"] for row in Store(tmp_path).curve(one["id"]) if "loss" in row] for one in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (
        "copy",
        {"data.options.kind": 3},
        UnknownNameError,
        r"unknown option of sequences/copy 'kind'",
    ),
    ("copy", {"data.options.kinds": "many"}, ConfigError, r"data.options.kinds = 'many': .*must be int"),
    ("copy", {"data.options.kinds": 1}, ConfigError, r"data.options of sequences/copy: kinds = 1: must be at least 2"),
    ("copy", {"data.source": "sequences/copi"}, UnknownNameError, "did you mean 'sequences/copy'"),
    ("copy", {"data.source": "stdlib"}, ConfigError, "data.options.* has none"),
    ("copy", {"backbone.vocabulary": 30}, ConfigError, "vocabulary = 30: sequences/copy has 17 symbols"),
    ("copy", {"backbone.form": "encoder-decoder"}, ConfigError, "wants 'encoder' or 'decoder'"),
    ("copy", {"runtime.compile": "inductor"}, ConfigError, "batches of other shapes would compile again"),
    ("copy", {"training.packed": True}, ConfigError, "training.packed"),
    ("copy", {"evaluation.tokens": 100}, ConfigError, "has evaluation.rows"),
    ("flip_flop", {"backbone.form": "encoder"}, ConfigError, "show their answers further on"),
    ("enwik8", {"data.options.kinds": 3}, ConfigError, "data.source = 'stdlib' has none"),
]


@pytest.mark.parametrize(("task", "changes", "kind", "said"), REFUSED)
def test_what_cannot_be_is_refused_in_a_line(
    task: str, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    name = task if task == "enwik8" else f"diagnostic/{task}"
    with pytest.raises(kind, match=said):
        make(find_suite(name), Selection(encodings=["rope"], changes=changes))


def test_too_short_a_length_is_refused() -> None:
    with pytest.raises(DataError, match="no rows for train of at most 8 symbols"):
        make(find_suite("diagnostic/recall"), Selection(encodings=["rope"], lengths=[8]))


PLUGIN = """
from posenc.data.sequences.generator import Answered, Generator


class Last(Generator):
    symbols = ("a", "b")
    classes = 2

    def __init__(self, *, back: int = 1):
        if back > 9:
            raise RuntimeError("too far")
        self.back = back

    def draw(self, random, size, count):
        rows = random.integers(2, size=(count, size))
        return Answered(rows, rows[:, -self.back :][:, :1])
"""


def test_a_package_brings_a_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lasting.py").write_text(PLUGIN)
    info = tmp_path / "lasting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lasting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[posenc.sources]\nlast = lasting:Last\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(vars(sources.SOURCES), "_installed", raising=False)
    try:
        with pytest.raises(UnknownNameError, match="unknown option of last 'kinds'"):
            task_at("diagnostic/count", "paper", {"data.source": ("last", "here")})
        path = tmp_path / "task.toml"
        path.write_text(
            'name = "mine"\ntitle = "Mine"\nobjective = "sequence"\nlength = 12\n[data]\nsource = "last"\n'
            "options = { back = 2 }\n[backbone]\nlayers = 1\nwidth = 8\nheads = 1\nfeedforward = 8\n"
            "[training]\nsteps = 2\nbatch = 4\nlearning_rate = 0.001\nvalidate_every = 2\n"
        )
        task = task_at(str(path), "small", {})
        assert task.backbone.form == "encoder" and task.backbone.vocabulary == 3 and task.data.tokeniser == "symbols"
        found, _ = factory.data(task.data, task.objective, None)
        assert isinstance(found, Sequences) and found.note == "generated by lasting's code (back = 2)"
        with pytest.raises(PluginError, match=r"data\.options of last: RuntimeError: too far"):
            task_at(str(path), "small", {"data.options.back": (10, "here")})
    finally:
        monkeypatch.undo()
        vars(sources.SOURCES).pop("_installed", None)


def trained(task: str, folder: Path, encoding: str, **changes: Any) -> dict[tuple[str, int], float]:
    """Accuracy of a smoke cell on each test set."""
    asked = Selection(
        encodings=[encoding], seeds=[0], changes={key.replace("__", "."): changes[key] for key in changes}
    )
    (cell,) = make(find_suite(f"diagnostic/{task}"), asked).cells
    record = train(cell, CellTerms(suite="s", store=folder))
    assert record is not None and record["status"] == "done", record
    scores = [row for row in record["scores"] if row["metric"] == "accuracy"]
    return {(row["split"], row["length"]): row["value"] for row in scores}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "length"), [("copy", 20), ("recall", 32), ("flip_flop", 64), ("even_pairs", 16)])
def test_a_model_that_can_learn_it_does(task: str, length: int, tmp_path: Path) -> None:
    assert trained(task, tmp_path, "rope")["test", length] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("task", ["copy", "recall"])
def test_without_order_a_model_is_at_chance_where_order_decides(task: str, tmp_path: Path) -> None:
    """`none` in an encoder: at most what the best answer from a row's symbols alone, without their order, scores."""
    found = trained(task, tmp_path, "none", backbone__form="encoder", training__steps=200)
    if task == "recall":
        assert found["test", 32] < 0.25 + 0.05
        return
    objective = of("copy", 20, "encoder", rows=400, kinds=16)
    right = asked = 0
    for tokens, targets in objective.fixed("test", 20):
        size = int((targets[0] == UNASKED).sum())
        right += sum(int(np.bincount(row[:size]).max()) for row in tokens.numpy())
        asked += size * len(tokens)
    assert found["test", 20] <= right / asked + 1e-9 < 0.35
    assert found["test", 40] < 0.25
