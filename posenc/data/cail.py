"""CAIL2019-SCM: of three Chinese case texts, is the first nearer to the second or to the third?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from posenc.common.errors import DataError
from posenc.data import hub
from posenc.data.corpus import Corpus, File, Row, by_split, check_folder, find, identities, keep, lines, need, stream
from posenc.data.parsing import json_object

NAME = "cail2019-scm"
FIELDS = ("a", "b", "c", "label")
KEYS = ("A", "B", "C")
LABELS = ("B", "C")
PLACES = ["cail2019-scm", "CAIL2019-SCM", "cail2019-scm/CAIL2019-SCM"]
# The release was one file of training data first, then three; copies call them by their own names.
NAMES = {
    "train": ["train.json", "cail2019_scm_train.json", "SCM_5k.json"],
    "validation": ["valid.json", "dev.json", "cail2019_scm_dev.json"],
    "test": ["test.json", "cail2019_scm_test.json"],
}
# In the contest's own form the texts and the labels are two files.
FOLDERS = {"train": "train", "validation": "valid", "test": "test"}
OFFICIAL = {"train": (5102,), "validation": (1500,), "test": (1536,)}
ADVICE = (
    "put train.json, valid.json and test.json of CAIL2019-SCM.zip"
    " (github.com/china-ai-law-challenge/CAIL2019, scm), or the archive itself, in DIR/cail2019-scm"
)


@lru_cache(maxsize=1)
def cail2019_scm(folder: Path | None) -> Corpus:
    """Triples of case texts: fields "a", "b", "c" and "label", which is "B" or "C".

    Raises:
        DataError: files are missing or damaged: which, and where.
    """
    check_folder(folder)
    files = {split: find(folder, PLACES, names) for split, names in NAMES.items()}
    inputs = {split: find(folder, [f"{place}/{FOLDERS[split]}" for place in PLACES], ["input.txt"]) for split in NAMES}
    present = [file for file in (*files.values(), *inputs.values()) if file is not None]
    if not present:
        looked = [f"{PLACES[0]}/{names[0]}" for names in NAMES.values()]
        (fetched,), note = hub.fetch(NAME, folder, looked, ADVICE)

        def hubs(notes: list[str]) -> Iterator[tuple[str, Row]]:
            notes.append(note)
            return by_split(fetched)

        return keep(NAME, FIELDS, tuple(NAMES), [note, fetched.identity], hubs, OFFICIAL)
    sources: dict[str, list[File]] = {}
    for split, names in NAMES.items():
        texts = files[split]
        given = inputs[split]
        if texts is None and given is not None:
            places = [f"{place}/{FOLDERS[split]}" for place in PLACES]
            sources[split] = [given, need(folder, places, ["ground_truth.txt"], given)]
        else:
            sources[split] = [texts or need(folder, PLACES, names, present[0])]

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        known: set[bytes] = set()  # digests of the texts of training
        for split, found in sources.items():
            shared = 0
            for row in _triples(*found):
                texts = {sha256(text.encode()).digest() for text in row[:3]}
                if split == "train":
                    known |= texts
                else:
                    shared += bool(texts & known)
                yield split, row
            if shared:
                notes.append(f"{shared:,} {split} rows share a text with training")

    made_from = [[split, identities(found)] for split, found in sources.items()]
    return keep(NAME, FIELDS, tuple(NAMES), made_from, read, OFFICIAL)


def _triples(file: File, answers: File | None = None) -> Iterator[Row]:
    """The rows of one file; their labels may lie in another, one a line."""
    labels = lines(answers) if answers is not None else None
    if labels is not None and len(labels) != (total := sum(1 for _ in stream(file))):
        raise DataError(f"{file} has {total:,} lines and {answers} {len(labels):,}: a label for each must be there")
    for number, line in enumerate(stream(file), 1):
        where = f"{file}, line {number}"
        record = json_object(line, where)
        texts = [_field(record, key, where) for key in KEYS]
        label = _field(record, "label", where) if labels is None else labels[number - 1]
        if label not in LABELS:
            place = where if answers is None else f"{answers}, line {number}"
            raise DataError(f"{place}: no such label {label!r}; known: {', '.join(LABELS)}")
        yield (*texts, label)


def _field(record: dict[str, object], key: str, where: str) -> str:
    if key not in record:
        raise DataError(f"{where}: no {key!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    value = record[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key!r} is {'empty' if isinstance(value, str) else 'no text'}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can write half of a pair of surrogates
        raise DataError(f"{where}: {key!r} has half a character in it") from None
    return value
