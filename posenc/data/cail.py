"""CAIL2019-SCM: of three Chinese case texts, is the first nearer to the second or to the third?"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from posenc.data import hub
from posenc.data.corpus import Corpus, File, Row, assemble, check_folder, find, lines, need
from posenc.errors import DataError

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
        (rows,), note = hub.fetch(NAME, folder, looked, ADVICE)
        return assemble(NAME, FIELDS, rows, OFFICIAL, [note])
    rows = {}
    for split, names in NAMES.items():
        texts = files[split]
        given = inputs[split]
        if texts is None and given is not None:
            labels = need(folder, [f"{place}/{FOLDERS[split]}" for place in PLACES], ["ground_truth.txt"], given)
            rows[split] = _triples(given, labels)
        else:
            rows[split] = _triples(texts or need(folder, PLACES, names, present[0]))
    return assemble(NAME, FIELDS, rows, OFFICIAL, _shared(rows))


def _triples(file: File, answers: File | None = None) -> list[Row]:
    """The rows of one file; their labels may lie in another, one a line."""
    content = lines(file)
    labels = lines(answers) if answers is not None else None
    if labels is not None and len(labels) != len(content):
        raise DataError(f"{file} has {len(content):,} lines and {answers} {len(labels):,}: a label for each is wanted")
    rows: list[Row] = []
    for number, line in enumerate(content, 1):
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: no whole JSON object ({error})") from None
        if not isinstance(record, dict):
            raise DataError(f"{where}: no JSON object")
        texts = [_field(record, key, where) for key in KEYS]
        label = _field(record, "label", where) if labels is None else labels[number - 1]
        if label not in LABELS:
            place = where if answers is None else f"{answers}, line {number}"
            raise DataError(f"{place}: no such label {label!r}; known: {', '.join(LABELS)}")
        rows.append((*texts, label))
    return rows


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


def _shared(rows: dict[str, list[Row]]) -> list[str]:
    """How many rows hold a text that training has too, for the note."""
    known = {text for row in rows["train"] for text in row[:3]}
    notes = []
    for split in ("validation", "test"):
        number = sum(any(text in known for text in row[:3]) for row in rows[split])
        if number:
            notes.append(f"{number:,} {split} rows share a text with training")
    return notes
