"""Byte texts: official files, the hub that cannot be reached, damaged ones, windows and their scores."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from posenc.common.errors import ConfigError, DataError, UnknownNameError
from posenc.config.task import EvaluationConfig
from posenc.data import cache, sources, text
from posenc.data.text import ByteText
from posenc.objectives.causal_lm import CausalLM
from posenc.objectives.windows import separate

SPLITS = (0.9, 0.05, 0.05)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path_factory.mktemp("cache")))
    text.enwik8.cache_clear()


def make_text(size: int, seed: int = 0) -> ByteText:
    content = np.random.default_rng(seed).integers(256, size=size, dtype=np.uint8)
    return ByteText("made up", content, "digest")


def objective(size: int = 40_000, length: int = 32, factors: tuple[int, ...] = (1, 4), tokens: int = 0) -> CausalLM:
    evaluation = EvaluationConfig(length_factors=list(factors), tokens=tokens, batch_tokens=256)
    return CausalLM(make_text(size), SPLITS, length, evaluation)


class TestEnwik8:
    def test_plain_and_zipped_give_the_same(self, tmp_path: Path) -> None:
        raw = os.urandom(5000)
        (tmp_path / "a" / "enwik8").mkdir(parents=True)
        (tmp_path / "a" / "enwik8" / "enwik8").write_bytes(raw)
        (tmp_path / "b").mkdir()
        with zipfile.ZipFile(tmp_path / "b" / "enwik8.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("enwik8", raw)
        plain, zipped = text.enwik8(tmp_path / "a"), text.enwik8(tmp_path / "b")
        assert plain.content.tobytes() == zipped.content.tobytes() == raw
        assert plain.digest == zipped.digest == hashlib.sha256(raw).hexdigest()

    def test_a_part_says_how_much_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "enwik8").write_bytes(b"x" * 1234)
        assert "only 1,234 of enwik8's 100,000,000 bytes" in text.enwik8(tmp_path).note

    @pytest.mark.parametrize("damage", ["no zip", "cut off", "flipped", "other member", "empty"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "enwik8.zip"
        with zipfile.ZipFile(path, "w") as archive:  # stored: a flipped byte shows in the checksum alone
            archive.writestr(
                "other" if damage == "other member" else "enwik8", b"" if damage == "empty" else b"text" * 999
            )
        raw = bytearray(path.read_bytes())
        if damage == "no zip":
            raw = bytearray(b"hello")
        elif damage == "cut off":
            raw = raw[: len(raw) // 2]
        elif damage == "flipped":
            raw[200] ^= 1
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"enwik8\.zip"):
            text.enwik8(tmp_path)

    @pytest.mark.parametrize("place", range(40, 400, 20))
    def test_a_deflated_zip_with_any_byte_flipped_is_named(self, tmp_path: Path, place: int) -> None:
        path = tmp_path / "enwik8.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("enwik8", os.urandom(500))
        raw = bytearray(path.read_bytes())
        raw[place] ^= 0xFF
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"enwik8\.zip"):
            text.enwik8(tmp_path)

    def test_the_official_size_with_other_content_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(text, "ENWIK8_BYTES", 1000)
        (tmp_path / "enwik8").write_bytes(b"x" * 1000)
        with pytest.raises(DataError, match="not its content"):
            text.enwik8(tmp_path)

    def test_an_unreachable_hub_costs_one_quick_attempt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        calls = []

        def refuse(self: object, *arguments: object, **options: object) -> None:
            calls.append(arguments)
            raise ConnectionError("name not known")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        with pytest.raises(DataError, match=r"not found under .*name not known.*put the official file"):
            text.enwik8(tmp_path)
        assert len(calls) == 1

    def test_the_hubs_copy_is_held_to_its_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets
        import huggingface_hub

        asked = {}

        def answer(path: str, name: str, **options: object) -> datasets.Dataset:
            asked.update(path=path, name=name, **options)
            return datasets.Dataset.from_dict({"text": ["too ", "short"]})

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *a, **o: None)
        monkeypatch.setattr(datasets, "load_dataset", answer)
        with pytest.raises(DataError, match="gave 9 bytes, not 100,000,000"):
            text.enwik8(None)
        assert asked == {
            "path": "LTCB/enwik8",
            "name": "enwik8-raw",
            "revision": "refs/convert/parquet",
            "split": "train",
        }

    @pytest.mark.data
    @pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
    def test_the_real_file(self) -> None:
        real = text.enwik8(Path(os.environ["POSENC_DATA"]))
        assert real.content[:10].tobytes() == b"<mediawiki"
        assert len(real.content) == real.expected or real.note


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'enwik8'"):
        sources.load("enwik9", None)


def test_the_standard_library_is_the_same_each_time_and_holds_its_own_files() -> None:
    first = text.standard_library()
    text.standard_library.cache_clear()
    again = text.standard_library()
    assert first.digest == again.digest == hashlib.sha256(first.content.tobytes()).hexdigest()
    import argparse

    assert Path(argparse.__file__).read_bytes() in first.content.tobytes()


@given(st.integers(100, 5000))
def test_splits_are_the_whole_text_in_order(size: int) -> None:
    whole = make_text(size)
    parts = whole.split(SPLITS)
    assert list(parts) == ["train", "validation", "test"]
    assert np.concatenate(list(parts.values())).tobytes() == whole.content.tobytes()


def read(task: CausalLM, split: str, length: int) -> list[NDArray[np.int64]]:
    """The separate windows of a split, in batches."""
    (windows,) = separate(task.targets_of(split), length)
    return list(windows.batches(task.splits[split], task.evaluation.batch_tokens))


class TestWindows:
    def test_every_length_scores_the_same_bytes_once(self) -> None:
        task = objective()
        scored = {
            length: np.concatenate([batch[:, 1:].ravel() for batch in read(task, "test", length)])
            for length in (32, 64, 128)
        }
        assert scored[32].tobytes() == scored[64].tobytes() == scored[128].tobytes()
        content = task.splits["test"]
        usable = (len(content) - 1) // 128 * 128
        assert scored[32].astype(np.uint8).tobytes() == content[1 : usable + 1].tobytes()

    def test_targets_are_the_inputs_one_further(self) -> None:
        batches = read(objective(), "validation", 64)
        assert all(batch.shape[1] == 65 for batch in batches)
        assert batches[0][0].astype(np.uint8).tobytes() == objective().splits["validation"][:65].tobytes()

    def test_training_batches_come_from_train_alone_and_from_seed_and_step_alone(self) -> None:
        task = objective()
        train = task.splits["train"].tobytes()
        for step in (1, 2):
            (batch,) = task.batch(0, step, 8)
            assert torch.equal(batch, *task.batch(0, step, 8))
            for row in batch:
                assert row.numpy().astype(np.uint8).tobytes() in train
        assert not torch.equal(*task.batch(0, 1, 8), *task.batch(0, 2, 8))
        assert not torch.equal(*task.batch(0, 1, 8), *task.batch(1, 1, 8))

    def test_a_text_too_short_for_its_longest_windows_is_refused(self) -> None:
        with pytest.raises(DataError, match="validation split has 50 bytes"):
            objective(size=1000)


class Fixed(nn.Module):
    """Gives every byte the same logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(logits)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(*tokens.shape, -1)


def test_a_model_that_knows_nothing_scores_8_bits_and_the_unigram_model_its_baseline() -> None:
    task = objective()
    found = task.score(Fixed(torch.zeros(256)), "test", 32)  # type: ignore[arg-type]
    assert found.values["bits_per_character"] == pytest.approx(8.0, abs=1e-6)
    assert found.items == (len(task.splits["test"]) - 1) // 128 * 128
    assert found.each["weight"].sum() == found.items
    assert found.each["bits_per_character"] == pytest.approx(8.0 * 32, abs=1e-4)
    counts = np.zeros(256)
    for byte in task.splits["train"].tolist():
        counts[byte] += 1
    logits = torch.tensor(np.log((counts + 1) / (counts + 1).sum()), dtype=torch.float32)
    unigram = task.score(Fixed(logits), "test", 128).values["bits_per_character"]  # type: ignore[arg-type]
    assert task.baselines()["unigram"] == pytest.approx(unigram, abs=1e-5)
    assert math.isfinite(unigram)


def test_a_limit_on_tokens_is_kept_in_whole_windows_of_the_longest_length() -> None:
    assert objective(tokens=300).score(Fixed(torch.zeros(256)), "test", 32)[1] == 256  # type: ignore[arg-type]
    assert objective(tokens=1).score(Fixed(torch.zeros(256)), "test", 32)[1] == 128  # type: ignore[arg-type]


def test_a_user_without_a_home_is_told_so_only_where_one_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path))
    assert cache.folder() == tmp_path
    monkeypatch.delenv("POSENC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "posenc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(ConfigError, match="POSENC_CACHE"):
        cache.folder()
