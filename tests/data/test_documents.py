"""Running text: documents, and how they are parted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official import cells, read, write

from posenc.common.errors import DataError
from posenc.data import documents

pytestmark = pytest.mark.usefixtures("fresh_readers")


# A document: lines that are not blank; the first has ink.
texts = st.lists(cells, min_size=1, max_size=3).map("\n".join)


class TestDocuments:
    @given(st.lists(texts, min_size=60, max_size=80, unique=True), st.integers(1, 3))
    def test_every_document_comes_back_once(
        self, tmp_path_factory: pytest.TempPathFactory, documents_: list[str], blanks: int
    ) -> None:
        content = ("\n" * (blanks + 1)).join(documents_) + "\n" * blanks
        found = read(documents.chinese, write(tmp_path_factory.mktemp("d"), {"chinese/wikipedia.txt": content}))
        assert found.fields == ("text",)
        assert sorted(row[0] for rows in found.rows.values() for row in rows) == sorted(documents_)
        assert list(found.rows) == ["train", "validation", "test"]

    def test_a_document_is_in_the_same_split_wherever_it_stands(self, tmp_path: Path) -> None:
        made = [f"Title {number}\nText." for number in range(400)]
        first = documents.chinese(write(tmp_path / "a", {"chinese/wikipedia.txt": "\n\n".join(made)}))
        second = documents.chinese(write(tmp_path / "b", {"chinese/wikipedia.txt": "\n\n".join(made[::-2])}))
        for split, rows in second.rows.items():
            assert set(rows) <= set(first.rows[split])
        assert 0.75 < len(first.rows["train"]) / 400 < 0.85
        assert 20 < len(first.rows["validation"]) < 60

    def test_english_takes_articles_and_books(self, tmp_path: Path) -> None:
        articles = "\n\n".join(f"Article {number}" for number in range(100))
        books = "\n\n".join(f"Paragraph one of {number}\nand two" for number in range(20))
        found = documents.english(write(tmp_path, {"english/wikipedia.txt": articles, "english/books.txt": books}))
        assert sum(map(len, found.rows.values())) == 120
        assert "100 documents of wikipedia.txt and 20 of books.txt" in found.note

    def test_books_joined_with_their_marks_are_not_torn(self, tmp_path: Path) -> None:
        articles = "\n\n".join(f"Article {number}" for number in range(100))
        books = "".join(f"\ufeffBook {number}\n\nChapter\r\n\r\n text\n\n\n" for number in range(20))
        found = documents.english(write(tmp_path, {"english/wikipedia.txt": articles, "english/books.txt": books}))
        assert ("Book 7\n\nChapter\n\n text",) in [row for rows in found.rows.values() for row in rows]
        assert "20 of books.txt" in found.note

    @pytest.mark.parametrize("line", [" ", "\t", "  \u3000"])
    def test_a_line_of_white_space_separates_documents(self, tmp_path: Path, line: str) -> None:
        made = [f"Title {number}\nText." for number in range(200)]
        content = f"\n{line}\n".join(made)
        found = read(documents.chinese, write(tmp_path, {"chinese/wikipedia.txt": content}))
        assert sorted(row[0] for rows in found.rows.values() for row in rows) == sorted(made)

    def test_a_split_without_documents_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="none of its 1 documents fell to"):
            read(documents.chinese, write(tmp_path, {"chinese/wikipedia.txt": "one\nalone\n"}))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"wikipedia\.txt is empty"),
            (b"\n\n \n", r"wikipedia\.txt has no text in it"),
            (b"a\n\nb\n", "none of its 2 documents fell to"),
            (b"a\n\nb\xffc\n", r"wikipedia\.txt, line 3: not UTF-8"),
        ],
    )
    def test_a_text_that_is_none_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        with pytest.raises(DataError, match=message):
            documents.chinese(write(tmp_path, {"chinese/wikipedia.txt": content}))

    @pytest.mark.parametrize("only", ["wikipedia.txt", "books.txt"])
    def test_half_of_english_is_not_taken_for_the_whole(self, tmp_path: Path, only: str) -> None:
        with pytest.raises(DataError, match=rf"{only} is there, but not the "):
            documents.english(write(tmp_path, {f"english/{only}": "text\n"}))
