"""Long byte texts: enwik8's official file, and the source of Python's own standard library."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posenc import telemetry
from posenc.errors import DataError, UnknownNameError

Bytes = NDArray[np.uint8]

ENWIK8_BYTES = 100_000_000
ENWIK8_MD5 = "a1fa5ffddb56f4953e226637dabbb36a"  # published with the file
ENWIK8_HUB = ("LTCB/enwik8", "enwik8-raw", "refs/convert/parquet")


@dataclass(frozen=True)
class ByteText:
    """A text and what a reader must know of it.

    Attributes:
        content: all of it, uint8 (N,).
        digest: SHA-256 of it.
        expected: how many bytes the official file has, where that is known.
        note: said beside every result made from it.
    """

    name: str
    content: Bytes
    digest: str
    expected: int | None = None
    generated: bool = False
    note: str = ""

    def split(self, parts: tuple[float, float, float]) -> dict[str, Bytes]:
        """Train, validation and test, cut by bytes in this order."""
        first = round(len(self.content) * parts[0])
        second = first + round(len(self.content) * parts[1])
        return {"train": self.content[:first], "validation": self.content[first:second], "test": self.content[second:]}

    def describe(self) -> dict[str, object]:
        """Its part in a record."""
        return {
            "name": self.name,
            "digest": self.digest,
            "bytes": len(self.content),
            "expected_bytes": self.expected,
            "generated": self.generated,
            "note": self.note,
        }


def load(source: str, folder: Path | None) -> ByteText:
    """The text that a task names; read once a process.

    Args:
        folder: where official files lie (--data or POSENC_DATA); None where none was given.

    Raises:
        DataError: it is missing or damaged: what, and where to put it.
    """
    if source not in SOURCES:
        raise UnknownNameError("data source", source, SOURCES)
    return SOURCES[source](folder)


def _text(name: str, raw: bytes, expected: int | None = None, note: str = "") -> ByteText:
    return ByteText(name, np.frombuffer(raw, dtype=np.uint8), hashlib.sha256(raw).hexdigest(), expected, False, note)


@lru_cache(maxsize=1)
def standard_library(folder: Path | None = None) -> ByteText:
    """The source files of the running Python's standard library, in the order of their paths.

    Real text that every machine has. Tests, installed packages and what the build wrote for this machine are left out.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "ensurepip", "idlelib"}
    files = [
        path
        for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix())
        if not skipped & set(path.relative_to(root).parts) and not path.name.startswith("_sysconfigdata")
    ]
    raw = b"".join(path.read_bytes() for path in files)
    if len(raw) < 1_000_000:
        raise DataError(f"{root} holds {len(raw):,} bytes of Python source, and a million are wanted: is it stripped?")
    version = platform.python_version()
    return _text(f"standard library of Python {version}", raw, note="differs between versions of Python")


@lru_cache(maxsize=1)
def enwik8(folder: Path | None) -> ByteText:
    """The first 100,000,000 bytes of English Wikipedia in 2006: the official file, plain or zipped, or the hub's."""
    places = ["enwik8/enwik8", "enwik8/enwik8.zip", "enwik8", "enwik8.zip"]
    if folder is not None:
        if not folder.is_dir():
            raise DataError(f"--data {folder}: no such folder")
        for place in places:
            if (folder / place).is_file():
                return _enwik8(_read(folder / place), str(folder / place))
    return _enwik8(_from_hub(folder, places), "the hub's copy")


def _read(path: Path) -> bytes:
    try:
        if path.suffix != ".zip":
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read("enwik8")  # checks the member's CRC
    except KeyError:
        raise DataError(f"{path}: no member 'enwik8' in it; the official archive has that one alone") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _enwik8(raw: bytes, origin: str) -> ByteText:
    if not raw:
        raise DataError(f"{origin} is empty; enwik8 has {ENWIK8_BYTES:,} bytes")
    note = ""
    if len(raw) > ENWIK8_BYTES:
        raise DataError(f"{origin} has {len(raw):,} bytes; enwik8 has {ENWIK8_BYTES:,}")
    if len(raw) < ENWIK8_BYTES:
        note = f"only {len(raw):,} of enwik8's {ENWIK8_BYTES:,} bytes: not comparable with published figures"
    elif hashlib.md5(raw, usedforsecurity=False).hexdigest() != ENWIK8_MD5:
        raise DataError(f"{origin} has enwik8's size but not its content (MD5 {ENWIK8_MD5} is wanted)")
    return _text("enwik8", raw, ENWIK8_BYTES, note)


def _from_hub(folder: Path | None, places: list[str]) -> bytes:
    """The hub's copy, by one attempt. Its branch was never checked by hand: the MD5 pins the content instead."""
    repository, name, revision = ENWIK8_HUB
    looked = (
        f"not found under {folder} ({', '.join(places)})" if folder else "no --data DIR and no POSENC_DATA was given"
    )
    advice = "put the official file (mattmahoney.net/dc/enwik8.zip) at DIR/enwik8/enwik8.zip"
    telemetry.off()
    try:
        import datasets
        from huggingface_hub import HfApi

        HfApi().dataset_info(repository, revision=revision, timeout=10)  # one request; the loader would try six times
        rows = datasets.load_dataset(repository, name, revision=revision, split="train")
        raw = "".join(rows["text"]).encode()
    except Exception as error:  # the libraries raise their own, their transport's and the system's errors
        raise DataError(
            f"enwik8: {looked}, and the hub's {repository} cannot be had"
            f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}): {advice}"
        ) from None
    if len(raw) != ENWIK8_BYTES:
        raise DataError(f"the hub's {repository} gave {len(raw):,} bytes, not {ENWIK8_BYTES:,}: {advice}")
    return raw


SOURCES = {"stdlib": standard_library, "enwik8": enwik8}
