"""Long texts for pre-training: English encyclopaedia and books, Chinese encyclopaedia."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from posenc.data import hub
from posenc.data.corpus import MARK, Corpus, File, Row, assemble, check_folder, find, need, split, text
from posenc.errors import DataError

FIELDS = ("text",)
TRAIN, VALIDATION = 0.8, 0.9  # the paper's 8:2, its 20 % halved
SENTENCES = 500  # of the hub's BookCorpus, which has single sentences and no ends of books, to a document

ENGLISH = ["english/wikipedia.txt", "english/books.txt"]
CHINESE = ["chinese/wikipedia.txt"]
LAYOUT = "a paragraph a line and a blank line between documents"


@lru_cache(maxsize=1)
def english(folder: Path | None) -> Corpus:
    """Wikipedia and books, split 8:1:1 by a hash of each document: field "text", a document a row.

    Raises:
        DataError: a file is missing, empty or not UTF-8, or there are too few documents for three splits.
    """
    check_folder(folder)
    articles = find(folder, ["english"], ["wikipedia.txt"])
    books = find(folder, ["english"], ["books.txt"])
    if articles is None and books is None:
        advice = f"put Wikipedia's text at DIR/{ENGLISH[0]} and the books' at DIR/{ENGLISH[1]}, {LAYOUT}"
        (first, second), note = hub.fetch("english", folder, ENGLISH, advice)
        sentences = [row[0] for row in second["train"]]
        joined = ["\n".join(sentences[start : start + SENTENCES]) for start in range(0, len(sentences), SENTENCES)]
        return _corpus("english", [row[0] for row in first["train"]] + joined, [note])
    articles = articles or need(folder, ["english"], ["wikipedia.txt"], books)
    books = books or need(folder, ["english"], ["books.txt"], articles)
    pages, volumes = _documents(articles), _documents(books, joined=True)
    kinds = f"{len(pages):,} documents of {articles.path.name} and {len(volumes):,} of {books.path.name}"
    return _corpus("english", pages + volumes, [kinds, "the paper's copies of Wikipedia and BookCorpus are not public"])


@lru_cache(maxsize=1)
def chinese(folder: Path | None) -> Corpus:
    """Chinese Wikipedia, split 8:1:1 by a hash of each document: field "text", a document a row.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or there are too few documents for three splits.
    """
    check_folder(folder)
    file = find(folder, ["chinese"], ["wikipedia.txt"])
    private = "the paper's 34 GB are not public"
    if file is None:
        advice = f"put Chinese Wikipedia's text at DIR/{CHINESE[0]}, {LAYOUT}"
        (rows,), note = hub.fetch("chinese", folder, CHINESE, advice)
        return _corpus("chinese", [row[0] for row in rows["train"]], [note, private])
    found = _documents(file)
    return _corpus("chinese", found, [f"{len(found):,} documents of {file.path.name}", private])


def _documents(file: File, joined: bool = False) -> list[str]:
    """Its documents, without the blank lines around them.

    A blank line, with nothing at all on it, ends a document. But where a file may be whole files `joined`, each with
    its byte order mark, those are the documents, and their blank lines are their own: a book would else be torn into
    its paragraphs, some of them for training and some for validation.
    """
    content = text(file)
    pieces = content.split(f"\n{MARK}") if joined and content.startswith(MARK) else []
    if len(pieces) > 1:
        found = ["\n".join(split(piece)).strip("\n") for piece in pieces]
    else:
        found = []
        block: list[str] = []
        for line in [*split(content), ""]:
            if line:
                block.append(line)
            elif block:
                found.append("\n".join(block))
                block = []
    if not any(document.strip() for document in found):
        raise DataError(f"{file} has no text in it")
    return found


def _corpus(name: str, documents: list[str], notes: list[str]) -> Corpus:
    rows: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    blank = 0
    for document in documents:
        if document.strip():
            rows[_part(document)].append((document,))
        else:
            blank += 1
    if blank:
        notes = [*notes, f"{blank:,} documents of white space alone left out"]
    empty = [part for part, content in rows.items() if not content]
    if empty:
        raise DataError(
            f"{name}: none of its {len(documents):,} documents fell to {empty[0]}: more are needed, {LAYOUT}"
        )
    return assemble(name, FIELDS, rows, None, notes)


def _part(document: str) -> str:
    """The split of a document: by its text alone, so the same wherever it stands and however often."""
    place = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
    return "train" if place < TRAIN else "validation" if place < VALIDATION else "test"
