"""Matching of cases: pairs and their cut, the loss and the accuracy by hand, what is scored apart, CAIL2019-SCM."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from words import WORDS, learnt

from posenc.api.objective import cut
from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.config.task import EvaluationConfig, TrainingConfig, task_at
from posenc.data.corpus import Corpus, Row, assemble
from posenc.data.tokens import Tokeniser
from posenc.objectives import matching
from posenc.objectives.matching import Matching
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms


@pytest.fixture(autouse=True, scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Tokeniser]:
    """A token a word. What is cached is this module's own."""
    yield from learnt(tmp_path_factory.mktemp("cache"))


def triples(count: int, seed: int = 0, longest: int = 12) -> list[Row]:
    dice = np.random.default_rng(seed)
    texts = [" ".join(dice.choice(WORDS, size=dice.integers(1, longest + 1))) for _ in range(3 * count)]
    return [(*texts[3 * index : 3 * index + 3], "BC"[index % 2]) for index in range(count)]


def corpus(train: list[Row], validation: list[Row] | None = None, test: list[Row] | None = None) -> Corpus:
    splits = {"train": train, "validation": validation or train[:5], "test": test or triples(9, seed=1)}
    return assemble("toy", ("a", "b", "c", "label"), splits)


def objective(data: Corpus, words: Tokeniser, length: int = 20, batch: int = 4, **more: Any) -> Matching:
    settings = TrainingConfig(steps=1, batch=batch, learning_rate=1.0, validate_every=1)
    return Matching(data, words, length, settings, EvaluationConfig(length_factors=[1], **more))


def network(words: Tokeniser, encoding: str = "rope", length: int = 40) -> Transformer:
    sizes: dict[str, Any] = {"vocabulary": words.size, "layers": 1, "width": 32, "heads": 2, "feedforward": 64}
    shape = BackboneConfig(form="encoder", head="mean", outputs=1, **sizes)
    return Transformer(shape, encoding, length).initialise(0)


def test_a_row_is_two_pairs_with_the_same_first_text(words: Tokeniser) -> None:
    made = objective(corpus([("the cat", "dog saw big", "a", "C")] * 4), words)
    tokens, mask, label = made.batch(0, 1, 4)
    assert tokens.shape == mask.shape == (4, 2, 8)
    assert label.tolist() == [1, 1, 1, 1]
    ids = {word: words.encode([word])[0][0] for word in WORDS}
    first = [words.cls, ids["the"], ids["cat"], words.sep]
    assert tokens[0, 0].tolist() == [*first, ids["dog"], ids["saw"], ids["big"], words.sep]
    assert tokens[0, 1].tolist() == [*first, ids["a"], words.sep, words.pad, words.pad]
    assert mask[0, 1].tolist() == [True] * 6 + [False] * 2
    assert made.targets((tokens, mask, label)) == 4
    assert made.seen((tokens, mask, label)) == 4 * 14
    assert [len(part[0]) for part in cut((tokens, mask, label), 2)] == [2, 2]


def test_a_pair_that_is_too_long_loses_of_its_longer_text_and_is_counted(words: Tokeniser) -> None:
    rows = [("the cat dog saw big small", "a bird", "the", "B")] * 4
    made = objective(corpus(rows, test=rows), words, length=8)
    ids = [words.encode([word])[0][0] for word in ("the", "cat", "dog", "a", "bird")]
    assert made.pair("test", 0, 1, 8).tolist() == [words.cls, *ids[:3], words.sep, *ids[3:], words.sep]
    assert made.data["cut"] == {"train": 4, "validation": 4, "test": 4}
    assert made.score(network(words), "test", 8).details["rows cut"] == 4


def test_the_loss_is_the_mean_cross_entropy_of_both_pairs(words: Tokeniser) -> None:
    made, model = objective(corpus(triples(8)), words), network(words).double()
    batch = made.batch(0, 1, 4)
    total = 0.0
    for tokens, mask, label in zip(*batch, strict=True):
        for other in (0, 1):
            row = tokens[other][mask[other]][None]  # alone, without any padding
            score = model(row).item()
            sure = 1 / (1 + math.exp(-score))
            total -= math.log(sure if other == label.item() else 1 - sure)
    assert made.loss(model, batch).item() == pytest.approx(total / 8, rel=1e-12)


def test_the_mean_is_over_real_tokens_alone(words: Tokeniser) -> None:
    model = network(words).double()
    row = torch.tensor([[words.cls, 7, 8, words.sep]])
    padded = torch.nn.functional.pad(row, (0, 5), value=words.pad)
    hidden = model.hidden(row)
    by_hand = hidden.mean(dim=1) @ model.head.out.weight.T + model.head.out.bias  # type: ignore[union-attr]
    torch.testing.assert_close(model(row), by_hand, atol=1e-12, rtol=0)
    torch.testing.assert_close(model(padded, mask=padded != words.pad), by_hand, atol=1e-12, rtol=0)


def test_accuracy_is_how_often_the_nearer_pair_scores_higher_and_ties_count_half(words: Tokeniser) -> None:
    test = [*triples(20, seed=3), ("the cat", "dog", "dog", "B"), ("the cat", "dog", "dog", "C")]
    made, model = objective(corpus(triples(8), test=test), words, length=40), network(words).double()
    found = made.score(model, "test", 40)
    right = []
    for a, b, c, label in test:
        scores = []
        for other in (b, c):
            first, second = words.encode([a, other])
            scores.append(model(torch.tensor([[words.cls, *first, words.sep, *second, words.sep]])).item())
        chosen, left = scores if label == "B" else scores[::-1]
        right.append(0.5 if abs(chosen - left) < 1e-12 else float(chosen > left))
    assert right[-2:] == [0.5, 0.5]
    assert 0 < sum(right[:-2]) < 20, "a model that is always right, or never, would show nothing"
    assert found.values["accuracy"] == pytest.approx(sum(right) / 22)
    assert found.each["accuracy"].tolist() == right
    assert found.items == 22


def test_pairs_of_the_same_tokens_are_a_tie_whatever_their_scores(
    words: Tokeniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rounding may tell equal pairs apart: here the first of two always has a little more.
    test = [("the cat", "dog", "dog", "B"), ("the cat", "dog", "dog", "C"), *triples(4, seed=3),
            ("the cat the cat the cat", "dog", "dog runs", "B")]  # fmt: skip
    made = objective(corpus(triples(8), test=test), words, length=5)
    monkeypatch.setattr(
        matching, "_nearness", lambda model, batch: torch.tensor([[1e-7, 0.0]]).expand(len(batch[0]), 2)
    )
    found = made.score(network(words), "test", 20)
    assert found.each["accuracy"].tolist()[:2] == [0.5, 0.5]
    assert found.each["accuracy"].tolist()[2:6] == [float(row[3] == "B") for row in test[2:6]]
    assert found.details["rows of two pairs that are the same, each half right"] == 2
    cut = made.score(network(words), "test", 5)  # [CLS] the [SEP] dog [SEP], twice
    assert cut.each["accuracy"].tolist()[-1] == 0.5


def test_long_rows_are_scored_apart(words: Tokeniser) -> None:
    test = triples(30, seed=4)
    made = objective(corpus(triples(8), test=test), words, length=10, longer_than=16)
    long = [1 + len(a.split()) + 1 + max(len(b.split()), len(c.split())) + 1 > 16 for a, b, c, _ in test]
    assert 0 < sum(long) < 30
    found = made.score(network(words), "test", 10)
    assert found.each["long"].tolist() == long, "by their whole lengths, cut or not"
    assert found.values["accuracy_long"] == pytest.approx(found.each["accuracy"][long].mean())
    assert [metric.name for metric in made.metrics] == ["accuracy", "accuracy_long"]
    assert [metric.name for metric in objective(corpus(triples(8)), words, longer_than=100).metrics] == ["accuracy"]


def test_a_score_does_not_depend_on_how_rows_are_batched(words: Tokeniser) -> None:
    data, model = corpus(triples(8), test=triples(30, seed=5)), network(words).double()
    found = [objective(data, words, batch_tokens=size).score(model, "test", 20) for size in (1, 100, 10_000)]
    right = [one.each["accuracy"].tolist() for one in found]
    assert right[0] == right[1] == right[2]


def test_what_is_no_number_is_not_wrong_but_no_number(words: Tokeniser) -> None:
    model = network(words)
    with torch.no_grad():
        model.head.out.bias.fill_(math.nan)  # type: ignore[union-attr]
    assert math.isnan(objective(corpus(triples(8)), words).score(model, "test", 20).values["accuracy"])


def test_the_baseline_is_what_is_commoner_in_training(words: Tokeniser) -> None:
    rows = triples(9)[:3] + [triples(9)[1]] * 3
    made = objective(corpus(rows, test=[*triples(4, seed=2), triples(4, seed=2)[1]]), words)
    assert made.baselines() == {"majority": pytest.approx(3 / 5)}


def test_what_does_not_fit_is_refused(words: Tokeniser) -> None:
    with pytest.raises(ConfigError, match=r"length = 4: must be at least 5"):
        objective(corpus(triples(8)), words, length=4)
    with pytest.raises(ConfigError, match=r"evaluation.tokens = 9"):
        objective(corpus(triples(8)), words, tokens=9)
    with pytest.raises(DataError, match=r"8 training rows, and training.batch = 16"):
        objective(corpus(triples(8)), words, batch=16)
    with pytest.raises(DataError, match="no test split"):
        objective(assemble("toy", ("a", "b", "c", "label"), {"train": triples(8), "validation": triples(2)}), words)


def test_it_learns_what_can_be_learnt(words: Tokeniser) -> None:
    """The nearer text has the first one's only word."""
    dice = np.random.default_rng(0)
    rows: list[Row] = []
    for index in range(64):
        one, other = dice.choice(WORDS[:6], size=2, replace=False)
        rows.append((one, one, other, "B") if index % 2 else (one, other, one, "C"))
    made, model = objective(corpus(rows, test=rows[:32]), words, batch=32), network(words)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, 121):
        optimiser.zero_grad()
        made.loss(model.train(), made.batch(0, step, 32)).backward()
        optimiser.step()
    assert made.score(model.eval(), "test", 20).values["accuracy"] > 0.95


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_the_task_fits_the_model_that_it_starts_from(scale: str) -> None:
    mine, theirs = task_at("cail2019-scm", scale, {}), task_at("zh-mlm", scale, {})
    for key in ("layers", "width", "heads", "feedforward", "norm", "activation", "vocabulary", "attention", "form"):
        assert getattr(mine.backbone, key) == getattr(theirs.backbone, key), key
    assert (mine.data.tokeniser, mine.data.released) == (theirs.data.tokeniser, theirs.data.released)
    assert max(stage.length for stage in theirs.training.stages) >= mine.length, "learned has room for the whole length"


def test_what_the_paper_says() -> None:
    task = task_at("cail2019-scm", "paper", {})
    assert (task.length, task.evaluation.longer_than, task.start) == (1024, 512, "zh-mlm")
    assert (task.training.learning_rate, 2 * task.training.batch) == (6e-6, 8)
    figures = {(one.row, one.times, one.split): one.value for one in task.card.reported}
    assert figures == {
        ("BERT", 0.5, "validation"): 0.6413, ("BERT", 0.5, "test"): 0.6777,
        ("WoBERT", 0.5, "validation"): 0.6407, ("WoBERT", 0.5, "test"): 0.6810,
        ("RoFormer", 0.5, "validation"): 0.6413, ("RoFormer", 0.5, "test"): 0.6829,
        ("RoFormer", 1.0, "validation"): 0.6607, ("RoFormer", 1.0, "test"): 0.6979,
    }  # fmt: skip


def test_cells_at_both_lengths_from_one_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16,
        "training.validate_every": 2,
    }  # fmt: skip
    made = make(find_suite("chinese"), Selection(scale="smoke", seeds=[0], encodings=["learned"], changes=changes))
    names = [cell.name for cell in made.cells if cell.config["data"]["tokeniser"] == "words"]
    assert names == [
        "zh-mlm/softmax/learned/L64/words/s0",
        "cail2019-scm/softmax/learned/L64/from-zh-mlm/words/s0",
        "cail2019-scm/softmax/learned/L128/from-zh-mlm/words/s0",
    ]
    parents = {cell.parent for cell in made.cells if cell.parent}
    assert len(parents) == 2, "one for words, one for characters"
    assert all(cell.why_not is None for cell in made.cells), "the parent's table has room for both lengths"


@pytest.mark.data
@pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
def test_the_real_file_runs(tmp_path: Path) -> None:
    changes = {
        "start": "scratch", "backbone.layers": 1, "backbone.width": 32, "backbone.heads": 2,
        "backbone.feedforward": 32, "training.steps": 4, "training.validate_every": 4,
        "data.vocabulary_of": "cail2019-scm",
    }  # fmt: skip
    chosen = Selection(scale="small", encodings=["rope"], changes=changes, data=Path(os.environ["POSENC_DATA"]))
    (cell,) = make(find_suite("cail2019-scm"), chosen).cells
    record = training.train(cell, CellTerms("test", tmp_path, data=chosen.data))
    assert record is not None
    assert record["status"] == "done", record["reason"]
    rows = {(row["split"], row["metric"]): row for row in record["scores"]}
    items = Store(tmp_path).read_items(record)
    assert rows["test", "accuracy"]["items"] == len(items["test/384/accuracy"]) == record["data"]["rows"]["test"]
    assert rows["test", "accuracy_long"]["value"] == pytest.approx(
        items["test/384/accuracy"][items["test/384/long"]].mean()
    )
