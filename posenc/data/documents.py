"""Long texts for pre-training: English encyclopaedia and books, Chinese encyclopaedia."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from posenc.common.errors import DataError
from posenc.data import hub
from posenc.data.corpus import MARK, Corpus, File, Row, check_folder, find, identities, keep, need, stream

FIELDS = ("text",)
SPLITS = ("train", "validation", "test")
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

        def hubs(notes: list[str]) -> Iterator[tuple[str, Row]]:
            notes.append(note)
            sentences = (row[0] for row in second["train"])
            joined = ("\n".join(part) for part in iter(lambda: list(islice(sentences, SENTENCES)), []))
            return _split("english", chain((row[0] for row in first["train"]), joined), notes)

        return keep("english", FIELDS, SPLITS, [note, first.identity, second.identity], hubs)
    articles = articles or need(folder, ["english"], ["wikipedia.txt"], books)
    books = books or need(folder, ["english"], ["books.txt"], articles)

    def files(notes: list[str]) -> Iterator[tuple[str, Row]]:
        found: Counter[str] = Counter()
        documents = chain(_documents(articles, found), _documents(books, found, joined=True))
        yield from _split("english", documents, notes)
        pages, volumes = found[str(articles)], found[str(books)]
        kinds = f"{pages:,} documents of {articles.path.name} and {volumes:,} of {books.path.name}"
        notes[:0] = [kinds, "the paper's copies of Wikipedia and BookCorpus are not public"]

    return keep("english", FIELDS, SPLITS, identities([articles, books]), files)


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

        def hubs(notes: list[str]) -> Iterator[tuple[str, Row]]:
            notes += [note, private]
            return _split("chinese", (row[0] for row in rows["train"]), notes)

        return keep("chinese", FIELDS, SPLITS, [note, rows.identity], hubs)

    def files(notes: list[str]) -> Iterator[tuple[str, Row]]:
        found: Counter[str] = Counter()
        yield from _split("chinese", _documents(file, found), notes)
        notes[:0] = [f"{found.total():,} documents of {file.path.name}", private]

    return keep("chinese", FIELDS, SPLITS, identities([file]), files)


def _documents(file: File, found: Counter[str], joined: bool = False) -> Iterator[str]:
    """Its documents, without the blank lines around them, counted in `found`.

    A blank line, with nothing or white space alone on it, ends a document. But where a file may be whole files
    `joined`, each with its byte order mark, those are the documents, and their blank lines are their own: a book would
    else be torn into its paragraphs, some of them for training and some for validation.
    """
    any_text = False
    for document in _files_of(file) if joined and _marked(file) else blocks(stream(file)):
        found[str(file)] += 1
        any_text = any_text or bool(document.strip())
        yield document
    if not any_text:
        raise DataError(f"{file} has no text in it")


def _marked(file: File) -> bool:
    """Whether it begins with a byte order mark, and has another at the start of a later line."""
    mark = MARK.encode()
    marked = (line.startswith(mark) for line in file.lines())
    return next(marked, False) and any(marked)


def _files_of(file: File) -> Iterator[str]:
    block: list[str] = []
    for number, line in enumerate(stream(file)):
        if number and line.startswith(MARK):
            yield "\n".join(block).strip("\n")
            block = [line.removeprefix(MARK).removeprefix(MARK)]
        else:
            block.append(line)
    yield "\n".join(block).strip("\n")


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """What blank lines separate, each with its lines joined."""
    block: list[str] = []
    for line in chain(lines, [""]):
        if line.strip():
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []


def _split(name: str, documents: Iterable[str], notes: list[str]) -> Iterator[tuple[str, Row]]:
    """Documents with their splits."""
    fallen: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
    blank = 0
    for document in documents:
        if document.strip():
            part = _part(document)
            fallen[part] += 1
            yield part, (document,)
        else:
            blank += 1
    if blank:
        notes.append(f"{blank:,} documents of white space alone left out")
    empty = [part for part, number in fallen.items() if not number]
    if empty:
        number = fallen.total() + blank
        raise DataError(f"{name}: none of its {number:,} documents fell to {empty[0]}: more are needed, {LAYOUT}")


def _part(document: str) -> str:
    """The split of a document: by its text alone, so the same wherever it stands and however often."""
    place = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") / 2**64
    return "train" if place < TRAIN else "validation" if place < VALIDATION else "test"
