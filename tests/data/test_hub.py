"""Data from the hub: what is asked of it, and every way it can fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from official import READERS, read, within, write

from posenc.common.errors import DataError
from posenc.data import documents, glue, hub, parallel

pytestmark = pytest.mark.usefixtures("fresh_readers")


class Asked:
    """A stand-in for the hub that keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, dict[str, dict[str, list[object]]]]) -> None:
        import datasets
        import huggingface_hub

        self.info: list[tuple[object, ...]] = []
        self.loaded: list[tuple[object, ...]] = []
        self.commit: str | None = "abc123"

        def dataset_info(api: object, repository: str, revision: str, timeout: float) -> SimpleNamespace:
            self.info.append((repository, revision, timeout))
            return SimpleNamespace(sha=self.commit)

        def load(repository: str, config: str | None, revision: str) -> datasets.DatasetDict:
            self.loaded.append((repository, config, revision))
            return datasets.DatasetDict(
                {split: datasets.Dataset.from_dict(columns) for split, columns in answers[repository].items()}
            )

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", load)


class TestHub:
    @pytest.mark.parametrize("name", READERS)
    def test_every_failure_costs_one_quick_attempt_and_says_everything(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        calls = []

        def refuse(self: object, *arguments: object, **options: object) -> None:
            calls.append(arguments)
            raise ConnectionError("name not known\nand more")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        with pytest.raises(DataError, match=rf"^{name}: not found under .* \(.*\).*: put .* DIR") as caught:
            READERS[name](tmp_path)
        assert "\n" not in str(caught.value)
        if name in hub.HUB:
            assert "cannot be had (ConnectionError: name not known)" in str(caught.value)
            assert len(calls) == 1
        else:
            assert "no copy of it on the hub is known" in str(caught.value)
        with pytest.raises(DataError, match="no --data DIR and no POSENC_DATA was given"):
            READERS[name](None)

    def test_translations_come_as_from_files_and_the_commit_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs = [{"de": "Ein Mann.", "en": "A man."}]
        splits = {split: {"translation": list(pairs)} for split in ("train", "validation", "test")}
        asked = Asked(monkeypatch, {"wmt/wmt14": splits})  # type: ignore[dict-item]
        found = parallel.wmt14(tmp_path)
        assert found.rows["test"] == [("A man.", "Ein Mann.")]
        assert asked.info == [("wmt/wmt14", "main", 10)]
        assert asked.loaded == [("wmt/wmt14", "de-en", "abc123")]
        assert "from the hub's wmt/wmt14 de-en (main, commit abc123): hub revision unverified" in found.note
        files = {
            f"{split}.{side}": f"{text}\n" for split in ("train", "valid", "test") for side, text in pairs[0].items()
        }
        assert found.digest == read(parallel.wmt14, write(tmp_path, within("wmt14", files))).digest

    def test_scores_come_as_from_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import numpy as np

        columns = {
            "sentence1": ["a", "c"],
            "sentence2": ["b", "d"],
            "label": np.array([3.8, 4.667], np.float32).tolist(),
        }
        Asked(monkeypatch, {"nyu-mll/glue": {"train": dict(columns), "validation": dict(columns)}})
        assert glue.stsb(tmp_path).rows["train"] == [("a", "b", 3.8), ("c", "d", 4.667)]

    def test_both_sets_of_mnli_are_taken_and_hidden_labels_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows: dict[str, list[object]] = {"premise": ["a"], "hypothesis": ["b"], "label": [2]}
        names = ("train", "validation_matched", "validation_mismatched")
        Asked(monkeypatch, {"nyu-mll/glue": dict.fromkeys(names, rows)})
        assert list(glue.mnli(tmp_path).rows) == ["train", "validation", "validation_mismatched"]
        Asked(monkeypatch, {"nyu-mll/glue": {name: {**rows, "label": [-1]} for name in names}})
        with pytest.raises(DataError, match="row 1 of the hub's train has the label -1"):
            read(glue.mnli, tmp_path)

    def test_english_takes_two_sources(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        articles: list[object] = [f"Article {number}" for number in range(100)]
        sentences: list[object] = [f"Sentence {number}." for number in range(1200)]
        answers = {"wikimedia/wikipedia": {"train": {"text": articles}}}
        answers["bookcorpus/bookcorpus"] = {"train": {"text": sentences}}
        asked = Asked(monkeypatch, answers)
        asked.commit = None  # then the branch is all that can be said
        found = documents.english(tmp_path)
        assert sum(map(len, found.rows.values())) == 103
        assert [call[0] for call in asked.info] == ["wikimedia/wikipedia", "bookcorpus/bookcorpus"]
        assert [call[2] for call in asked.loaded] == ["main", "refs/convert/parquet"]
        assert "(main): hub revision unverified" in found.note
        assert "(refs/convert/parquet): hub revision unverified" in found.note

    def test_rows_with_nothing_in_them_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        splits = {split: {"en": ["a", None], "de": ["b", "c"]} for split in ("train", "validation", "test")}
        Asked(monkeypatch, {"bentrevett/multi30k": splits})  # type: ignore[dict-item]
        with pytest.raises(DataError, match=r"row 2 of the hub's bentrevett/multi30k has no en or de"):
            parallel.multi30k(tmp_path)
