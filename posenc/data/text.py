"""Long byte texts: enwik8's official file, and the source of Python's own standard library."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posenc.common import telemetry
from posenc.common.errors import DataError, MissingDataError
from posenc.data import hub
from posenc.data.cache import Writer, built
from posenc.data.corpus import File, check_folder

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
        ends: where its training and its validation part end, where its files say so.
    """

    name: str
    content: Bytes
    digest: str
    expected: int | None = None
    generated: bool = False
    note: str = ""
    ends: tuple[int, int] | None = None

    def split(self, parts: tuple[float, float, float]) -> dict[str, Bytes]:
        """Train, validation and test, cut by bytes in this order: by these shares, or where its files have them."""
        first = round(len(self.content) * parts[0])
        second = first + round(len(self.content) * parts[1])
        first, second = self.ends or (first, second)
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
        raise DataError(f"{root} holds {len(raw):,} bytes of Python source, and must hold a million: is it stripped?")
    version = platform.python_version()
    return _text(f"standard library of Python {version}", raw, note="differs between versions of Python")


@lru_cache(maxsize=1)
def enwik8(folder: Path | None) -> ByteText:
    """The first 100,000,000 bytes of English Wikipedia in 2006: the official file, plain or zipped, or the hub's."""
    places = ["enwik8/enwik8", "enwik8/enwik8.zip", "enwik8", "enwik8.zip"]
    check_folder(folder)
    for path in (folder / place for place in places) if folder is not None else ():
        if path.is_file():
            file = File(path, "enwik8" if path.suffix == ".zip" else "")
            return _enwik8(str(path), file.identity(), file.blocks)
    return _from_hub(folder, places)


def _enwik8(origin: str, made_from: object, blocks: Callable[[], Iterator[bytes]]) -> ByteText:
    """The text that these blocks are, in the cache.

    Raises:
        DataError: it is empty, longer than enwik8, or as long and another.
    """

    def build(writer: Writer) -> dict[str, object]:
        content, md5 = writer.stream("content", np.uint8), hashlib.md5(usedforsecurity=False)
        for block in blocks():
            content.append(block)
            md5.update(block)
        if not content.bytes:
            raise DataError(f"{origin} is empty; enwik8 has {ENWIK8_BYTES:,} bytes")
        if content.bytes > ENWIK8_BYTES:
            raise DataError(f"{origin} has {content.bytes:,} bytes; enwik8 has {ENWIK8_BYTES:,}")
        if content.bytes == ENWIK8_BYTES and md5.hexdigest() != ENWIK8_MD5:
            raise DataError(f"{origin} has enwik8's size but not its content (its MD5 must be {ENWIK8_MD5})")
        return {"digest": content.sum.hexdigest()}

    kept = built("text", ["enwik8", made_from, ENWIK8_BYTES, ENWIK8_MD5], build)
    size, note = kept.length("content"), ""
    if size < ENWIK8_BYTES:
        note = f"only {size:,} of enwik8's {ENWIK8_BYTES:,} bytes: not comparable with published figures"
    return ByteText("enwik8", kept["content"], str(kept.facts["digest"]), ENWIK8_BYTES, False, note)


def _from_hub(folder: Path | None, places: list[str]) -> ByteText:
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
        rows: Any = datasets.load_dataset(repository, name, revision=revision, split="train")
    except Exception as error:  # the libraries raise their own, their transport's and the system's errors
        raise MissingDataError(
            f"enwik8: {looked}, and the hub's {repository} cannot be had"
            f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}): {advice}"
        ) from None
    made_from = [repository, name, str(rows._fingerprint)]
    found = _enwik8(
        f"the hub's {repository}",
        made_from,
        lambda: ("".join(block["text"]).encode() for block in hub.blocks(rows, repository)),
    )
    if len(found.content) != ENWIK8_BYTES:
        raise DataError(f"the hub's {repository} gave {len(found.content):,} bytes, not {ENWIK8_BYTES:,}: {advice}")
    return found
