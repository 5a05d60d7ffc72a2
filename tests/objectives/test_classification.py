"""Classification: metrics by hand, rows and their cut, who is held out, what a prediction depends on, GLUE's tasks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import SETTINGS
from words import WORDS, learnt

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError
from posenc.config.task import EvaluationConfig, TrainingConfig, task_at
from posenc.data import glue
from posenc.data.corpus import Corpus, Row, assemble
from posenc.data.tokens import Kind, Tokeniser, tokeniser
from posenc.objectives.classification import Classification, measured, metrics_for, shortened
from posenc.objectives.metrics import KNOWN
from posenc.plan.plan import Selection, find_suite, make
from posenc.training import cell as training
from posenc.training.cell_terms import CellTerms


@pytest.fixture(autouse=True, scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Tokeniser]:
    """A token a word. What is cached is this module's own."""
    yield from learnt(tmp_path_factory.mktemp("cache"))


def pairs(count: int, seed: int = 0, classes: int = 2) -> list[Row]:
    dice = np.random.default_rng(seed)
    texts = [" ".join(dice.choice(WORDS, size=dice.integers(1, 13))) for _ in range(2 * count)]
    return [(texts[2 * index], texts[2 * index + 1], index % classes) for index in range(count)]


def corpus(
    train: Sequence[Row], fields: tuple[str, ...] = ("first", "second", "label"), **others: Sequence[Row]
) -> Corpus:
    others.setdefault("validation", train[:6])
    return assemble("toy", fields, {"train": list(train), **{split: list(rows) for split, rows in others.items()}})


def objective(
    data: Corpus, words: Tokeniser, *metrics: Any, length: int = 16, held_out: float = 0.2, batch: int = 8, **more: Any
) -> Classification:
    settings = TrainingConfig(steps=1, batch=batch, learning_rate=1.0, validate_every=1)
    scored: Any = {"metrics": list(metrics or ["accuracy"]), "length_factors": [1], **more}
    return Classification(data, words, length, held_out, settings, EvaluationConfig(**scored))


def network(words: Tokeniser, outputs: int, encoding: str = "rope", length: int = 16) -> Transformer:
    sizes = {"vocabulary": words.size, "layers": 1, "width": 32, "heads": 2, "feedforward": 64}
    shape = BackboneConfig(form="encoder", head="class", outputs=outputs, **sizes)  # type: ignore[arg-type]
    return Transformer(shape, encoding, length).initialise(0)


def main(found: dict[str, float]) -> float:
    return next(iter(found.values()))


class TestMetrics:
    def values(self, answers: Sequence[Sequence[float]], truth: Sequence[float], *names: str) -> dict[str, float]:
        return measured([KNOWN[name] for name in names], np.array(answers, dtype=float), np.array(truth))[0]

    def test_of_classes(self) -> None:
        guesses = [1, 0, 1, 1, 0, 1]  # three right of four "1", one "1" missed: precision and recall 3/4
        answers = [[0.0, 1.0] if guess else [1.0, 0.5] for guess in guesses]
        found = self.values(answers, [1, 1, 1, 0, 0, 1], "f1", "accuracy")
        assert found == {"f1": pytest.approx(0.75), "accuracy": pytest.approx(4 / 6)}
        assert list(found) == ["f1", "accuracy"]
        answers = [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
        assert self.values(answers, [1, 0, 0, 1], "f1")["f1"] == pytest.approx(2 / 3)  # of class 0 it is 4/5
        assert self.values([[1.0, 0.0]] * 3, [1, 0, 1], "f1")["f1"] == 0.0
        three = [[3.0, 1.0, 2.0], [0.0, 0.1, 0.2], [0.0, 1.0, 0.5], [9.0, 1.0, 0.5]]
        assert self.values(three, [0, 2, 1, 2], "accuracy")["accuracy"] == 0.75

    def test_of_scores(self) -> None:
        # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: products of what they are off the mean 4.5, squares 4.5 and 5.
        found = self.values([[1.0], [2.0], [2.0], [4.0]], [1.0, 3.0, 2.0, 4.0], "spearman", "pearson")
        assert found["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5))
        assert found["pearson"] == pytest.approx(4.5 / math.sqrt(4.75 * 5))

    def test_a_constant_has_no_correlation_and_says_so(self) -> None:
        metrics = [KNOWN["spearman"], KNOWN["pearson"]]
        cases = ([2.5] * 3, [0.0, 1.0, 5.0], "prediction is 2.5"), ([0, 1, 2], [4.0] * 3, "label is 4")
        for answers, truth, whose in cases:
            values, details = measured(metrics, np.array(answers, dtype=float)[:, None], np.array(truth))
            assert values == {"spearman": 0.0, "pearson": 0.0}
            assert whose in details["constant"]

    def test_what_is_no_number_stays_none(self) -> None:
        for name in ("accuracy", "f1", "matthews", "spearman", "pearson"):
            answers = np.array([[0.0, 1.0], [math.nan, 1.0], [1.0, 0.0]])
            assert math.isnan(measured([KNOWN[name]], answers, np.array([0, 1, 1]))[0][name])

    def test_metrics_that_do_not_fit_the_labels_are_refused(self) -> None:
        wrong: dict[int, list[list[str]]] = {
            1: [[], ["f1"]],
            2: [[], ["pearson"], ["f1", "f1"]],
            3: [["accuracy", "f1"]],
        }
        for outputs, names in [(outputs, names) for outputs, lists in wrong.items() for names in lists]:
            with pytest.raises(ConfigError, match=r"evaluation\.metrics = .*, each once"):
                metrics_for(names, outputs)

    def test_baselines(self, words: Tokeniser) -> None:
        train = [(a, b, int(index % 4 == 0)) for index, (a, b, _) in enumerate(pairs(40))]
        test = [(a, b, int(index < 6)) for index, (a, b, _) in enumerate(pairs(10, seed=1))]
        data = corpus(train, validation=test)
        assert objective(data, words).baselines() == {"majority": 0.4}  # 0 is what most of train has, and 4 of test
        assert objective(data, words, "f1", "accuracy").baselines() == {"always 1": pytest.approx(0.75)}  # 0.6 and 1
        scored = corpus([(a, b, float(label)) for a, b, label in train])
        assert objective(scored, words, "spearman").baselines() == {"mean of train": 0.0}


def bert_cuts(first: int, second: int, room: int) -> list[int]:
    """Lengths after `_truncate_seq_pair` of BERT's run_classifier.py."""
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return [first, second]


class TestRows:
    @given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
    def test_the_longer_text_is_cut_as_bert_cuts_it(self, first: int, second: int, room: int) -> None:
        assert shortened([first, second], room) == bert_cuts(first, second, room)
        assert shortened([first], room) == [min(first, room)]

    def test_layout(self, words: Tokeniser) -> None:
        rows: list[Row] = [("the cat saw a bird", "a dog", 0), *pairs(20)]
        built = objective(corpus(rows, test=rows), words)
        ids = {word: words.encode([word])[0][0] for word in WORDS}
        first = [ids[word] for word in ("the", "cat", "saw", "a", "bird")]
        whole = [words.cls, *first, words.sep, ids["a"], ids["dog"], words.sep]
        assert built.row("train", 0, 16).tolist() == whole
        assert built.row("train", 0, 8).tolist() == [*whole[:4], words.sep, ids["a"], ids["dog"], words.sep]
        assert built.row("train", 0, 5).tolist() == [words.cls, ids["the"], words.sep, ids["a"], words.sep]
        single = corpus([(a, label) for a, _, label in rows], ("first", "label"))
        assert objective(single, words).row("train", 0, 4).tolist() == [words.cls, ids["the"], ids["cat"], words.sep]

    def test_rows_are_cut_counted_and_padded(self, words: Tokeniser) -> None:
        rows = pairs(60)
        long = [len((a + " " + b).split()) + 3 > 12 for a, b, _ in rows]
        built = objective(corpus(rows, validation=rows[:20], test=rows[20:]), words, length=12)
        assert built.data["cut"] == {"train": sum(long), "validation": sum(long[:20]), "test": sum(long[20:])}
        assert 0 < sum(long[20:]) < 40
        assert built.score(network(words, 2), "test", 12).details == {"rows cut": sum(long[20:])}
        assert built.score(network(words, 2), "test", 30).details == {}
        tokens, mask, labels = built.batch(0, 1, 8)
        assert tokens.shape == mask.shape and tokens.shape[1] <= 12 and mask.dtype == torch.bool
        assert built.targets((tokens, mask, labels)) == len(labels) == len(tokens) == 8
        assert built.seen((tokens, mask, labels)) == mask.sum()
        assert (tokens[:, 0] == words.cls).all()
        assert (tokens[~mask] == words.pad).all() and (tokens[mask] != words.pad).all()

    def test_other_labels_and_what_leaves_nothing_are_refused(self, words: Tokeniser) -> None:
        rows = pairs(20)
        for label in ("x", True, 1):
            with pytest.raises(DataError, match=f"labels of {type(label).__name__}: must be scores"):
                objective(corpus([(a, b, label) for a, b, _ in rows]), words)
        with pytest.raises(DataError, match="its validation split has the class 2"):
            objective(corpus(rows, validation=[("a", "a", 2)]), words)
        with pytest.raises(DataError, match="labels of float, int"):
            objective(corpus(rows, validation=[("a", "a", 0.5)]), words)
        with pytest.raises(ConfigError, match="length = 4: must be at least 5"):
            objective(corpus(rows), words, length=4)
        with pytest.raises(DataError, match=r"1\d training rows, and training.batch = 32"):
            objective(corpus(rows), words, batch=32)
        with pytest.raises(ConfigError, match=r"data\.held_out = 0\.0: must be more than 0 and less than 1"):
            objective(corpus(rows), words, held_out=0.0)
        with pytest.raises(DataError, match="no row is left for validation"):
            objective(corpus(rows), words, held_out=1e-9)
        with pytest.raises(DataError, match="no validation split"):
            objective(assemble("toy", ("first", "second", "label"), {"train": rows}), words)


class TestSplits:
    def texts(self, built: Classification, split: str, data: Corpus) -> list[Row]:
        source, rows = built.splits[split]
        return [data.rows[source][index] for index in rows]

    def test_a_share_of_train_is_held_out_and_the_benchmarks_validation_is_the_test(self, words: Tokeniser) -> None:
        data = corpus(pairs(2000), validation=pairs(50, 1), validation_mismatched=pairs(30, 2))
        built = objective(data, words, held_out=0.1)
        sides = [self.texts(built, split, data) for split in ("train", "validation")]
        assert sorted(sides[0] + sides[1]) == sorted(data.rows["train"])
        assert 150 < len(sides[1]) < 250
        assert self.texts(built, "test", data) == data.rows["validation"]
        assert self.texts(built, "test_mismatched", data) == data.rows["validation_mismatched"]
        assert built.tests == [("test", 16), ("test_mismatched", 16)]
        assert "on 0.1 of the training rows" in str(built.data["choices"])
        sizes = {"train": len(sides[0]), "validation": len(sides[1]), "test": 50, "test_mismatched": 30}
        assert built.data["splits"] == sizes

    def test_rows_of_one_text_stand_on_one_side(self, words: Tokeniser) -> None:
        rows = pairs(300)
        again: list[Row] = [(f" {b.upper()}", a.replace(" ", "  "), 1 - label) for a, b, label in rows]
        data = corpus([*rows, *again, *rows])
        built = objective(data, words, held_out=0.3)
        sides = [
            {frozenset(" ".join(cell.lower().split()) for cell in row[:2]) for row in self.texts(built, split, data)}
            for split in ("train", "validation")
        ]
        assert sides[0] and sides[1] and not sides[0] & sides[1]
        held = {tuple(built.row("train", int(index), 16)) for index in built.splits["validation"][1]}
        batches = [built.batch(0, step, 8) for step in range(1, built.epochs.steps + 1)]
        assert not held & {tuple(row[row != words.pad].tolist()) for tokens, _, _ in batches for row in tokens}

    def test_no_other_row_has_a_say_in_it(self, words: Tokeniser) -> None:
        rows = pairs(300)
        one, other = corpus(rows), corpus([*pairs(100, 5), *rows[::-1]])
        held = set(self.texts(objective(one, words), "validation", one))
        assert held <= set(self.texts(objective(other, words, length=9, batch=4), "validation", other))
        assert not held & set(self.texts(objective(other, words), "train", other))

    def test_a_corpus_with_a_test_of_its_own_holds_nothing_out(self, words: Tokeniser) -> None:
        data = corpus(pairs(40), validation=pairs(20, 1), test=pairs(10, 2))
        built = objective(data, words, held_out=0.0)
        assert built.data["splits"] == {"train": 40, "validation": 20, "test": 10}
        assert built.tests == [("test", 16)]
        assert self.texts(built, "test", data) == data.rows["test"]
        assert "test split is scored once" in str(built.data["choices"])

    def test_every_row_once_an_epoch_in_an_order_of_the_seeds(self, words: Tokeniser) -> None:
        rows: list[Row] = [(f"{'dog ' * (n % 9)}{a} cat {b}", n % 2) for n, (a, b, _) in enumerate(pairs(80))]
        built = objective(corpus(rows, ("first", "label"), test=rows), words, length=40)

        def epoch(seed: int, number: int) -> list[tuple[int, ...]]:
            steps = range(1 + 10 * number, 11 + 10 * number)
            return [tuple(row[row != words.pad].tolist()) for step in steps for row in built.batch(seed, step, 8)[0]]

        everything = sorted(tuple(built.row("train", index, 40)) for index in range(80))
        orders = [epoch(0, 0), epoch(0, 1), epoch(1, 0)]
        assert all(sorted(order) == everything for order in orders)
        assert all(one != other for one, other in pairwise(orders))
        assert epoch(0, 0) == orders[0]
        with pytest.raises(ValueError, match="4 rows a batch"):
            built.batch(0, 1, 4)


class TestModels:
    @pytest.mark.parametrize("encoding", ["none", "sinusoidal", "learned", "t5", "shaw", "rope"])
    def test_padding_changes_no_prediction(self, words: Tokeniser, encoding: str) -> None:
        built = objective(corpus(pairs(40)), words, length=27)
        model = network(words, 2, encoding, 27).double().eval()
        tokens, mask, _ = built.batch(0, 1, 8)
        assert not mask.all()
        with torch.no_grad():
            for row, real, answer in zip(tokens, mask, model(tokens, mask=mask), strict=True):
                torch.testing.assert_close(model(row[real][None])[0], answer, rtol=0, atol=1e-12)

    def test_a_score_does_not_depend_on_how_rows_are_batched(self, words: Tokeniser) -> None:
        rows = [(a, b, float(index % 6)) for index, (a, b, _) in enumerate(pairs(60))]
        model = network(words, 1).double().eval()
        sizes = (1, 100, 10**6)
        built = [objective(corpus(rows, test=rows), words, "spearman", "pearson", batch_tokens=size) for size in sizes]
        found = [one.score(model, "test", 16) for one in built]
        assert found[0].items == 60 and 0 < abs(main(found[0].values)) < 1
        assert all(one.values == pytest.approx(found[0].values) for one in found)

    def test_no_batch_is_larger_than_it_may_be_and_every_row_is_scored_once(self, words: Tokeniser) -> None:
        built = objective(corpus(pairs(90), test=pairs(90)), words, batch_tokens=70)
        batches = list(built._batches("test", 16))
        assert all(tokens.numel() <= 70 for tokens, _, _ in batches)
        assert sum(len(labels) for _, _, labels in batches) == 90
        few = objective(corpus(pairs(90), test=pairs(90)), words, tokens=300, length_factors=[1, 2])
        assert few.tests == [("test", 16), ("test", 32)]
        counts = {sum(len(labels) for _, _, labels in few._batches("test", length)) for length in (16, 32)}
        assert len(counts) == 1 and 300 / 16 - 1 <= counts.pop() < 90

    def test_matched_and_mismatched_are_scored_apart(self, words: Tokeniser) -> None:
        rows = pairs(60, classes=3)
        flipped: list[Row] = [(a, b, (label + 1) % 3) for a, b, label in rows[:30] if label != 1]
        built = objective(corpus(rows, validation=rows, validation_mismatched=flipped), words, length=40)
        model = network(words, 3, length=40).eval()
        torch.nn.init.constant_(model.get_parameter("head.out.weight"), 0.0)
        model.get_parameter("head.out.bias").data = torch.tensor([0.0, 1.0, 0.0])  # says 1 of all
        found = [tuple(built.score(model, split, 40))[:3] for split, _ in built.tests]
        assert found == [({"accuracy": pytest.approx(1 / 3)}, 60, {}), ({"accuracy": 0.5}, 20, {})]

    @pytest.mark.parametrize("kind", ["accuracy", "spearman"])
    def test_it_learns_what_can_be_learnt(self, words: Tokeniser, kind: str) -> None:
        """Does "cat" stand in the first text? How many of six words are "dog"?"""
        dice = np.random.default_rng(0)
        rows: list[Row] = []
        for _ in range(400):
            told, label = dice.choice(["dog", "bird", "tree"], size=6), int(dice.random() < 0.5)
            score = float((told == "dog").sum()) * 5 / 6
            if kind == "accuracy":
                told[dice.integers(6)] = "cat" if label else "ran"
            rows.append((" ".join(told), "a house", label if kind == "accuracy" else score))
        built = objective(corpus(rows, test=rows[:100]), words, kind, batch=32)
        model = network(words, built.outputs)
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(1, 101):
            loss = built.loss(model.train(), built.batch(0, step, 32))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert main(built.score(model.eval(), "test", 16).values) > 0.95 > main(built.baselines()) + 0.3

    def test_the_loss_is_the_mean_over_rows(self, words: Tokeniser) -> None:
        """So parts of a batch, weighed by their rows, give the whole's; and scores count as they stand."""
        rows = [(a, b, 5.0) for a, b, _ in pairs(40)]
        built = objective(corpus(rows), words, "pearson")
        model, batch = network(words, 1).eval(), built.batch(0, 1, 8)
        halves = [tuple(tensor[part] for tensor in batch) for part in (slice(2), slice(2, None))]
        parts = [built.loss(model, half) * built.targets(half) / 8 for half in halves]
        torch.testing.assert_close(parts[0] + parts[1], built.loss(model, batch))
        torch.nn.init.constant_(model.get_parameter("head.out.weight"), 0.0)
        torch.nn.init.constant_(model.get_parameter("head.out.bias"), 2.0)
        assert built.loss(model, batch).item() == pytest.approx(9.0)


LARGE = ("sst2", "qnli", "qqp", "mnli")
"""Real files that take seconds to read and to tokenise."""
TASKS = {  # the main metric, rows of train, and Table 2's BERT and RoFormer
    "mrpc": ("f1", 3668, "88.9", "89.5"), "sst2": ("accuracy", 67_349, "93.5", "90.7"),
    "qnli": ("accuracy", 104_743, "90.5", "88.0"), "stsb": ("spearman", 5749, "85.8", "87.0"),
    "qqp": ("f1", 363_846, "71.2", "86.4"), "mnli": ("accuracy", 392_702, "84.6/83.4", "80.2/79.8"),
}  # fmt: skip


class TestTasks:
    @pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
    @pytest.mark.parametrize("name", TASKS)
    def test_they_fit_the_model_that_they_start_from(self, name: str, scale: str) -> None:
        task, parent = task_at(f"glue/{name}", scale, {}), task_at("mlm", scale, {})
        assert task.start == "mlm"
        ours, theirs = asdict(task.backbone), asdict(parent.backbone)
        assert {key for key in ours if ours[key] != theirs[key]} == {"head", "outputs"}
        assert task.length == parent.length
        for key in ("tokeniser", "released", "revision"):
            assert getattr(task.data, key) == getattr(parent.data, key)
        assert task.data.released or task.data.vocabulary_of == parent.data.source, "the same tokens"
        assert metrics_for(task.evaluation.metrics, task.backbone.outputs)[0].name == TASKS[name][0]

    @pytest.mark.parametrize("name", TASKS)
    def test_what_the_paper_says(self, name: str) -> None:
        task, (_, rows, *figures) = task_at(f"glue/{name}", "paper", {}), TASKS[name]
        said = " ".join(task.card.paper_says)
        assert f"BERT {figures[0]} %" in said and f"RoFormer {figures[1]} %" in said
        assert "hidden test set" in said and "RoFormer's is on the dev set" in said
        assert (task.training.batch, task.length, task.training.learning_rate) == (32, 512, 2e-5)
        assert task.training.steps == 3 * (round(rows * (1 - task.data.held_out)) // 32)
        assert task.training.warmup == round(task.training.steps / 10)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["sst2", "stsb"])
    def test_a_cell_from_plan_to_record(self, name: str, tmp_path: Path) -> None:
        tiny = {**SETTINGS, "training.batch": 8, "training.warmup": 1, "evaluation.tokens": 2000}
        plan = make(find_suite(f"glue/{name}"), Selection(scale="smoke", encodings=["learned"], changes=tiny))
        terms = CellTerms("test", tmp_path / "results", keep=plan.parents())
        records = [training.train(cell, terms) for cell in plan.cells]
        assert [record and record["status"] for record in records] == ["done", "done"]
        record = records[1]
        assert record and record["metric"]["name"] == TASKS[name][0]
        assert {row["split"] for row in record["scores"]} == {"validation", "test"}
        assert all(row["items"] > 20 and math.isfinite(row["value"]) for row in record["scores"])
        assert record["data"]["generated"] is True and max(record["data"]["cut"].values()) == 0

    def test_outputs_that_the_labels_do_not_have_fail_the_cell(self, tmp_path: Path) -> None:
        changes = {"start": "scratch", "backbone.outputs": 3}
        plan = make(find_suite("glue/sst2"), Selection(scale="smoke", encodings=["none"], changes=changes))
        record = training.train(plan.cells[0], CellTerms("test", tmp_path))
        assert record and record["reason"] == "backbone.outputs = 3: generated sentiments has 2"


@pytest.mark.data
@pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in TASKS]
)
def test_real_files(name: str, words: Tokeniser) -> None:
    """Each reads, the share held out is as large as asked for, and a batch is what a model takes."""
    data, task = glue.TASKS[name](Path(os.environ["POSENC_DATA"])), task_at(f"glue/{name}", "paper", {})
    total = len(data.rows["train"])
    texts = [str(cell) for row in data.rows["train"][:2000] for cell in row[:-1]]
    tokens = tokeniser(Kind("wordpiece", 4000), texts, f"{name} {data.digest}", None)
    built = objective(data, tokens, *task.evaluation.metrics, length=64, held_out=task.data.held_out, batch=32)
    sizes = [len(built.splits[split][1]) for split in ("train", "validation", "test")]
    assert sizes[0] + sizes[1] == total and sizes[2] == len(data.rows["validation"])
    assert sizes[1] == pytest.approx(task.data.held_out * total, abs=5 * math.sqrt(task.data.held_out * total))
    if total == TASKS[name][1]:
        assert 3 * built.epochs.steps == pytest.approx(task.training.steps, rel=0.02)
    assert math.isfinite(built.loss(network(tokens, built.outputs, length=64), built.batch(0, 1, 32)).item())
    assert (built._whole("train") > 64).mean() < 0.5
    assert name == "stsb" or 0.3 < main(built.baselines()) < 0.9
    glue.TASKS[name].cache_clear()  # real files are large
