"""Models that posenc exports as those of transformers: `from_pretrained` reads them and says the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from runs import SETTINGS

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.cli import main
from posenc.common.errors import NotPossibleError
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.trained import load_of_any, to_transformers
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

transformers = pytest.importorskip("transformers", reason="the peer transformers is not installed: nox -s oracles")
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

LENGTH = 20
SHAPE: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "feedforward": 48, "vocabulary": 40, "dropout": 0.1}
ENCODER = {"form": "encoder", "norm": "post", "embedding_norm": True}


def made(encoding: str, seed: int, **changes: Any) -> tuple[Any, Transformer]:
    """The settings that an export reads, and a model whose every parameter is drawn anew, norms and biases too."""
    backbone = BackboneConfig(**{**SHAPE, **changes})
    model = Transformer(backbone, encoding, LENGTH).initialise(seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return SimpleNamespace(backbone=backbone, encoding_name=encoding, max_length=LENGTH), model


@pytest.mark.parametrize(
    ("encoding", "changes", "kind"),
    [
        ("rope", {}, "GPTNeoXForCausalLM"),
        ("rope(base=500000, fraction=0.5)", {"tied": False, "activation": "relu"}, "GPTNeoXForCausalLM"),
        ("learned", {}, "GPT2LMHeadModel"),
        ("sinusoidal", {"tied": False}, "GPT2LMHeadModel"),
        ("none", {"activation": "relu"}, "GPT2LMHeadModel"),
        ("learned", {**ENCODER, "head": "masked"}, "BertForMaskedLM"),
        ("sinusoidal", {**ENCODER, "head": "class", "outputs": 3}, "BertForSequenceClassification"),
        ("rope", {**ENCODER, "head": "masked"}, "RoFormerForMaskedLM"),
    ],
)
def test_from_pretrained_reads_it_and_says_the_same(
    encoding: str, changes: dict[str, Any], kind: str, tmp_path: Path, fresh_seed: int
) -> None:
    settings, model = made(encoding, fresh_seed % 2**31, **changes)
    to_transformers.converted(settings, model).save_pretrained(tmp_path)  # type: ignore[operator]
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [kind]
    theirs = getattr(transformers, kind).from_pretrained(tmp_path).eval()
    tokens = torch.randint(1, 40, (3, LENGTH), generator=torch.Generator().manual_seed(fresh_seed))
    with torch.no_grad():
        out = theirs(input_ids=tokens, output_hidden_states=True)
        hidden = model.hidden(tokens)
        mine = model.summarise(hidden) if model.config.outputs else model.logits(hidden)
    torch.testing.assert_close(out.hidden_states[-1], hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.logits, mine, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoding", "changes", "said"),
    [
        ("t5", {}, "has no such decoder"),
        ("rope", {"norm": "post"}, "norms before each part"),
        ("rope", {"form": "encoder", "norm": "post", "head": "masked"}, "embedding_norm = true"),
        ("rope(base=500)", {**ENCODER, "head": "masked"}, "with base 10,000"),
        ("rope", {**ENCODER, "head": "class", "outputs": 2}, "head is another one"),
        ("learned", {**ENCODER, "head": "mean", "outputs": 2}, "no head 'mean'"),
        ("shaw", {**ENCODER, "head": "masked"}, "has no such encoder"),
        ("t5", {**ENCODER, "head": "masked"}, "T5's encoder has RMS norms and no biases"),
        ("t5", {"form": "encoder-decoder"}, "RMS norms"),
        ("rope", {"attention": "performer"}, "linear attention"),
        ("rope", {"convolution": 4}, "backbone.convolution = 4"),
        ("sinusoidal+rope", {}, "has no such decoder"),
    ],
)
def test_what_they_have_not_is_refused_with_its_reason(encoding: str, changes: dict[str, Any], said: str) -> None:
    settings, model = made(encoding, 0, **changes)
    with pytest.raises(NotPossibleError, match=said):
        to_transformers.converted(settings, model)


def test_a_kept_model_leaves_by_the_command_with_its_words(tmp_path: Path) -> None:
    """Trained over tokens, kept, exported; `from_pretrained` reads model and tokeniser, and says the same of a text."""
    changes = {**SETTINGS, "training.warmup": 0, "evaluation.length_factors": [1]}
    chosen = Selection(encodings=["rope"], lengths=[16], seeds=[0], scale="smoke", changes=changes)
    (cell,) = make(find_suite("lm"), chosen).cells
    record = train(cell, CellTerms("kept", tmp_path / "kept", keep=frozenset([cell.id]), for_owner=True))
    assert record and record["status"] == "done", record
    suite = {"name": "kept", "title": "", "description": "", "scale": "smoke", "baseline": "rope", "claim": ""}
    Store(tmp_path / "kept").write_manifest({"schema": 1, "suite": suite, "cells": [cell.manifest()], "tasks": {}})
    arguments = ["export", cell.id, str(tmp_path / "theirs"), "--to", "transformers", "--results", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ours, text = load_of_any(tmp_path, cell.id), "The old dog chased a cat."
    tokens = words(text, add_special_tokens=False)["input_ids"]
    assert tokens == ours.tokenise(text)
    with torch.no_grad():
        found = theirs(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(found, ours.logits(text), atol=1e-5, rtol=1e-5)
