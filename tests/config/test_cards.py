"""Cards state where a task's model departs from the one it is named after, and what they state of ours is so."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from posenc.backbone.transformer import Transformer
from posenc.common.toml import read_toml
from posenc.config.task import SCALES, available, task_at

TASKS = sorted(available("tasks"))
LEARNT = [name for name in TASKS if task_at(name, "paper", {}).training.steps]
"""The others measure, and stand for no model of a paper's."""
OF_BERT = [
    name
    for name in LEARNT
    if task_at(name, "paper", {}).backbone.form == "encoder"
    and name.partition("/")[0] not in ("diagnostic", "images", "video")
]


def told(name: str) -> str:
    """All departures of a task's card, one a line."""
    return "\n".join(task_at(name, "paper", {}).card.departures)


def model(name: str) -> Transformer:
    with torch.device("meta"):
        return Transformer(task_at(name, "paper", {}).backbone, "none", 64)


@pytest.mark.parametrize("name", TASKS)
def test_every_card_states_its_departures_or_that_there_is_none(name: str) -> None:
    card: dict[str, Any] = read_toml(available("tasks")[name])["card"]
    assert isinstance(card["departures"], list)
    assert bool(card["departures"]) == (name in LEARNT)
    assert all("here" in one for one in card["departures"]), "each says what stands here"


@pytest.mark.parametrize("name", OF_BERT)
def test_what_cards_say_of_bert_is_what_ours_is(name: str) -> None:
    text, ours = told(name), model(name)
    norms = [module for module in ours.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-5} and "1e-12 to the variance; here 1e-5" in text
    assert not [name for name, part in ours.named_children() if isinstance(part, nn.LayerNorm)]
    assert "layer norm after the sum of" in text and "here none" in text
    assert task_at(name, "paper", {}).backbone.attention_dropout == 0 and "attention weights; here none" in text
    assert "standard deviation of 0.02" in text or "standard deviation 0.02" in text
    assert task_at(name, "paper", {}).backbone.dropout == 0.1, "which needs no word, as it is BERT's"


def test_what_the_cards_of_cifar_say_is_what_ours_is() -> None:
    for name in ("images/cifar10", "images/cifar100"):
        task, said = task_at(name, "paper", {}), " ".join(task_at(name, "paper", {}).card.paper_says)
        backbone, training = task.backbone, task.training
        for words in (
            f"{backbone.layers} layers, {backbone.width} wide, {backbone.heads} heads",
            "4 x 4",
            "200 epochs",
        ):
            assert words in said
        assert (task.length, backbone.patch) == ((32 // 4) ** 2, (4, 4)) and training.batch == 4 * 128
        assert abs(training.steps * training.batch / 45_000 - 200) < 1  # epochs
        assert (training.learning_rate, training.schedule, training.weight_decay) == (1e-4, "cosine", 0)
        assert (backbone.dropout, backbone.attention_dropout) == (0.1, 0.1)
        assert (training.shift, training.flip) == (4, True)


def test_what_the_card_of_imagenet_says_is_what_ours_is() -> None:
    task = task_at("images/imagenet", "paper", {})
    backbone, training, said = task.backbone, task.training, " ".join(task.card.paper_says)
    for words in (f"{backbone.layers} layers, {backbone.width} wide, {backbone.heads} heads", "400 epochs", "2,048"):
        assert words in said
    assert (task.length, backbone.patch) == ((224 // 16) ** 2, (16, 16)) and training.batch == 2048
    assert abs(training.steps * training.batch / 1_271_167 - 400) < 1
    assert (training.weight_decay, training.learning_rate) == (0.03, 1e-3) and "here AdamW at 1e-3" in told(task.name)
    assert [round(length**0.5) * 16 for length in task.evaluation.lengths(task.length)] == [
        160, 192, 224, 256, 288, 320, 384, 448, 512,
    ]  # fmt: skip


def test_what_the_card_of_ucf101_says_is_what_ours_is() -> None:
    task = task_at("video/ucf101", "paper", {})
    backbone, training, said = task.backbone, task.training, " ".join(task.card.paper_says)
    shape = (
        f"{backbone.layers} layers, {backbone.width} wide, {backbone.heads} heads, feed-forward {backbone.feedforward}"
    )
    for words in (shape, "2 x 16 x 16", "200 epochs", "learning rate 1e-4"):
        assert words in said
    assert (task.length, backbone.patch) == (8 // 2 * (224 // 16) ** 2, (2, 16, 16))
    assert abs(training.steps * training.batch / 9_000 - 200) < 1 and training.learning_rate == 1e-4
    assert (backbone.dropout, backbone.attention_dropout) == (0.1, 0.1)


def test_what_the_card_of_lm_says_is_what_ours_is() -> None:
    """GPT-2's smallest model; GPT-3's rates for a model of that size (Brown et al. 2020, table 2.1, appendix B)."""
    task = task_at("lm", "paper", {})
    backbone, training, said = task.backbone, task.training, " ".join(task.card.we_chose)
    shape = f"{backbone.layers} layers, {backbone.width} wide, {backbone.heads} heads, {task.length:,} tokens"
    assert shape == "12 layers, 768 wide, 12 heads, 1,024 tokens" and shape in said and backbone.feedforward == 3072
    assert f"{training.steps:,} steps of {training.batch} rows" in said
    assert (training.learning_rate, training.betas, training.weight_decay, training.clip) == (6e-4, (0.9, 0.95), 0.1, 1)
    assert training.schedule == "cosine" and backbone.dropout == 0
    assert f"here {training.batch * task.length:,}" in told("lm") and f"here {backbone.vocabulary:,}" in told("lm")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [name for name in TASKS if name.startswith("lm-eval/")])
def test_what_the_harness_measures_is_what_lm_trains(name: str, scale: str) -> None:
    measured, trained = task_at(name, scale, {}), task_at("lm", scale, {})
    assert measured.start == "lm" and not measured.training.steps
    assert (measured.backbone, measured.length) == (trained.backbone, trained.length)
    assert measured.data.vocabulary_of == trained.data.source


def test_what_the_translation_cards_say_is_what_ours_is() -> None:
    for name in ("wmt14", "multi30k"):
        text, ours = told(name), model(name)
        norms = [module for module in ours.modules() if isinstance(module, nn.LayerNorm)]
        assert {norm.eps for norm in norms} == {1e-5} and "and 1e-5" in text
        biases = [n for n, _ in ours.named_parameters() if re.search(r"attention\.query\.bias$", n)]
        assert biases and "there are biases" in text
        assert task_at(name, "paper", {}).training.epsilon == 1e-9 and "here Vaswani et al.'s 1e-9" in text
    small, base = (task_at(name, "paper", {}).backbone for name in ("multi30k", "wmt14"))
    for one, other in [
        ("layers", "6 + 6 layers"),
        ("width", "512 wide"),
        ("heads", "8 heads"),
        ("feedforward", "2048"),
    ]:
        assert str(getattr(base, one)) in other and other in told("multi30k")
    assert (
        f"here {small.layers} + {small.layers}, {small.width} wide, {small.heads} heads, {small.feedforward} and"
        in (told("multi30k"))
    )


def test_what_the_performers_card_says_is_what_ours_is() -> None:
    text, backbone = told("enwik8"), task_at("enwik8", "paper", {}).backbone
    assert backbone.tied and "here it is the embedding table, without" in text
    assert f"here {backbone.features}" in text
    assert int(64 * torch.tensor(64.0).log()) == 266 and "266 of them" in text
