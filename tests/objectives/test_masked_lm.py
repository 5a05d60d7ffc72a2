"""Masked language modelling: what is hidden, what is scored, the same for every model; and the mean of weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SETTINGS
from scipy import stats

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import DataError
from posenc.config.task import task_at
from posenc.data.corpus import assemble
from posenc.data.tokens import Kind, tokeniser
from posenc.objectives.masked_lm import MaskedLM
from posenc.plan.plan import Selection, find_suite, make
from posenc.training.cell_terms import CellTerms
from posenc.training.loop import Loop

LENGTH = 40
DICE = np.random.default_rng(0)
WORDS = [f"word{index}" for index in range(60)]
DOCUMENTS = [(" ".join(DICE.choice(WORDS, size=30)),) for _ in range(400)]
CORPUS = assemble(
    "words", ("text",), {"train": DOCUMENTS[:300], "validation": DOCUMENTS[300:350], "test": DOCUMENTS[350:]}
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MaskedLM:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path))
    tokens = tokeniser(Kind("wordpiece", 200), [text for (text,) in DOCUMENTS], CORPUS.digest, None)
    task = task_at("mlm", "smoke", {})
    return MaskedLM(CORPUS, tokens, LENGTH, task.training, task.evaluation)


def test_fifteen_per_cent_are_hidden_eight_in_ten_as_mask_one_as_another_one_as_it_is(made: MaskedLM) -> None:
    shown, hidden, true = (
        torch.cat(parts) for parts in zip(*(made.batch(0, step, 64) for step in range(1, 41)), strict=True)
    )
    assert (hidden.sum(1) == round(0.15 * LENGTH)).all()
    assert (shown == true)[~hidden].all()
    places, n = hidden.float().mean(0), len(hidden)
    # Every place of the row alike: each is a binomial draw; the smallest of 40 p-values has this bound.
    for share in places.tolist():
        assert stats.binomtest(round(share * n), n, 6 / LENGTH).pvalue > 1e-6
    masked = int((shown == made.tokens.mask)[hidden].sum())
    same = int((shown == true)[hidden].sum())
    total = int(hidden.sum())
    assert stats.binomtest(masked, total, 0.8).pvalue > 1e-6
    assert stats.binomtest(same, total, 0.1 + 0.1 / (made.tokens.size - 5)).pvalue > 1e-6


def test_no_mark_is_hidden_and_no_special_token_stands_for_another(made: MaskedLM) -> None:
    # Documents of a sentence or so: marks are every tenth token, and would be hidden in every second row.
    batches = [made.batch(0, step, 64) for step in range(1, 41)]
    shown, hidden, true = (torch.cat(parts) for parts in zip(*[*batches, *made.windows("test", 8)][:40], strict=True))
    assert (true == made.tokens.sep).float().mean() > 0.02
    assert not hidden[true == made.tokens.sep].any()
    replaced = shown[hidden & (shown != true) & (shown != made.tokens.mask)]
    assert len(replaced) > 500
    assert not torch.isin(
        replaced, torch.tensor([made.tokens.pad, made.tokens.unknown, made.tokens.cls, made.tokens.sep])
    ).any()


def test_a_window_of_marks_alone_has_no_target_and_no_loss(made: MaskedLM) -> None:
    sep = np.full((2, 8), made.tokens.sep)
    batch = made._hide(sep, 0)
    assert made.targets(batch) == 0
    assert made.loss(Fixed(made.tokens.size, 7), batch).item() == 0.0
    few = sep.copy()
    few[0, 3] = 17
    assert made.targets(made._hide(few, 0)) == 1


def test_scores_depend_on_the_model_and_the_data_alone(made: MaskedLM) -> None:
    model = Transformer(
        BackboneConfig(
            form="encoder", head="masked", vocabulary=made.tokens.size, layers=1, width=8, heads=2, feedforward=8
        ),
        "rope",
        LENGTH,
    ).initialise(0).double()  # fmt: skip
    found = []
    for batch_tokens in (1, 5 * LENGTH, 10**6):
        made.evaluation = replace(made.evaluation, batch_tokens=batch_tokens)
        found.append(made.score(model, "test", LENGTH))
    for other in found[1:]:
        assert other.each["masked_accuracy"].tolist() == found[0].each["masked_accuracy"].tolist()
        assert other.values == pytest.approx(found[0].values, rel=1e-12)


def test_batches_depend_on_seed_and_step_alone(made: MaskedLM) -> None:
    first = made.batch(3, 7, 8)
    assert all(torch.equal(one, other) for one, other in zip(first, made.batch(3, 7, 8), strict=True))
    for other in (made.batch(4, 7, 8), made.batch(3, 8, 8)):
        assert not torch.equal(first[2], other[2])


def test_documents_follow_one_another_with_a_mark_between(made: MaskedLM) -> None:
    encoded = made.tokens.encode([text for (text,) in CORPUS.rows["test"]])
    wanted = [token for row in encoded for token in (*row, made.tokens.sep)]
    assert made.streams["test"].tolist() == wanted


class Fixed(Transformer):
    """Says the same of every token: what is scored can be worked out by hand."""

    def __init__(self, size: int, favourite: int) -> None:
        config = BackboneConfig(
            form="encoder", head="masked", vocabulary=size, layers=1, width=8, heads=1, feedforward=8
        )
        super().__init__(config, "none", LENGTH)
        self.favourite = favourite

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(*hidden.shape[:-1], self.config.vocabulary)
        scores[..., self.favourite] = math.log(3.0)
        return scores


def test_scores_of_a_model_worked_out_by_hand(made: MaskedLM) -> None:
    made.evaluation = replace(made.evaluation, tokens=0, batch_tokens=200)
    favourite, size = int(made.streams["test"][5]), made.tokens.size
    true = torch.cat([batch[2][batch[1]] for batch in made.windows("test", LENGTH)])
    right = float((true == favourite).double().mean())
    found = made.score(Fixed(size, favourite), "test", LENGTH)
    assert found.items == len(true) == len(made.streams["test"]) // LENGTH * 6
    assert found.values["masked_accuracy"] == pytest.approx(right)
    assert found.values["masked_loss"] == pytest.approx(math.log(size + 2) - right * math.log(3.0), rel=1e-6)


def test_what_is_hidden_in_evaluation_is_the_same_for_every_model_and_every_time(made: MaskedLM) -> None:
    once, twice = (list(made.windows("validation", LENGTH)) for _ in range(2))
    for one, other in zip(once, twice, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_commonest_token_has_its_accuracy_beside_the_test_score(made: MaskedLM) -> None:
    tokens = [token for (text,) in DOCUMENTS[:300] for token in made.tokens.encode([text])[0]]
    common = max(sorted(set(tokens)), key=tokens.count)
    model = Transformer(
        BackboneConfig(
            form="encoder", head="masked", vocabulary=made.tokens.size, layers=1, width=8, heads=2, feedforward=8
        ),
        "none",
        LENGTH,
    ).initialise(0)
    found = made.score(model, "test", LENGTH)
    hidden = torch.cat([batch[2][batch[1]] for batch in made.windows("test", LENGTH)]).tolist()
    share = hidden.count(common) / len(hidden)
    assert found.details == {"accuracy of always saying the commonest token": pytest.approx(share)}
    assert made.score(model, "validation", LENGTH).details == {}
    assert found.each["weight"].sum() == found.items == len(hidden)
    assert found.each["masked_loss"].sum() / len(hidden) == pytest.approx(found.values["masked_loss"])


def test_the_unigram_baseline_is_the_cross_entropy_of_shares(made: MaskedLM) -> None:
    counts = np.bincount(made.streams["train"], minlength=made.tokens.size) + 1.0
    counts[made.tokens.sep] = 1.0  # never hidden
    hidden = torch.cat([batch[2][batch[1]] for batch in made.windows("test", LENGTH)]).numpy()
    assert made.baselines()["unigram"] == pytest.approx(float(-np.log(counts / counts.sum())[hidden].mean()))


def test_too_short_a_text_is_refused(made: MaskedLM) -> None:
    with pytest.raises(DataError, match=r"its train split has .* tokens, and length 100,000 needs more"):
        MaskedLM(CORPUS, made.tokens, 100_000, made.training, made.evaluation)


def test_the_papers_figures_stand_in_the_paper_scale() -> None:
    task = task_at("mlm", "paper", {})
    backbone, training = task.backbone, task.training
    assert (backbone.layers, backbone.width, backbone.heads, backbone.feedforward) == (12, 768, 12, 3072)
    assert backbone.vocabulary == 30_522
    assert (training.learning_rate, training.batch, task.length, training.steps) == (1e-5, 64, 512, 100_000)
    assert (training.weight_decay, training.warmup, training.accumulate) == (0.01, 20_000, 4)


@pytest.fixture
def averaged(tmp_path: Path) -> Loop:
    small = {key: value for key, value in SETTINGS.items() if key.startswith("backbone.") and "attention" not in key}
    changes = small | {"training.steps": 9, "training.batch": 4, "training.validate_every": 2, "training.average": 3}
    changes |= {"training.warmup": 0, "training.learning_rate": 0.05, "evaluation.tokens": 640}
    (cell,) = make(find_suite("mlm"), Selection(encodings=["rope"], seeds=[0], changes=changes)).cells
    return Loop(cell, CellTerms("mlm", tmp_path / "results"), lambda: False)


def test_the_mean_of_the_last_weights_is_what_is_tested(averaged: Loop) -> None:
    """After steps 6, 8 and 9: the last three of five validations."""
    kept: dict[int, dict[str, torch.Tensor]] = {}
    validate = averaged.validate

    def noting(at: int, row: dict[str, object]) -> None:
        kept[at] = {name: value.clone() for name, value in averaged.model.state_dict().items()}
        validate(at, row)

    averaged.validate = noting  # type: ignore[method-assign]
    averaged.store.cell_folder(averaged.cell_id).mkdir(parents=True)
    averaged.run()
    assert list(kept) == [2, 4, 6, 8, 9]
    for name, value in averaged.chosen.state.items():
        torch.testing.assert_close(value, torch.stack([kept[at][name] for at in (6, 8, 9)]).mean(0))
    averaged.model.load_state_dict(averaged.chosen.state)
    again = {row["metric"]: row["value"] for row in averaged.score("validation", averaged.config["length"])}
    said = {row["metric"]: row["value"] for row in averaged.scores if row["split"] == "validation"}
    assert said == again
