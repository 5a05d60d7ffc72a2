"""WikiText and the Penn Treebank in their authors' layouts; a line's end is a word."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from official import write

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import DataError, MissingDataError
from posenc.config.task import EvaluationConfig, task_at
from posenc.data import lines, sources
from posenc.data.corpus import Texts
from posenc.data.tokens import Kind, tokeniser
from posenc.objectives.causal_lm import CausalLM

pytestmark = pytest.mark.usefixtures("fresh_readers")

PAGE = (
    " \n = Robert <unk> = \n \n Robert <unk> is an English film , television and theatre actor . \n He was 3 @.@ 5 . \n"
)
WIKITEXT = {f"wiki.{split}.tokens": PAGE * times for split, times in (("train", 9), ("valid", 3), ("test", 4))}
PTB = {
    f"ptb.{split}.txt": " aer banknote berlitz N years old \n pierre <unk> \n" * 20
    for split in ("train", "valid", "test")
}
WORDS = 4 + 13 + 6 + 5  # of a page: three lines with words, and the end of each of five


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for name in ("wikitext_2", "wikitext_2_raw", "wikitext_103", "wikitext_103_raw", "ptb"):
        getattr(lines, name).cache_clear()


def test_lines_are_rows_in_folder_and_zip_and_what_they_lack_is_said(tmp_path: Path) -> None:
    found = sources.load("wikitext-2", write(tmp_path / "a", {f"wikitext-2/{n}": text for n, text in WIKITEXT.items()}))
    assert found.rows["test"][:5] == [  # type: ignore[union-attr]
        ("",), ("= Robert <unk> =",), ("",),
        ("Robert <unk> is an English film , television and theatre actor .",), ("He was 3 @.@ 5 .",),
    ]  # fmt: skip
    assert "only 45 of 36,718 training rows, only 15 of 3,760 validation rows" in found.note
    assert f"{4 * (WORDS - 1)} test words where the release has 245,569" in found.note
    (tmp_path / "b").mkdir()
    with zipfile.ZipFile(tmp_path / "b" / "wikitext-2-v1.zip", "w") as archive:
        for name, text in WIKITEXT.items():
            archive.writestr(f"wikitext-2/{name}", text)
    lines.wikitext_2.cache_clear()  # type: ignore[attr-defined]
    assert sources.load("wikitext-2", tmp_path / "b").digest == found.digest
    raw = {f"wikitext-103-raw/{name.replace('tokens', 'raw')}": text for name, text in WIKITEXT.items()}
    assert "of 1,801,350 training rows" in sources.load("wikitext-103-raw", write(tmp_path / "c", raw)).note
    assert sources.load("ptb", write(tmp_path / "d", {f"ptb/{n}": t for n, t in PTB.items()})).rows["test"][1] == (  # type: ignore[union-attr]
        "pierre <unk>",
    )


def test_a_whole_release_has_no_note(tmp_path: Path) -> None:
    whole = lines.Release(
        "ptb", ("ptb",), "ptb.{}.txt", dict.fromkeys(lines.FILES, 40), dict.fromkeys(lines.FILES, 200), ""
    )
    folder = write(tmp_path, {f"ptb/{name}": text for name, text in PTB.items()})
    found = whole.read(folder)
    assert found.note == "" and found.ends_are_words and len(found.rows["train"]) == 40


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"wikitext-2/wiki.train.tokens.*put the authors' wiki.train.tokens"):
        sources.load("wikitext-2", tmp_path)
    write(tmp_path, {"ptb/ptb.train.txt": "a b \n"})
    with pytest.raises(DataError, match=r"ptb.train.txt is there, but not the ptb.valid.txt"):
        sources.load("ptb", tmp_path)


def test_perplexity_by_word_counts_the_end_of_a_line(tmp_path: Path) -> None:
    corpus = lines.wikitext_2(write(tmp_path, {f"wikitext-2/{name}": text for name, text in WIKITEXT.items()}))
    tokens = tokeniser(Kind("bpe", 290), Texts(corpus.rows["train"], 0), corpus.digest, None)
    made = CausalLM(corpus, (0.9, 0.05, 0.05), 1, EvaluationConfig(batch_tokens=64), tokens)
    config = BackboneConfig(vocabulary=tokens.size, layers=1, width=16, heads=2, feedforward=16)
    found = made.score(Transformer(config, "none", 1).initialise(0).eval(), "test", 1)
    assert found.details["words"] == 4 * (WORDS - 1) - 1, "the end of the first, blank line is read and not predicted"
    nats = float(np.sum(found.each["nats"]))
    assert found.values["word_perplexity"] == pytest.approx(math.exp(nats / (4 * (WORDS - 1) - 1)))
    assert torch.tensor(found.each["weight"]).sum() == len(made.splits["test"]) - 1


@pytest.mark.parametrize("name", ["wikitext2", "wikitext103", "ptb"])
def test_the_tasks_read_them_at_their_scales(name: str) -> None:
    for scale, source in (("smoke", "generated/documents"), ("small", name), ("paper", name)):
        assert task_at(name, scale, {}).data.source.replace("-", "") == source
