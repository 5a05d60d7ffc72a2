"""Lines and corpora, whatever they are read from; and a folder that is not there."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official import READERS, cells, write

from posenc.common.errors import DataError
from posenc.data import corpus
from posenc.data.corpus import File, Row

pytestmark = pytest.mark.usefixtures("fresh_readers")


class TestLines:
    @given(st.lists(cells, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
    def test_any_lines_come_back(
        self, tmp_path_factory: pytest.TempPathFactory, content: list[str], end: str, last: bool, mark: bool
    ) -> None:
        path = tmp_path_factory.mktemp("lines") / "file"
        raw = ("\ufeff" if mark else "") + end.join(content) + (end if last else "")
        path.write_bytes(raw.encode())
        assert corpus.lines(File(path)) == content

    def test_a_single_return_a_form_feed_and_a_line_separator_are_content(self, tmp_path: Path) -> None:
        write(tmp_path, {"file": "a\rb\r\nc\x0cd\u2028e\x85f\n"})
        assert corpus.lines(File(tmp_path / "file")) == ["a\rb", "c\x0cd\u2028e\x85f"]

    def test_blank_lines_are_lines(self, tmp_path: Path) -> None:
        write(tmp_path, {"file": "\na\n\n\n"})
        assert corpus.lines(File(tmp_path / "file")) == ["", "a", "", ""]

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
    def test_an_empty_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path, {"file": content})
        with pytest.raises(DataError, match=r"file is empty"):
            corpus.lines(File(tmp_path / "file"))

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_a_byte_that_is_not_utf8_is_placed(self, tmp_path: Path, mark: bytes) -> None:
        write(tmp_path, {"file": mark + b"one\ntwo\n\xe4 three\n"})
        with pytest.raises(DataError, match=r"file, line 3: not UTF-8 \(byte 0xe4"):
            corpus.lines(File(tmp_path / "file"))

    @pytest.mark.parametrize("damage", ["cut off", "no gzip", "flipped"])
    def test_a_damaged_gzip_is_named(self, tmp_path: Path, damage: str) -> None:
        raw = gzip.compress(os.urandom(500))
        flipped = bytearray(raw)
        flipped[-6] ^= 1  # in the checksum
        write(tmp_path, {"a.gz": {"cut off": raw[:200], "no gzip": b"hello", "flipped": bytes(flipped)}[damage]})
        with pytest.raises(DataError, match=r"a\.gz is damaged"):
            File(tmp_path / "a.gz").read()

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="gone cannot be read: No such file"):
            File(tmp_path / "gone").read()


class TestCorpus:
    def test_it_says_what_it_is(self) -> None:
        made = corpus.assemble("made", ("x",), {"train": [("a",)] * 3}, {"train": (5, 3), "test": (2,)}, ["and more"])
        assert made.describe() == {
            "name": "made",
            "digest": made.digest,
            "rows": {"train": 3},
            "expected_rows": {"train": 3, "test": 2},
            "generated": False,
            "note": "none of the 2 test rows: not comparable with published figures; and more",
        }

    def test_a_whole_release_has_no_note(self) -> None:
        assert corpus.assemble("made", ("x",), {"train": [("a",)]}, {"train": (1,)}).note == ""

    def test_more_rows_than_the_release_are_said(self) -> None:
        made = corpus.assemble("made", ("x",), {"train": [("a",)] * 3}, {"train": (2,)})
        assert "3 training rows where the release has 2" in made.note

    def test_a_digest_knows_where_cells_and_rows_end(self) -> None:
        versions: list[dict[str, list[Row]]] = [
            {"train": [("a", "b")]},
            {"train": [("ab", "")]},
            {"train": [("a",), ("b",)]},
            {"test": [("a", "b")]},
            {"train": [("a", 1)]},
            {"train": [("a", "1")]},
            {"train": [("a", 1.0)]},
        ]
        digests = {corpus.assemble("made", ("x", "y"), rows).digest for rows in versions}
        assert len(digests) == len(versions)

    def test_an_empty_split_is_refused(self) -> None:
        with pytest.raises(DataError, match="no rows for its test split"):
            corpus.assemble("made", ("x",), {"train": [("a",)], "test": []})


@pytest.mark.parametrize("name", READERS)
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data .*gone: no such folder"):
        READERS[name](tmp_path / "gone")
