"""A model that was kept is the one that was tested: for every objective, its score is the record's to the digit."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import SETTINGS
from runs import posenc as command

import posenc
from posenc.common.errors import NotPossibleError, PosencError, StoreError
from posenc.data import sources
from posenc.objectives import factory
from posenc.objectives.causal_lm import CausalLM
from posenc.plan.cell import Cell
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.records.store import Store
from posenc.trained import Trained
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

SHORT = {"training.steps": 2, "training.validate_every": 2, "backbone.layers": 2, "start": "scratch"}
SMALL: dict[str, Any] = {**SETTINGS, **SHORT}
ROWS: dict[str, Any] = {**SMALL, "evaluation.tokens": 0}
TASKS: dict[str, tuple[dict[str, Any], list[int], str]] = {
    "enwik8": ({**SMALL, "evaluation.length_factors": [1, 2]}, [16], "rope"),
    "zh-mlm": ({**SMALL, "training.stages": []}, [16], "learned"),
    "glue/mrpc": ({**SMALL, "evaluation.tokens": 1000}, [24], "t5"),
    "cail2019-scm": (ROWS, [24], "shaw"),
    "multi30k": ({**ROWS, "evaluation.beam": 1}, [24], "sinusoidal"),
}
PAIRS = {"glue/mrpc", "cail2019-scm"}


def planned(task: str, **changes: Any) -> Cell:
    settings, lengths, encoding = TASKS[task]
    chosen = Selection(encodings=[encoding], lengths=lengths, seeds=[0], changes={**settings, **changes})
    return make(find_suite(task), chosen).cells[-1]


@pytest.fixture(scope="module")
def little() -> Iterator[None]:
    """A tenth of the rows that generated data have: enough to be scored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "ROWS", {split: rows // 10 for split, rows in sources.ROWS.items()})
        sources._generated.cache_clear()
        yield
    sources._generated.cache_clear()


@pytest.fixture(scope="module")
def kept(little: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Cell]]:
    """A tiny cell of every objective, trained and kept, in one results folder."""
    folder = tmp_path_factory.mktemp("kept")
    cells = {task: planned(task) for task in TASKS}
    cells["linear"] = planned("enwik8", **{"backbone.attention": "performer", "backbone.features": 8})
    for cell in cells.values():
        record = train(cell, CellTerms("kept", folder, keep=frozenset([cell.id]), for_owner=True))
        assert record and record["status"] == "done", record
    suite = {"name": "kept", "title": "", "description": "", "scale": "smoke", "baseline": "rope", "claim": ""}
    manifest = {"schema": 1, "suite": suite, "cells": [cell.manifest() for cell in cells.values()], "tasks": {}}
    Store(folder).write_manifest(manifest)
    return folder, cells


@pytest.fixture
def copied(kept: tuple[Path, dict[str, Cell]], tmp_path: Path) -> tuple[Path, Cell]:
    """A copy of the results that a test may damage, and the masked LM's cell in it."""
    shutil.copytree(kept[0], tmp_path / "copy")
    return tmp_path / "copy", kept[1]["zh-mlm"]


def loaded(kept: tuple[Path, dict[str, Cell]], task: str) -> Trained:
    model = posenc.load(kept[0], kept[1][task].name)
    assert isinstance(model, Trained)
    return model


def texts(model: Trained, task: str) -> tuple[str, ...]:
    """What the model reads, of a task's own words."""
    if task == "enwik8":
        return ("a small town of the north",)
    (first, second), _ = sentences(model)
    return (first, second) if task in PAIRS else (first,)


def sentences(model: Trained) -> tuple[tuple[str, str], Any]:
    corpus = sources.load(model.settings.data.source, None)
    row = corpus.rows["test" if "test" in corpus.rows else "validation"][0]
    short = [str(text)[:20] for text in row[:2]]
    return (short[0], short[-1]), row


@pytest.mark.parametrize("task", TASKS)
def test_its_scores_on_the_test_are_the_records_to_the_digit(kept: tuple[Path, dict[str, Cell]], task: str) -> None:
    model = loaded(kept, task)
    tests = [row for row in model.record["scores"] if row["split"].startswith("test")]
    assert tests and model.evaluate() == tests
    assert model.cell.id == kept[1][task].id and model.cell.config == model.record["config"]


@pytest.mark.parametrize("factor", [1, 2])
def test_the_score_of_the_test_as_a_text_is_the_records(kept: tuple[Path, dict[str, Cell]], factor: int) -> None:
    model = loaded(kept, "enwik8")
    objective = factory.make(model.settings, None)
    assert isinstance(objective, CausalLM)
    read = objective.splits["test"][: objective.targets_of("test") + 1].tobytes()
    (row,) = (row for row in model.record["scores"] if row["split"] == "test" and row["length"] == 16 * factor)
    assert model.score(read, length=16 * factor) == {"bits_per_character": row["value"]}
    assert model.score(read) == model.score(read, length=16)


@pytest.mark.parametrize("task", TASKS)
def test_attention_is_of_every_layer_and_its_rows_sum_to_one(kept: tuple[Path, dict[str, Cell]], task: str) -> None:
    model = loaded(kept, task)
    given = texts(model, task)
    length = len(model.tokenise(*given))
    maps = model.attention(*given)
    assert maps.shape == (2, 2, length, length)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, length))
    if task == "enwik8":
        assert not maps.triu(1).any(), "a causal model looks back alone"
    if task == "multi30k":
        (source, target), _ = sentences(model)
        said = len(model.tokenise(target))
        assert model.attention(source, target, part="decoder").shape == (2, 2, said, said)
        cross = model.attention(source, target, part="cross")
        assert cross.shape == (2, 2, said, length)
        torch.testing.assert_close(cross.sum(-1), torch.ones(2, 2, said))
        assert not model.attention(source, target, part="decoder").triu(1).any()


def test_attention_is_the_one_that_makes_the_output(kept: tuple[Path, dict[str, Cell]]) -> None:
    """The first layer's map, with its values and output, is what that layer's attention gives."""
    model = loaded(kept, "enwik8")
    tokens = torch.tensor([model.tokenise("abcabcabc")])
    layer = model.model.get_submodule("decoder.layers.0")
    given: list[torch.Tensor] = []
    hook = layer.attention.register_forward_hook(lambda module, inputs, output: given.extend([inputs[0], output]))
    model.model(tokens)
    hook.remove()
    heads = layer.attention.value(given[0]).unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = model.attention("abcabcabc")[0] @ heads[0]
    torch.testing.assert_close(layer.attention.out(mixed.transpose(0, 1).flatten(1)), given[1][0], atol=1e-5, rtol=1e-5)


def test_linear_attention_has_no_maps(kept: tuple[Path, dict[str, Cell]]) -> None:
    model = loaded(kept, "linear")
    assert model.evaluate() == [row for row in model.record["scores"] if row["split"] == "test"]
    with pytest.raises(NotPossibleError, match=r"is linear .performer.: it never works out the weights of pairs"):
        model.attention("any text")


@pytest.mark.parametrize("task", TASKS)
def test_tokens_and_back(kept: tuple[Path, dict[str, Cell]], task: str) -> None:
    model = loaded(kept, task)
    given = texts(model, task)
    tokens = model.tokenise(*given)
    again = model.decode(tokens).replace(" ", "").lower()
    assert again == "".join(given).replace(" ", "").lower() and "[unk]" not in again
    assert torch.equal(model.logits(tokens), model.logits(*given)) if task != "multi30k" else True
    assert (
        model.tokenise(model.decode(model.tokenise(given[0]))) == model.tokenise(given[0])
        if task not in PAIRS
        else True
    )


def test_what_is_scored_of_a_text(kept: tuple[Path, dict[str, Cell]]) -> None:
    model = loaded(kept, "enwik8")
    logits = model.logits("abcdefgh")
    nats = -logits.log_softmax(-1)[torch.arange(7), list(b"bcdefgh")].sum()
    assert model.score("abcdefgh")["bits_per_character"] == pytest.approx(float(nats) / 7 / math.log(2), rel=1e-6)

    model = loaded(kept, "zh-mlm")
    tokens = model.tokenise(*texts(model, "zh-mlm"))
    losses = []
    for place in range(len(tokens) - 1):  # but for [SEP]
        hidden = [*tokens[:place], model.tokeniser.mask, *tokens[place + 1 :]]
        losses.append(-float(model.logits(hidden)[place].log_softmax(-1)[tokens[place]]))
    assert model.score(tokens)["masked_loss"] == pytest.approx(np.mean(losses), rel=1e-5)

    model = loaded(kept, "glue/mrpc")
    found = model.score(*texts(model, "glue/mrpc"))
    assert set(found) == {"0", "1"} and sum(found.values()) == pytest.approx(1)

    model = loaded(kept, "cail2019-scm")
    first, second = texts(model, "cail2019-scm")
    both = model.score(first, second, first)
    assert both == {"B": model.score(first, second)["nearness"], "C": model.score(first, first)["nearness"]}

    model = loaded(kept, "multi30k")
    (source, target), _ = sentences(model)
    logits = model.logits(source, target)
    said = model.tokenise(target)
    nats = -logits.log_softmax(-1)[torch.arange(len(said)), said].mean()
    assert model.score(source, target)["target_loss"] == pytest.approx(float(nats), rel=1e-6)
    assert isinstance(model.translate(source), str)


def test_by_id_as_by_name(kept: tuple[Path, dict[str, Cell]]) -> None:
    cell = kept[1]["enwik8"]
    assert posenc.load(str(kept[0]), cell.id).cell == posenc.load(kept[0], cell.name).cell


def test_a_misspelt_cell_has_a_nearest_one(kept: tuple[Path, dict[str, Cell]]) -> None:
    with pytest.raises(StoreError, match=r"no cell 'enwik8/softmax/rope/L61/s0'.*did you mean 'enwik8/softmax/rope/L"):
        posenc.load(kept[0], "enwik8/softmax/rope/L61/s0")
    with pytest.raises(StoreError, match="no results in"):
        posenc.load(kept[0] / "elsewhere", "x")


@pytest.mark.parametrize("name", ["model.json", "tokeniser.json", "model.pt"])
def test_a_damaged_file_is_named(copied: tuple[Path, Cell], name: str) -> None:
    folder, cell = copied
    path = folder / "cells" / cell.id / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"{name}.*--rerun all"):
        posenc.load(folder, cell.id)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.json", "was not kept"),
        ("model.pt", "not there"),
        ("tokeniser.json", "cannot be read"),
        ("record.json", "no record of it"),
    ],
)
def test_a_missing_file_is_named(copied: tuple[Path, Cell], name: str, said: str) -> None:
    folder, cell = copied
    (folder / "cells" / cell.id / name).unlink()
    with pytest.raises(StoreError, match=f"{said}.*--rerun all"):
        posenc.load(folder, cell.id)


def test_an_encoding_of_another_version_is_refused(copied: tuple[Path, Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.encodings.learned import Learned

    monkeypatch.setattr(Learned, "version", 99)
    with pytest.raises(PosencError, match="has version 99 here, and the model was trained with version"):
        posenc.load(copied[0], copied[1].id)


@pytest.mark.parametrize(
    ("task", "call", "said"),
    [
        ("enwik8", lambda model: model.score("a"), "at least 2 tokens"),
        ("enwik8", lambda model: model.logits(""), "at least one"),
        ("enwik8", lambda model: model.logits([1, 256]), "from 0 to 255"),
        ("enwik8", lambda model: model.logits([1.5]), "whole number"),
        ("enwik8", lambda model: model.tokenise("a", "b"), "takes 1 .text., and 2 were given"),
        ("enwik8", lambda model: model.attention("ab", part="cross"), "allowed: decoder"),
        ("enwik8", lambda model: model.translate("ab"), "translates nothing"),
        ("glue/mrpc", lambda model: model.score("a", "b", "c"), "takes 1 or 2 .first, second., and 3 were given"),
        ("glue/mrpc", lambda model: model.score("a", length=3), "length is for causal"),
        ("cail2019-scm", lambda model: model.logits("a"), "takes 2 .first, second., and 1 were given"),
        ("multi30k", lambda model: model.score("a"), "takes 2 .source, target., and 1 were given"),
    ],
)  # fmt: skip
def test_what_it_cannot_take_is_said(kept: tuple[Path, dict[str, Cell]], task: str, call: Any, said: str) -> None:
    with pytest.raises(PosencError, match=said):
        call(loaded(kept, task))


@pytest.mark.slow
def test_a_run_keeps_and_says_what_it_did_not(tmp_path: Path) -> None:
    asked = ["run", "enwik8", "--encodings", "none", "--lengths", "16", "--seeds", "0"]
    asked += [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    command(tmp_path, *asked)
    store = Store(tmp_path / "results/enwik8")
    (before,) = store.records()
    with pytest.raises(StoreError, match=r"was not kept: .*--keep --rerun all"):
        posenc.load(store.folder, before["name"])
    said = command(tmp_path, *asked, "--keep")
    assert "--keep: 1 finished cells were not kept when they ran: --rerun all trains them again" in said
    assert "--keep:" not in command(tmp_path, *asked, "--keep", "--rerun", "all")
    model = posenc.load(store.folder, before["name"])
    assert model.record["scores"] == before["scores"] and model.record["checkpoint"] == before["checkpoint"]
    assert "--keep:" not in command(tmp_path, *asked, "--keep")
    described = json.loads((store.cell_folder(before["id"]) / "model.json").read_text())
    assert described["config"] == before["config"] and described["tokeniser"] is None
    assert "torch" in described["versions"]
