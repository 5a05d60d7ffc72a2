"""Data whose files and columns a task's TOML names, so that they need no code: a table, a parallel text, running text.

`data.source` is "table", "parallel" or "text", and `data.files` says where each split lies: "train", "validation" and
"test", or "all" of it, which is cut by `data.splits`. A path that begins with ./ or ../ starts where the task's TOML
lies, any other relative one at --data DIR (or POSENC_DATA). Files may be gzipped.

A row of a table or a pair of sentences falls to a split by a hash of its texts, so that what is repeated stands in one
split alone; running text is cut in its order, between lines where rows are made of it: each document a row (a blank
line ends one).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posenc.common.errors import ConfigError, DataError, MissingDataError
from posenc.config.data import DataConfig
from posenc.data import documents, parallel
from posenc.data.cache import Writer, built
from posenc.data.corpus import Corpus, File, Row, counted, identities, keep, stream
from posenc.data.parsing import json_object, quoted
from posenc.data.text import ByteText

SPLITS = ("train", "validation", "test")
FORMATS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

Files = dict[str, list[File]]


def load(
    config: DataConfig, columns: Sequence[tuple[str, ...]], folder: Path | None, beside: Path | None
) -> ByteText | Corpus:
    """The data that a task's TOML describes.

    Args:
        columns: the rows that its objective can learn from.
        folder: where --data points. beside: where the task's TOML lies.

    Raises:
        ConfigError: keys that contradict each other. DataError: files that are missing, damaged or not as described.
    """
    files = _files(config, folder, beside)
    if config.source == "text":
        return _bytes(config, files) if config.tokeniser == "bytes" else _documents(config, files)
    if config.tokeniser == "bytes":
        raise ConfigError(f"data.source = {config.source!r}: it has rows, and data.tokeniser = 'bytes' reads none")
    return _parallel(config, files) if config.source == "parallel" else _table(config, files, columns)


def _files(config: DataConfig, folder: Path | None, beside: Path | None) -> Files:
    return {
        split: [File(_place(split, path, folder, beside)) for path in ([given] if isinstance(given, str) else given)]
        for split, given in config.files.items()
    }


def _place(split: str, written: str, folder: Path | None, beside: Path | None) -> Path:
    """Where a file lies."""
    path, key = Path(written).expanduser(), f"data.files.{split} = {written!r}"
    if written.startswith(("./", "../")):
        start, origin = beside, "the task's TOML lies in no folder"
        said = f"(it starts where the task's TOML lies: {beside})"
    else:
        start, origin = folder, "it starts at --data DIR or POSENC_DATA, and neither was given; ./ is beside the TOML"
        said = f"(it starts at --data {folder}; ./ starts where the task's TOML lies)"
    if not path.is_absolute():
        if start is None:
            raise MissingDataError(f"{key}: {origin}")
        path = start / path
    else:
        said = ""
    found = next((one for one in (path, path.with_name(f"{path.name}.gz")) if one.is_file()), None)
    if found is None:
        raise MissingDataError(f"{key}: no such file {said}".strip())
    return found


def _name(files: Files) -> str:
    """What the data are called: their files' names."""
    return ", ".join(dict.fromkeys(file.path.name for found in files.values() for file in found))


def _made_from(config: DataConfig, files: Files) -> list[object]:
    """All that the rows depend on beside the code that `keep` knows of."""
    code = [hashlib.sha256(Path(str(one.__file__)).read_bytes()).hexdigest() for one in (documents, parallel)]
    described = [config.source, config.format, config.header, config.columns, config.labels]
    shares = list(config.splits) if "all" in files else []
    return [described, shares, {split: identities(found) for split, found in files.items()}, code]


def _splits(files: Files) -> tuple[str, ...]:
    return SPLITS if "all" in files else tuple(files)


def _shared(rows: Iterable[tuple[str, Row]], shares: Sequence[float], texts: slice) -> Iterator[tuple[str, Row]]:
    """Rows with their splits, those of "all" by a hash of their texts."""
    for split, row in rows:
        yield (_part(row[texts], shares) if split == "all" else split), row


def _part(texts: Sequence[Any], shares: Sequence[float]) -> str:
    place = int.from_bytes(hashlib.sha256("\n".join(map(str, texts)).encode()).digest()[:8], "big") / 2**64
    return SPLITS[int(place >= shares[0]) + int(place >= shares[0] + shares[1])]


def _bytes(config: DataConfig, files: Files) -> ByteText:
    """Running text byte by byte."""

    def build(writer: Writer) -> dict[str, object]:
        content = writer.stream("content", np.uint8)
        ends = []
        for found in files.values():
            for file in found:
                for block in file.blocks():
                    content.append(block)
            ends.append(content.bytes)
        if not content.bytes:
            raise DataError(f"{_name(files)}: no text in it")
        return {"digest": content.sum.hexdigest(), "ends": ends}

    kept = built("text", ["own", [[split, identities(found)] for split, found in files.items()]], build)
    ends = None if "all" in files else tuple(kept.facts["ends"][:2])
    digest = hashlib.sha256(f"{kept.facts['digest']} {ends}".encode()).hexdigest() if ends else kept.facts["digest"]
    return ByteText(_name(files), kept["content"], str(digest), ends=ends)


def _documents(config: DataConfig, files: Files) -> Corpus:
    """Running text, each document a row."""

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        if "all" not in files:
            for split, found in files.items():
                for file in found:
                    yield from ((split, (text,)) for text in documents.blocks(stream(file)))
            return
        sizes = [_size(file) for file in files["all"]]
        first, second = (sum(sizes) * share for share in (config.splits[0], config.splits[0] + config.splits[1]))
        parts: dict[str, list[str]] = {}
        done = 0
        split = SPLITS[0]
        for line in (line for file in files["all"] for line in [*stream(file), ""]):
            now = SPLITS[int(done >= first) + int(done >= second)]
            if not line.strip() or now != split:
                if any(parts.get(split, ())):
                    yield split, ("\n".join(parts.pop(split)),)
                split = now
            if line.strip():
                parts.setdefault(split, []).append(line)
            done += len(line.encode()) + 1
        if any(parts.get(split, ())):
            yield split, ("\n".join(parts[split]),)

    return keep(_name(files), ("text",), _splits(files), _made_from(config, files), read)


def _size(file: File) -> int:
    return sum(len(line.encode()) + 1 for line in stream(file))


def _parallel(config: DataConfig, files: Files) -> Corpus:
    """Pairs of sentences: line by line, a file for each side."""

    def rows(left_out: Counter[str]) -> Iterator[tuple[str, Row]]:
        for split, (source, target) in files.items():
            gaps = split in ("all", "train")  # as translation's data have them; of what is scored nothing is left out
            yield from ((split, pair) for pair in parallel.side_by_side(source, target, gaps, left_out))

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        left_out: Counter[str] = Counter()
        yield from _shared(rows(left_out), config.splits, slice(None))
        notes += counted(left_out)

    return keep(_name(files), parallel.FIELDS, _splits(files), _made_from(config, files), read)


def _table(config: DataConfig, files: Files, columns: Sequence[tuple[str, ...]]) -> Corpus:
    """Rows of a table."""
    fields = next((names for names in columns if set(names) == config.columns.keys()), None)
    if fields is None:
        wanted = " or ".join("/".join(names) for names in columns) or "no rows"
        given = "/".join(config.columns) or "none"
        raise ConfigError(f"data.columns names {given}: the task's objective reads {wanted}")
    if config.labels and "label" not in fields:
        raise ConfigError(f"data.labels = {config.labels}: data.columns has no label")
    if "label" not in fields and "all" not in files and set(files) != set(SPLITS):
        raise ConfigError(f"data.files has {', '.join(files)}: train, validation and test, or all, must be there")

    def rows(oddities: Counter[str]) -> Iterator[tuple[str, Row]]:
        for split, found in files.items():
            for file in found:
                for where, cells in _cells(config, file, [config.columns[name] for name in fields], oddities):
                    row = []
                    for name, cell in zip(fields, cells, strict=True):
                        row.append(_label(config.labels, cell, where) if name == "label" else cell)
                        if name != "label" and not cell.strip():
                            oddities[f"rows with an empty {name} kept"] += 1
                    yield split, tuple(row)

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        oddities: Counter[str] = Counter()
        texts = slice(-1) if "label" in fields else slice(None)
        yield from _shared(rows(oddities), config.splits, texts)
        notes += counted(oddities)

    return keep(_name(files), fields, _splits(files), _made_from(config, files), read)


def _label(labels: Sequence[str], given: str, where: str) -> int | float:
    """The number of a class, or a score."""
    if labels:
        if given not in labels:
            raise DataError(f"{where}: no such label {given!r}; data.labels has {', '.join(map(repr, labels))}")
        return labels.index(given)
    try:
        score = float(given)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{where}: label {given!r} is no number, and data.labels names no classes")
    return score


def _cells(
    config: DataConfig, file: File, columns: Sequence[str | int], oddities: Counter[str]
) -> Iterator[tuple[str, list[str]]]:
    """Of each row where it stands and its cells in these columns."""
    suffix = Path(file.path.name.removesuffix(".gz")).suffix.lower()
    form = config.format or FORMATS.get(suffix)
    if form is None:
        raise ConfigError(f"data.format: {file} does not tell it by its name; tsv, csv or jsonl must be given")
    if form == "jsonl":
        yield from _of_objects(file, columns)
        return
    lines = quoted(file) if form == "csv" else ((number, line.split("\t")) for number, line in _numbered(file))
    places: list[int] | None = None
    width = 0
    for number, cells in lines:
        where = f"{file}, line {number}"
        if places is None:
            width = len(cells)
            places = [_column(column, cells if config.header else None, width, where) for column in columns]
            if config.header:
                continue
        if cells in ([], [""]) and width > 1:
            oddities["blank lines left out"] += 1
            continue
        if len(cells) != width:
            first = "the header" if config.header else "the first line"
            raise DataError(f"{where}: {len(cells)} columns, and {first} has {width}")
        yield where, [cells[place] for place in places]


def _column(column: str | int, header: Sequence[str] | None, width: int, where: str) -> int:
    """A column's place, counted from 0."""
    if isinstance(column, int):
        if not 1 <= column <= width:
            raise DataError(f"{where}: no column {column}; there are {width}, counted from 1")
        return column - 1
    if header is None:
        raise ConfigError(f"data.columns: {column!r} is a name, and data.header = false: must be a number, from 1")
    if column not in header:
        raise DataError(f"{where}: no column {column!r}; the header has {', '.join(map(repr, header))}")
    return header.index(column)


def _numbered(file: File) -> Iterator[tuple[int, str]]:
    return enumerate(stream(file), 1)


def _of_objects(file: File, columns: Sequence[str | int]) -> Iterator[tuple[str, list[str]]]:
    """The rows of JSON lines: an object each."""
    for number, line in _numbered(file):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        record = json_object(line, where)
        yield where, [_value(record, column, where) for column in columns]


def _value(record: Mapping[str, Any], column: str | int, where: str) -> str:
    if column not in record:
        raise DataError(f"{where}: no {column!r}; it has {', '.join(map(repr, record)) or 'nothing'}")
    value = record[str(column)]
    if isinstance(value, list | dict) or value is None:
        raise DataError(f"{where}: {column!r} is {json.dumps(value)[:40]}: a text or a number must stand there")
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half of a pair of surrogates
        raise DataError(f"{where}: {column!r} has half a character in it") from None
    return text
