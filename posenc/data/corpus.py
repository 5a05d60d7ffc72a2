"""Data sets in one common form, and the reading of their authors' files: plain, gzipped or zipped, line by line."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, overload

from posenc.common.errors import DataError
from posenc.data.cache import BLOCK, Entry, Writer, built, content_digest

Row = tuple[Any, ...]

MARK = "\ufeff"  # the byte order mark that some editors write at the start of a file


@dataclass(frozen=True)
class Corpus:
    """A data set and what a reader must know of it.

    Attributes:
        name: "multi30k", "glue/mrpc", ...
        fields: the names of a row's columns.
        rows: by split: "train", "validation", "test" where its labels are public, "validation_mismatched" for MNLI.
            Those of files and of the hub lie in the cache and are decoded as they are asked for.
        digest: SHA-256 over the rows of all splits, whatever container they came in.
        expected: rows of the official release by split, where there is one.
        note: said beside every result made from it.
        ends_are_words: whether perplexity by word takes a row's end for a word, as `<eos>` is in published figures.
    """

    name: str
    fields: tuple[str, ...]
    rows: Mapping[str, Sequence[Row]]
    digest: str
    expected: dict[str, int] | None
    generated: bool = False
    note: str = ""
    ends_are_words: bool = False

    def describe(self) -> dict[str, object]:
        """Its part in a record."""
        return {
            "name": self.name,
            "digest": self.digest,
            "rows": {split: len(rows) for split, rows in self.rows.items()},
            "expected_rows": self.expected,
            "generated": self.generated,
            "note": self.note,
        }


def assemble(
    name: str,
    fields: tuple[str, ...],
    rows: dict[str, list[Row]],
    official: Mapping[str, tuple[int, ...]] | None = None,
    notes: Sequence[str] = (),
    *,
    generated: bool = False,
) -> Corpus:
    """A corpus with its digest and with a note where it is not the whole release.

    Args:
        official: rows that each split of the release has; more than one number where releases differ.
        notes: what else is to be said.
        generated: whether code made it.

    Raises:
        DataError: a split is empty.
    """
    digest = hashlib.sha256()
    for split, content in rows.items():
        if not content:
            raise DataError(f"{name}: no rows for its {split} split")
        digest.update(f"{split}\n".encode())
        for row in content:
            digest.update(_line(row))
    return _described(name, fields, rows, digest.hexdigest(), official, notes, generated)


_encode = json.JSONEncoder(ensure_ascii=False).encode


def _line(row: Row) -> bytes:
    """A row as JSON, which says where a cell ends, whatever is in it."""
    return f"{_encode(row)}\n".encode()


def _described(
    name: str,
    fields: tuple[str, ...],
    rows: Mapping[str, Sequence[Row]],
    digest: str,
    official: Mapping[str, tuple[int, ...]] | None,
    notes: Sequence[str],
    generated: bool = False,
) -> Corpus:
    expected = None
    if official is not None:
        found = {split: len(rows.get(split, ())) for split in official}
        expected = {split: found[split] if found[split] in counts else counts[0] for split, counts in official.items()}
        notes = [*_shortfall(found, expected), *notes]
    return Corpus(name, fields, rows, digest, expected, generated, "; ".join(filter(None, notes)))


class Rows(Sequence[Row]):
    """A split's rows in the cache: a line of JSON each in a mapped file, decoded when it is asked for."""

    def __init__(self, entry: Entry, split: str) -> None:
        self.entry, self.split = entry, split

    def __len__(self) -> int:
        return self.entry.length(f"{self.split}.offsets") - 1

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        places = range(len(self))[index]
        return next(self._decoded(places, places + 1)) if isinstance(places, int) else [self[place] for place in places]

    def __iter__(self) -> Iterator[Row]:
        for first in range(0, len(self), 1000):
            yield from self._decoded(first, min(first + 1000, len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compared by content, as a list

    def _decoded(self, first: int, last: int) -> Iterator[Row]:
        start, end = self.entry[f"{self.split}.offsets"][[first, last]]
        for line in self.entry[f"{self.split}.rows"][start:end].tobytes().splitlines():
            yield tuple(json.loads(line.decode()))


class Texts(Iterable[str]):
    """The texts of some columns, row by row: as often as asked for, and never all at once."""

    def __init__(self, rows: Iterable[Row], *columns: int) -> None:
        self.rows, self.columns = rows, columns

    def __iter__(self) -> Iterator[str]:
        return (str(row[column]) for row in self.rows for column in self.columns)


Reader = Callable[[list[str]], Iterable[tuple[str, Row]]]
"""Yields rows with their splits, in any order of splits, and adds to the list what the note must say."""


def keep(
    name: str,
    fields: tuple[str, ...],
    splits: Sequence[str],
    made_from: object,
    read: Reader,
    official: Mapping[str, tuple[int, ...]] | None = None,
) -> Corpus:
    """As `assemble`, with rows that go from `read` to the cache one by one, once for the same files and code.

    Args:
        splits: which there are, in the order in which the digest has them.
        made_from: what is read, such as `identities` of files.

    Raises:
        DataError: a split is empty, or what `read` raises. StorageError: the cache cannot be written.
    """
    here = Path(__file__)
    sources = (here, here.with_name("parsing.py"), Path(str(sys.modules[read.__module__].__file__)))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()

    def build(writer: Writer) -> dict[str, object]:
        notes: list[str] = []
        lines = {split: writer.stream(f"{split}.rows", "u1") for split in splits}
        offsets = {split: writer.stream(f"{split}.offsets", "i8") for split in splits}
        for split in splits:
            offsets[split].append([0])
        for split, row in read(notes):
            lines[split].append(_line(row))
            offsets[split].append(lines[split].bytes.to_bytes(8, sys.byteorder))
        digest = hashlib.sha256()
        for split in splits:
            if not lines[split].bytes:
                raise DataError(f"{name}: no rows for its {split} split")
            digest.update(f"{split}\n".encode())
            with writer.read(f"{split}.rows") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        return {"digest": digest.hexdigest(), "notes": notes}

    entry = built("corpus", [name, list(fields), list(splits), made_from, code], build)
    rows = {split: Rows(entry, split) for split in splits}
    return _described(name, fields, rows, entry.facts["digest"], official, entry.facts["notes"])


def by_split(rows: Mapping[str, Iterable[Row]]) -> Iterator[tuple[str, Row]]:
    """Rows with their splits, as `keep` reads them."""
    return ((split, row) for split, content in rows.items() for row in content)


def _shortfall(found: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    parts = []
    for split, wanted in expected.items():
        kind = "training" if split == "train" else split
        if found[split] == 0:
            parts.append(f"none of the {wanted:,} {kind} rows")
        elif found[split] < wanted:
            parts.append(f"only {found[split]:,} of {wanted:,} {kind} rows")
        elif found[split] > wanted:
            parts.append(f"{found[split]:,} {kind} rows where the release has {wanted:,}")
    return [", ".join(parts) + ": not comparable with published figures"] if parts else []


def counted(counts: Counter[str]) -> list[str]:
    """What a reader met and did not treat like the rest, for the note; a key starts where the number goes."""
    return [f"{number:,} {what}" for what, number in counts.items()]


@dataclass(frozen=True)
class File:
    """A file of a release, or a member of a zip archive of it."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    def identity(self) -> list[str]:
        """What tells its content from any other: not where it lies, nor when it was written."""
        return [self.path.name, self.member, content_digest(self.path)]

    def read(self) -> bytes:
        """Its content, unpacked.

        Raises:
            DataError: it is damaged or cannot be read.
        """
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """Its content in parts, unpacked as they are asked for. Raises as `read`."""
        return self._parts(lambda stream: iter(partial(stream.read, BLOCK), b""))

    def lines(self) -> Iterator[bytes]:
        """Its lines with their ends, unpacked as they are asked for. Raises as `read`."""
        return self._parts(iter)

    def _parts(self, cut: Callable[[BinaryIO], Iterator[bytes]]) -> Iterator[bytes]:
        try:
            with self._open() as stream:
                yield from cut(stream)
        except KeyError:
            raise DataError(f"{self.path}: no member {self.member!r} in it") from None
        except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise DataError(f"{self.path} is damaged: {error}") from None
        except OSError as error:
            raise DataError(f"{self} cannot be read: {error.strerror}") from None

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        if self.member:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield member  # type: ignore[misc]  # checks the member's CRC at its end
        elif self.path.suffix == ".gz":
            with gzip.open(self.path) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            with self.path.open("rb") as plain:
                yield plain


def identities(files: Iterable[File]) -> list[list[str]]:
    """What tells the content of these files from any other."""
    return [file.identity() for file in files]


def check_folder(folder: Path | None) -> None:
    """Raises DataError where a folder was given that does not exist."""
    if folder is not None and not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder")


def missing(what: str, folder: Path | None, path: str) -> str:
    """What is said of a data set whose files are not there."""
    where = "give --data DIR, or POSENC_DATA, with" if folder is None else f"--data {folder} has no"
    return f"{what} is not at hand: {where} {path}"


def find(folder: Path | None, places: Sequence[str], names: Sequence[str]) -> File | None:
    """The first of these names in the first place that has one: as it is, gzipped, or in the place's zip archive.

    Args:
        folder: where official files lie; None finds nothing.
        places: folders inside it.

    Raises:
        DataError: an archive is damaged.
    """
    if folder is None:
        return None
    for place in places:
        for name in names:
            for path in (folder / place / name, folder / place / f"{name}.gz"):
                if path.is_file():
                    return File(path)
        archive = folder / f"{place}.zip"
        if archive.is_file():
            members = _members(archive)
            for name in names:
                # The outermost one: archives have a top folder of their own, and some hold the originals further in.
                hits = [member for member in members if f"/{member}".endswith(f"/{name}")]
                if hits:
                    return File(archive, min(hits, key=lambda member: (member.count("/"), member)))
    return None


def _members(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.namelist()
    except (zipfile.BadZipFile, ValueError) as error:
        raise DataError(f"{archive} is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{archive} cannot be read: {error.strerror}") from None


def need(folder: Path | None, places: Sequence[str], names: Sequence[str], beside: object) -> File:
    """As `find`, where another file of the same release was found already.

    Raises:
        DataError: none of them is there.
    """
    found = find(folder, places, names)
    if found is None:
        raise DataError(f"{beside} is there, but not the {' or '.join(names)} that belongs to it")
    return found


def stream(file: File) -> Iterator[str]:
    """Its lines without their ends and without a byte order mark, one by one.

    Lines end with \\n or \\r\\n, and nowhere else: texts hold form feeds, U+0085, U+2028 and single \\r, which
    `str.splitlines` would take for ends of lines, and the two sides of a translation would no longer match.

    Raises:
        DataError: it is empty or not UTF-8: file and line.
    """
    number = 0
    for number, raw in enumerate(file.lines(), 1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{file}, line {number}"
            raise DataError(f"{where}: not UTF-8 (byte 0x{raw[error.start]:02x}: {error.reason})") from None
        if number == 1:
            line = line.removeprefix(MARK)
            if not line:
                break
        yield line.removesuffix("\n").removesuffix("\r")
    else:
        if number:
            return
    raise DataError(f"{file} is empty")


def lines(file: File) -> list[str]:
    """As `stream`, all at once: for small files."""
    return list(stream(file))
