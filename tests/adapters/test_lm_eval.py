"""posenc's models in lm-evaluation-harness, offline and on local files: the same as plain loops over the model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from runs import SETTINGS

from posenc.common.errors import ConfigError, NotPossibleError
from posenc.objectives import factory
from posenc.objectives.causal_lm import CausalLM
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.trained import Trained, load_of_any
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

pytest.importorskip("lm_eval", reason="the peer lm_eval is not installed: nox -s oracles")
pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

from posenc.adapters.lm_eval import PosencLM, evaluate  # noqa: E402
from posenc.records.store import Store  # noqa: E402

WINDOW = 16


def kept(folder: Path, task: str, encoding: str, **changes: Any) -> Trained:
    chosen = Selection(encodings=[encoding], lengths=[WINDOW], seeds=[0], changes={**SETTINGS, **changes})
    cell = make(find_suite(task), chosen).cells[-1]
    record = train(cell, CellTerms("kept", folder / "kept", keep=frozenset([cell.id]), for_owner=True))
    assert record and record["status"] == "done", record
    suite = {"name": "kept", "title": "", "description": "", "scale": "smoke", "baseline": "rope", "claim": ""}
    Store(folder / "kept").write_manifest({"schema": 1, "suite": suite, "cells": [cell.manifest()], "tasks": {}})
    return load_of_any(folder, cell.id)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return kept(tmp_path_factory.mktemp("results"), "enwik8", "rope", **{"training.steps": 30})


@pytest.fixture
def uniform(trained: Trained) -> Iterator[Trained]:
    """The same model, as it says nothing: every byte is as likely as any other."""
    weights = {name: value.clone() for name, value in trained.model.state_dict().items()}
    with torch.no_grad():
        trained.model.embedding.weight.zero_()
    yield trained
    trained.model.load_state_dict(weights)


def by_hand(trained: Trained, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Token by token, each after the WINDOW before it at most."""
    total, greedy, whole = 0.0, True, context + continuation
    for place in range(len(context), len(whole)):
        logits = trained.model(torch.tensor([whole[:place][-WINDOW:]]))[0, -1].detach().double()
        total += float(logits.log_softmax(-1)[whole[place]])
        greedy &= int(logits.argmax()) == whole[place]
    return total, greedy


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def test_a_continuation_is_as_likely_as_a_plain_loop_says(trained: Trained) -> None:
    model = PosencLM(trained)
    pairs = [("The old", " man"), ("a", "b"), ("def f", "(x)"), ("", "import"), ("x " * 3, "y")]
    found = model.loglikelihood([asked(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (total, greedy) in zip(pairs, found, strict=True):
        before = list(context.rstrip().encode()) or [10]
        after = list((context[len(context.rstrip()) :] + continuation).encode())
        wanted = by_hand(trained, before, after)
        assert total == pytest.approx(wanted[0], abs=1e-5) and greedy is wanted[1]
    assert all(total < 0 for total, _ in found)


def test_what_greedy_decoding_gives_is_greedy(trained: Trained) -> None:
    model = PosencLM(trained)
    (made,) = model.generate_until([asked("import ", {"until": [], "max_gen_toks": 5})])
    assert len(made.encode()) >= 5 or "\N{REPLACEMENT CHARACTER}" in made
    context, tokens = list(b"import "), []
    for _ in range(5):
        tokens.append(int(trained.model(torch.tensor([(context + tokens)[-WINDOW:]]))[0, -1].argmax()))
    ((_, greedy),) = model._loglikelihood_tokens([(None, context, tokens)])
    assert greedy and made == trained.decode(tokens)
    other = [*tokens[:-1], (tokens[-1] + 1) % 256]
    ((_, greedy),) = model._loglikelihood_tokens([(None, context, other)])
    assert not greedy
    (cut,) = model.generate_until([asked("import ", {"until": made[2], "max_gen_toks": 5})])
    assert cut == made[: made.index(made[2])]


@pytest.mark.parametrize("count", [1, 2, WINDOW, WINDOW + 1, 3 * WINDOW, 75])
def test_long_ones_are_taken_in_windows(trained: Trained, count: int) -> None:
    tokens = [10, *(b"from pathlib import Path  # where files lie, and what is in them\n" * 3)[:count]]
    ((total, _),) = PosencLM(trained)._loglikelihood_tokens([(None, tokens[:1], tokens[1:])])
    wanted = 0.0
    for start in range(1, len(tokens), WINDOW):  # parts, each after as much as fits of what stands before it
        end = min(start + WINDOW, len(tokens))
        row = tokens[max(0, end - WINDOW - 1) : end]
        logits = trained.model(torch.tensor([row[:-1]]))[0].detach().double().log_softmax(-1)
        wanted += sum(float(logits[len(row) - 1 - (end - place)][tokens[place]]) for place in range(start, end))
    assert total == pytest.approx(wanted, abs=1e-5)


def test_a_whole_texts_perplexity_is_posencs_own_score_with_the_same_windows(trained: Trained) -> None:
    objective = factory.make(trained.settings, None)
    assert isinstance(objective, CausalLM)
    read = objective.splits["test"][: 20 * WINDOW + 1].tobytes()
    assert max(read) < 128, "a text of one byte a character, so that the harness gives back the bytes it was given"
    text = read[1:].decode()
    model = PosencLM(trained)
    model.__class__ = type("Started", (PosencLM,), {"eot_token_id": property(lambda self: read[0])})
    (total,) = model.loglikelihood_rolling([asked(text)])
    bits = -total / math.log(2) / (20 * WINDOW)
    assert bits == pytest.approx(trained.score(read)["bits_per_character"], abs=1e-5)


TASKS = {
    "choice": """task: choice
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "text": """task: text
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
}


def test_the_harness_itself_on_local_files(uniform: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that says nothing has a perplexity of 256 over bytes, and takes the first of equal choices."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = {
        "choice": [{"question": "Which?", "choices": [" ab", " cd"], "answer": int(n > 0)} for n in range(4)],
        "text": [{"text": "A small town of the north lies by a river."}, {"text": "Nobody knows its name."}],
    }
    for name, yaml in TASKS.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        (tmp_path / f"{name}.yaml").write_text(yaml.replace("FILE", str(tmp_path / f"{name}.jsonl")))
    found = evaluate(PosencLM(uniform), list(TASKS), include=tmp_path)
    results = found["results"]
    assert results["choice"]["acc,none"] == 0.25, "one of four has the first choice for its answer"
    assert results["text"]["byte_perplexity,none"] == pytest.approx(256, rel=1e-12)
    assert results["text"]["bits_per_byte,none"] == pytest.approx(8, rel=1e-12)
    assert found["git_hash"] is None


def test_words_of_a_tokeniser(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("\n\n".join(f"The old man sees a red house, and {n} cats." for n in range(400)))
    (tmp_path / "diary.toml").write_text(
        'name = "diary"\ntitle = "A diary"\nobjective = "causal_lm"\nlength = 16\n[data]\nsource = "text"\n'
        'tokeniser = "bpe"\nfiles = { all = "./diary.txt" }\nsplits = [0.8, 0.1, 0.1]\n[backbone]\nlayers = 1\n'
        "width = 16\nheads = 2\nfeedforward = 16\nvocabulary = 300\n[training]\nsteps = 4\nbatch = 8\n"
        "learning_rate = 1e-3\nvalidate_every = 2\n[evaluation]\nlength_factors = [1]\n"
    )
    trained = kept(tmp_path, str(tmp_path / "diary.toml"), "none")
    model = PosencLM(trained)
    assert model.tok_decode(model.tok_encode("The old man")) == "The old man"
    ((total, _),) = model.loglikelihood([asked("The old", " man")], disable_tqdm=True)
    tokens = trained.tokenise("The old man")
    context = trained.tokenise("The old")
    assert total == pytest.approx(by_hand(trained, context, tokens[len(context) :])[0], abs=1e-5)


def test_what_is_not_possible(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown pretrained"):
        PosencLM(trained, pretrained="gpt2")
    with pytest.raises(ConfigError, match="length = 0"):
        PosencLM(trained, length=0)
    with pytest.raises(NotPossibleError, match="wants samples"):
        PosencLM(trained).generate_until([asked("a", {"temperature": 0.8})])
    other = kept(tmp_path, "zh-mlm", "none", **{"training.stages": [], "start": "scratch"})
    with pytest.raises(NotPossibleError, match="objective 'masked_lm', not 'causal_lm'"):
        PosencLM(other)
    learned = kept(tmp_path / "learned", "enwik8", "learned", **{"training.steps": 2})
    with pytest.raises(NotPossibleError, match="16 positions"):
        PosencLM(learned, length=17)
