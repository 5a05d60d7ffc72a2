"""Parallel text in its authors' layouts, and every way a file of it can be wrong."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest
from official import read, within, write

from posenc.common.errors import DataError
from posenc.data import parallel

pytestmark = pytest.mark.usefixtures("fresh_readers")


MULTI30K = {
    "train.en": "A man.\nA dog runs.\n",
    "train.de": "Ein Mann.\nEin Hund läuft.\n",
    "val.en": "A cat.\n",
    "val.de": "Eine Katze.\n",
    "test_2016_flickr.en": "A boy.\n",
    "test_2016_flickr.de": "Ein Junge.\n",
}


class TestParallel:
    def test_rows_are_pairs_english_first(self, tmp_path: Path) -> None:
        found = parallel.multi30k(write(tmp_path, within("multi30k", MULTI30K)))
        assert found.fields == ("source", "target")
        assert found.rows["train"] == [("A man.", "Ein Mann."), ("A dog runs.", "Ein Hund läuft.")]
        assert found.rows["validation"] == [("A cat.", "Eine Katze.")]
        assert found.expected == {"train": 29_000, "validation": 1014, "test": 1000}
        assert "only 2 of 29,000 training rows" in found.note

    def test_it_is_read_once_a_process(self, tmp_path: Path) -> None:
        write(tmp_path, within("multi30k", MULTI30K))
        assert parallel.multi30k(tmp_path) is parallel.multi30k(tmp_path)

    def test_plain_gzipped_and_zipped_under_any_of_the_names_give_the_same(self, tmp_path: Path) -> None:
        plain = parallel.multi30k(write(tmp_path / "a", within("multi30k", MULTI30K)))
        packed = {f"{name}.gz": gzip.compress(content.encode()) for name, content in MULTI30K.items()}
        gzipped = parallel.multi30k(write(tmp_path / "b", within("multi30k/data/task1/raw", packed)))
        (tmp_path / "c").mkdir()
        with zipfile.ZipFile(tmp_path / "c" / "multi30k.zip", "w") as archive:
            for name, content in MULTI30K.items():
                archive.writestr(f"multi30k/{name}", content)
        zipped = parallel.multi30k(tmp_path / "c")
        renamed = {
            name.replace("val", "valid").replace("test_2016_flickr", "test"): f"\ufeff{content}".replace("\n", "\r\n")
            for name, content in MULTI30K.items()
        }
        other = parallel.multi30k(write(tmp_path / "d", within("multi30k", renamed)))
        assert plain.digest == gzipped.digest == zipped.digest == other.digest
        assert plain.rows == gzipped.rows == zipped.rows == other.rows

    def test_sides_of_unequal_length_are_named_with_their_counts(self, tmp_path: Path) -> None:
        write(tmp_path, within("multi30k", {**MULTI30K, "val.de": "Eine Katze.\nEin Haus.\n"}))
        with pytest.raises(DataError, match=r"val\.en has 1 sentences and .*val\.de 2"):
            parallel.multi30k(tmp_path)

    @pytest.mark.parametrize("content", ["\nEin Hund läuft.\n", " \xa0\nEin Hund läuft.\n"])
    def test_an_empty_side_is_placed(self, tmp_path: Path, content: str) -> None:
        write(tmp_path, within("multi30k", {**MULTI30K, "train.de": content}))
        with pytest.raises(DataError, match=r"train\.de, line 1: empty, and the other side is 'A man\.'"):
            parallel.multi30k(tmp_path)

    def test_blank_lines_on_both_sides_are_counted(self, tmp_path: Path) -> None:
        files = {**MULTI30K, "train.en": "A man.\n\n", "train.de": "Ein Mann.\n\n"}
        found = parallel.multi30k(write(tmp_path, within("multi30k", files)))
        assert found.rows["train"] == [("A man.", "Ein Mann.")]
        assert "1 pairs of blank lines left out of train.en" in found.note

    @pytest.mark.parametrize(
        ("gone", "message"),
        [("train.de", r"train\.en is there, but not the train\.de"), ("val.en", r"val\.de is there, but not the val")],
    )
    def test_a_missing_side_is_named(self, tmp_path: Path, gone: str, message: str) -> None:
        write(tmp_path, within("multi30k", {name: text for name, text in MULTI30K.items() if name != gone}))
        with pytest.raises(DataError, match=message):
            parallel.multi30k(tmp_path)

    def test_a_missing_split_is_named_and_the_hub_is_not_asked(self, tmp_path: Path) -> None:
        write(tmp_path, within("multi30k", {name: text for name, text in MULTI30K.items() if "test" not in name}))
        with pytest.raises(DataError, match=r"train\.en is there, but no test split \(test_2016_flickr\.en or "):
            parallel.multi30k(tmp_path)

    def test_wmts_own_files_are_put_together_and_training_gaps_counted(self, tmp_path: Path) -> None:
        files = {
            "training/europarl-v7.de-en.en": "One.\n\nThree.\n",
            "training/europarl-v7.de-en.de": "Eins.\nZwei.\nDrei.\n",
            "training/commoncrawl.de-en.en": "Four.\n",
            "training/commoncrawl.de-en.de": "Vier.\n",
            "training/news-commentary-v9.de-en.en": "Five.\n",
            "training/news-commentary-v9.de-en.de": "Fünf.\n",
            "dev/newstest2012.en": "no\n",
            "dev/newstest2012.de": "no\n",
            "dev/newstest2013.en": "Six.\n",
            "dev/newstest2013.de": "Sechs.\n",
            "test-full/newstest2014-deen-src.en.sgm": '<doc>\n<seg id="1">A &amp; B</seg>\n<seg id="2"> C</seg>',
            "test-full/newstest2014-deen-ref.de.sgm": '<seg id="1">A und B</seg>\n<seg id="2">C!</seg>\n',
        }
        found = parallel.wmt14(write(tmp_path, within("wmt14", files)))
        assert [source for source, _ in found.rows["train"]] == ["One.", "Three.", "Four.", "Five."]
        assert found.rows["validation"] == [("Six.", "Sechs.")]
        assert found.rows["test"] == [("A &amp; B", "A und B"), ("C", "C!")]
        assert "1 pairs with one empty side left out of europarl-v7.de-en.en" in found.note
        (tmp_path / "wmt14/training/commoncrawl.de-en.de").unlink()
        with pytest.raises(DataError, match=r"not the commoncrawl\.de-en\.de"):
            read(parallel.wmt14, tmp_path)

    def test_wmts_tests_have_no_gaps_and_whole_segments(self, tmp_path: Path) -> None:
        files = {"train.en": "a\n", "train.de": "b\n", "valid.en": "a\n", "valid.de": "b\n"}
        write(tmp_path, within("wmt14", {**files, "newstest2014.en": "a\n\n", "newstest2014.de": "b\nc\n"}))
        with pytest.raises(DataError, match=r"newstest2014\.en, line 2: empty"):
            parallel.wmt14(tmp_path)
        (tmp_path / "wmt14/newstest2014.en").unlink()
        write(tmp_path, {"wmt14/newstest2014-src.en.sgm": '<seg id="1">a</seg>\n<seg id="2">a\n'})
        with pytest.raises(DataError, match=r"sgm, line 2: a segment that does not end"):
            parallel.wmt14(tmp_path)

    def test_stanfords_tokens_are_said(self, tmp_path: Path) -> None:
        files = {"train.en": "rich ##AT##-##AT## text\n", "train.de": "b\n", "newstest2013.en": "a\n"}
        files |= {"newstest2013.de": "b\n", "newstest2014.en": "a\n", "newstest2014.de": "b\n"}
        assert "tokenised text" in parallel.wmt14(write(tmp_path, within("wmt14.en-de", files))).note
