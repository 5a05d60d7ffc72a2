"""Data sets in one common form, and the reading of their authors' files: plain, gzipped or zipped, line by line."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posenc.errors import DataError

Row = tuple[Any, ...]

MARK = "\ufeff"  # the byte order mark that some editors write at the start of a file


@dataclass(frozen=True)
class Corpus:
    """A data set and what a reader must know of it.

    Attributes:
        name: "multi30k", "glue/mrpc", ...
        fields: the names of a row's columns.
        rows: by split: "train", "validation", "test" where its labels are public, "validation_mismatched" for MNLI.
        digest: SHA-256 over the rows of all splits, whatever container they came in.
        expected: rows of the official release by split, where there is one.
        note: said beside every result made from it.
    """

    name: str
    fields: tuple[str, ...]
    rows: dict[str, list[Row]]
    digest: str
    expected: dict[str, int] | None
    generated: bool = False
    note: str = ""

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
    encode = json.JSONEncoder(ensure_ascii=False).encode  # says where a cell ends, whatever is in it
    for split, content in rows.items():
        if not content:
            raise DataError(f"{name}: no rows for its {split} split")
        digest.update(f"{split}\n".encode())
        for row in content:
            digest.update(f"{encode(row)}\n".encode())
    expected = None
    if official is not None:
        found = {split: len(rows.get(split, ())) for split in official}
        expected = {split: found[split] if found[split] in counts else counts[0] for split, counts in official.items()}
        notes = [*_shortfall(found, expected), *notes]
    return Corpus(name, fields, rows, digest.hexdigest(), expected, generated, "; ".join(filter(None, notes)))


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

    def read(self) -> bytes:
        """Its content, unpacked.

        Raises:
            DataError: it is damaged or cannot be read.
        """
        try:
            if self.member:
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(self.member)  # checks the member's CRC
            if self.path.suffix == ".gz":
                with gzip.open(self.path) as stream:
                    return stream.read()
            return self.path.read_bytes()
        except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            raise DataError(f"{self} is damaged: {error}") from None
        except OSError as error:
            raise DataError(f"{self} cannot be read: {error.strerror}") from None


def check_folder(folder: Path | None) -> None:
    """Raises DataError where a folder was given that does not exist."""
    if folder is not None and not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder")


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


def text(file: File) -> str:
    """All of a file, with its byte order mark where it has one.

    Raises:
        DataError: it is empty or not UTF-8: file and line.
    """
    raw = file.read()
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}: {error.reason})") from None
    if not content.removeprefix(MARK):
        raise DataError(f"{file} is empty")
    return content


def lines(file: File) -> list[str]:
    """Its lines without their ends and without a byte order mark.

    Lines end with \\n or \\r\\n, and nowhere else: texts hold form feeds, U+0085, U+2028 and single \\r, which
    `str.splitlines` would take for ends of lines, and the two sides of a translation would no longer match.
    """
    return split(text(file))


def split(content: str) -> list[str]:
    """As `lines`, of a text."""
    parts = content.removeprefix(MARK).split("\n")
    if not parts[-1]:
        parts.pop()  # the last line's end is optional
    return [part.removesuffix("\r") for part in parts] if "\r" in content else parts
