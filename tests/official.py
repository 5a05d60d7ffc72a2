"""Official files: written as their authors lay them out, and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import strategies as st

from posenc.data import cail, documents, glue, parallel
from posenc.data.corpus import Corpus

Reader = Callable[[Path | None], Corpus]
READERS: dict[str, Reader] = {
    "wmt14": parallel.wmt14,
    "multi30k": parallel.multi30k,
    **{f"glue/{name}": reader for name, reader in glue.TASKS.items()},
    "english": documents.english,
    "chinese": documents.chinese,
    "cail2019-scm": cail.cail2019_scm,
}
ODD = "\u2028\u2029\x85\x0b\x0c\x1c\x1e\r"  # ends of lines for str.splitlines, content for us
FILES = st.integers(0, 10**9)

# Any text that a cell can hold: no tab, no newline, no \r at its end (it would belong to the line's end), some ink.
cells = st.text(
    st.characters(exclude_characters="\t\n\ufeff", exclude_categories=["Cs"]) | st.sampled_from(ODD + '"\\'),
    min_size=1,
    max_size=30,
).filter(lambda cell: bool(cell.strip()) and not cell.endswith("\r"))


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(reader: Reader, folder: Path | None) -> Corpus:
    reader.cache_clear()  # type: ignore[attr-defined]
    return reader(folder)


def within(folder: str, files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}
