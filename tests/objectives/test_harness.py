"""lm-evaluation-harness as a task: its scores are those of a plain loop over the model that was trained."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from posenc.common.errors import ConfigError
from posenc.config.settings import Settings
from posenc.data import sources
from posenc.objectives import factory
from posenc.objectives.causal_lm import _losses
from posenc.objectives.harness import Harness
from posenc.objectives.windows import separate
from posenc.plan.plan import Plan, Selection, find_suite, make
from posenc.training import cell as training
from posenc.training import evaluation
from posenc.training.cell_terms import CellTerms
from posenc.training.runtime import make_model

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: the extra posenc[lm-eval]")
pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"backbone.layers": 1, "backbone.width": 32, "backbone.heads": 2, "backbone.feedforward": 32}


def plan(task: str, encoding: str = "rope", **changes: Any) -> Plan:
    chosen = Selection(encodings=[encoding], seeds=[0], scale="smoke", changes={**SMALL, **changes})
    return make(find_suite(task), chosen)


def objective(task: str, rows: int, encoding: str = "rope") -> tuple[Harness, Settings, Any]:
    """The objective of a task's first rows, and a model that nothing has trained, whose guesses differ."""
    settings = plan(task, encoding).cells[-1].settings
    made = factory.make(settings, None)
    assert isinstance(made, Harness)
    made.rows = made.rows[:rows]
    model = make_model(settings).eval()
    with torch.no_grad():
        model.embedding.weight.mul_(3.0)
    return made, settings, model.begin_step(0, 0)


def likelihood(model: Any, before: list[int], after: list[int], window: int) -> float:
    """Token by token, in parts of a window, each after as much as fits of what stands before it."""
    whole, total = before + after, 0.0
    for start in range(len(before), len(whole), window):
        end = min(start + window, len(whole))
        row = whole[max(0, end - window - 1) : end]
        said = model(torch.tensor([row[:-1]]))[0].detach().double().log_softmax(-1)
        total += sum(float(said[len(row) - 1 - (end - place)][whole[place]]) for place in range(start, end))
    return total


@pytest.mark.parametrize("task", ["lm-eval/arc-easy", "lm-eval/openbookqa"])
def test_choices_are_those_of_a_plain_loop(task: str) -> None:
    made, settings, model = objective(task, 12)
    found = made.score(model, "test", settings.length)
    tokens = made.tokens
    by_whole, by_character = [], []
    for _, written in made.rows:
        document = json.loads(written)
        asked = f"Question: {document['question']}\nAnswer:" if "question" in document else document["question_stem"]
        answers = document["choices"]["text"]
        said = []
        for answer in answers:
            (whole,), (before,) = tokens.encode([f"{asked} {answer}"]), tokens.encode([asked])
            said.append(likelihood(model, before, whole[len(before) :], settings.length))
        right = document["choices"]["label"].index(document["answerKey"])
        by_whole.append(int(np.argmax(said)) == right)
        lengths = [len(answer) for answer in answers]
        by_character.append(int(np.argmax(np.array(said) / lengths)) == right)
    assert found.each["accuracy"].tolist() == by_whole
    assert found.each["accuracy_norm"].tolist() == by_character
    assert 0 < sum(by_whole) < 12, "a model that is always right, or never, shows little"
    assert found.values == {"accuracy": np.mean(by_whole), "accuracy_norm": np.mean(by_character)}
    assert found.items == 12 and found.each["weight"].sum() == 12


@pytest.mark.parametrize("length", [16, 64, 128])
def test_texts_are_as_likely_as_a_plain_loop_says(length: int) -> None:
    made, _, model = objective("lm-eval/wikitext", 2)
    found = made.score(model, "test", length)
    pages = [json.loads(written)["page"] for _, written in made.rows]
    tokens = made.tokens.encode([detokenised(page) for page in pages])
    nats = [-likelihood(model, [made.tokens.sep], row, length) for row in tokens]
    words = [len(re.split(r"\s+", page)) for page in pages]
    assert found.each["nats"] == pytest.approx(np.array(nats), rel=1e-6)
    assert found.each["words"].tolist() == words
    assert found.each["bytes"].tolist() == [len(page.encode()) for page in pages]
    assert found.values["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / found.each["bytes"].sum(), rel=1e-6)
    assert found.values["word_perplexity"] == pytest.approx(math.exp(sum(nats) / sum(words)), rel=1e-6)


def detokenised(page: str) -> str:
    """What the harness's rules make of pages that have no tokens of WikiText in them: spaces at lines' ends go."""
    return page.replace(" \n", "\n").replace("\n ", "\n")


def test_what_a_guess_scores_stands_beside() -> None:
    for task, wanted in (("lm-eval/arc-easy", 0.25), ("lm-eval/mmlu", 0.25), ("lm-eval/bbh", 0.5)):
        made, _, _ = objective(task, 5)
        assert made.baselines() == {"chance": wanted}
    made, _, _ = objective("lm-eval/wikitext", 3)
    pages = [json.loads(written)["page"] for _, written in made.rows]
    count = sum(len(row) for row in made.tokens.encode([detokenised(page) for page in pages]))
    words = sum(len(re.split(r"\s+", page)) for page in pages)
    (uniform,) = made.baselines().values()
    assert uniform == pytest.approx(math.exp(count * math.log(made.tokens.size) / words))


def test_of_choices_that_are_as_likely_the_first_is_taken() -> None:
    made, settings, model = objective("lm-eval/mmlu", 40)  # whose answers are letters, of a token each
    with torch.no_grad():
        model.embedding.weight.zero_()
    found = made.score(model, "test", settings.length)
    first = [float(json.loads(written)["answer"] == 0) for _, written in made.rows]
    assert 0 < sum(first) < 40 and found.each["accuracy"].tolist() == first


def test_each_definition_has_its_own_metrics() -> None:
    names = {}
    for name in sources.HARNESS:
        made, _, _ = objective(f"lm-eval/{name}", 1)
        names[name] = [metric.name for metric in made.metrics]
    both = ["accuracy", "accuracy_norm"]
    assert names == {
        "arc-easy": both, "openbookqa": both, "gpqa": both, "mmlu": ["accuracy"], "bbh": ["accuracy_norm"],
        "wikitext": ["word_perplexity", "bits_per_byte"],
    }  # fmt: skip


def test_a_longer_window_than_a_table_has_is_not_possible() -> None:
    made, settings, model = objective("lm-eval/wikitext", 1, "learned")
    rows, _ = evaluation.score(made, model, settings.runtime, "test", 128)
    assert all(row["value"] is None and "it has 64 positions, and 128 were asked for" in row["why"] for row in rows)
    rows, arrays = evaluation.score(made, model, settings.runtime, "test", 32)
    assert all(row["value"] > 0 for row in rows) and len(arrays["test/32/nats"]) == 1


SUITE = """
name = "mine"
title = "Mine"
baseline = "none"
scale = "smoke"
seeds = [0]

[[grid]]
tasks = ["lm"]
encodings = ["rope"]
set = { "training.steps" = 80, "training.warmup" = 10, "training.validate_every" = 40 }

[[grid]]
tasks = ["lm-eval/wikitext"]
encodings = ["rope"]
"""


def test_the_model_of_the_task_that_it_starts_from_is_measured(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    parent, child = make(find_suite(str(tmp_path / "mine.toml")), Selection(changes=SMALL)).cells
    assert child.config["parent"] == parent.id and child.config["training"]["steps"] == 0
    terms = CellTerms("mine", tmp_path / "mine", keep=frozenset([parent.id]))
    record = training.train(parent, terms)
    assert record and record["status"] == "done", record
    measured = training.train(child, terms)
    assert measured and measured["status"] == "done", measured
    by_length = {row["length"]: row["value"] for row in measured["scores"] if row["metric"] == "word_perplexity"}
    assert set(by_length) == {16, 32, 64, 128}
    assert all(value < measured["baselines"]["uniform"] / 3 for value in by_length.values())
    assert measured["checkpoint"] == record["checkpoint"]


def test_it_must_be_told_whose_model_and_whose_tokens(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start = 'scratch': objective 'harness' measures a trained model"):
        plan("lm-eval/wikitext", start="scratch")
    with pytest.raises(ConfigError, match=r"data\.vocabulary_of: must say on whose text"):
        plan("lm-eval/wikitext", **{"data.vocabulary_of": ""})
    (tmp_path / "mine.toml").write_text(f'{SUITE}set = {{ "data.vocabulary_of" = "generated/case-documents" }}')
    with pytest.raises(ConfigError, match=r"the tokens of lm/.* are those of the text of 'generated/documents'"):
        make(find_suite(str(tmp_path / "mine.toml")), Selection(changes=SMALL))


def test_without_the_harness_a_plan_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posenc.objectives.harness.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"is not installed: pip install 'posenc\[lm-eval\]'"):
        plan("lm-eval/wikitext")


def test_a_texts_perplexity_is_that_of_language_modelling_with_the_same_windows() -> None:
    """A page whose tokens fill whole windows, by the harness and as the task `lm` scores its test."""
    from posenc.harness.model import HarnessLM

    made, settings, model = objective("lm-eval/wikitext", 40)
    texts = [detokenised(json.loads(written)["page"]) for _, written in made.rows]
    stream = [made.tokens.sep, *made.tokens.encode([" ".join(texts)])[0]]
    for cut in range(5 * 64 + 1, len(stream), 64):  # where a window's end is no word's, its text has other tokens
        text = made.tokens.decode(stream[1:cut])
        if made.tokens.encode([text])[0] == stream[1:cut]:
            break
    else:
        pytest.fail("no whole windows in this text")
    asked = HarnessLM(model, made.tokens, 64, settings.evaluation.batch_tokens)
    (told,) = asked.loglikelihood_rolling([SimpleNamespace(args=(text,))])
    (apart,) = separate(cut - 1, 64)
    nats = sum(_losses(model, batch).sum() for batch in apart.batches(np.array(stream[:cut]), 4096))
    assert -told == pytest.approx(float(nats), rel=1e-6)
    words = len(text.split())
    assert math.exp(-told / words) == pytest.approx(math.exp(float(nats) / words), rel=1e-5)
