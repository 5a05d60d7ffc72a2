"""Every source of data, by the name that a task's TOML gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from posenc.api.entry_points import Registry, in_folder
from posenc.common.errors import ConfigError, DataError, PosencError, UnknownNameError
from posenc.common.seeds import derive
from posenc.config.data import OWN
from posenc.data.cache import cached
from posenc.data.corpus import Corpus, assemble
from posenc.data.pictures import Pictures
from posenc.data.sequences.generator import Generator
from posenc.data.sequences.source import Sequences, sequences
from posenc.data.text import ByteText

Data = ByteText | Corpus | Sequences | Pictures

HARNESS = ("arc-easy", "openbookqa", "mmlu", "bbh", "gpqa", "wikitext")
FILES = {  # read when first asked for
    "stdlib": "posenc.data.text:standard_library",
    "enwik8": "posenc.data.text:enwik8",
    "wmt14": "posenc.data.parallel:wmt14",
    "multi30k": "posenc.data.parallel:multi30k",
    "wikitext-2": "posenc.data.lines:wikitext_2",
    "wikitext-2-raw": "posenc.data.lines:wikitext_2_raw",
    "wikitext-103": "posenc.data.lines:wikitext_103",
    "wikitext-103-raw": "posenc.data.lines:wikitext_103_raw",
    "ptb": "posenc.data.lines:ptb",
    "english": "posenc.data.documents:english",
    "chinese": "posenc.data.documents:chinese",
    "cail2019-scm": "posenc.data.cail:cail2019_scm",
    **{f"glue/{name}": f"posenc.data.glue:{name}" for name in ("mrpc", "sst2", "qnli", "stsb", "qqp", "mnli")},
    **{f"images/{name}": f"posenc.data.pictures:{name}" for name in ("digits", "mnist", "cifar10", "cifar100")},
    "images/imagenet": "posenc.data.photographs:imagenet",
    "video/ucf101": "posenc.data.ucf101:ucf101",
    "video/moving-digits": "posenc.data.made.videos:moving_digits",
    **{f"lm-eval/{name}": f"posenc.data.questions:{name.replace('-', '_')}" for name in HARNESS},
    **{
        f"sequences/{name}": target
        for name, target in in_folder(Path(__file__).parent / "sequences", "posenc.data.sequences").items()
    },
}
SOURCES = Registry("data source", "posenc.sources", FILES)
"""Each is a function that takes the folder of --data, or None, and gives a Corpus, ByteText or Pictures; or a
Generator."""
GENERATED = {  # the function that makes it, and the names of its columns
    "documents": ("made.examples:documents", ("text",)),
    "translations": ("made.examples:translations", ("source", "target")),
    "paraphrases": ("made.examples:paraphrases", ("first", "second", "label")),
    "entailments": ("made.examples:entailments", ("first", "second", "label")),
    "answers": ("made.examples:answers", ("first", "second", "label")),
    "similarities": ("made.examples:similarities", ("first", "second", "label")),
    "sentiments": ("made.examples:sentiments", ("first", "label")),
    "case-documents": ("made.cases:documents", ("text",)),
    "cases": ("made.cases:cases", ("a", "b", "c", "label")),
    **{f"lm-eval/{name}": (f"made.questions:{name.replace('-', '_')}", ("task", "document")) for name in HARNESS},
}
ROWS = {"train": 6000, "validation": 600, "test": 1000}
"""Of what is generated, by split; each split from a seed of its own."""
TESTS = {"test": 100}
"""Of what nothing is trained on."""


def load(source: str, folder: Path | None, options: Mapping[str, Any] | None = None) -> Data:
    """The data that a task names; read once a process.

    Args:
        folder: where official files lie (--data or POSENC_DATA); None where none was given.
        options: of a generator of sequences.

    Raises:
        DataError: missing or damaged: what, and where to put it. UnknownNameError: no such source, or no such option.
        ConfigError: an option of another value, or of a source that has none.
    """
    kind = source.removeprefix("generated/")
    if source != kind and kind in GENERATED:
        _require_none(source, options)
        return _generated(kind)
    if source not in SOURCES.entries():
        made = [f"generated/{name}" for name in GENERATED]
        raise UnknownNameError("data source", source, [*SOURCES.entries(), *made, *OWN])
    entry = SOURCES.entry(source)
    loader: Any = SOURCES.load(source)
    if isinstance(loader, type) and issubclass(loader, Generator):
        return sequences(source, loader, options or {}, entry.package)
    _require_none(source, options)
    try:
        found = loader(folder)
    except PosencError:
        raise
    except Exception as error:  # another package's code may fail in any way
        if source in FILES:
            raise
        raise DataError(f"data source {source!r} of {entry.package}: {type(error).__name__}: {error}") from error
    if not isinstance(found, ByteText | Corpus | Pictures):
        raise DataError(
            f"data source {source!r} of {entry.package} gave {type(found).__name__}, no Corpus, ByteText or Pictures"
        )
    return found


def _require_none(source: str, options: Mapping[str, Any] | None) -> None:
    if options:
        raise ConfigError(f"data.options = {dict(options)}: data.source = {source!r} has none; generators have some")


@lru_cache(maxsize=2)
def _generated(kind: str) -> Corpus:
    """Text made by code from a seed; no row of one split stands in another. Kept by the digest of the code."""
    code = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parent / "made").glob("*.py"))]
    sizes = TESTS if kind.startswith("lm-eval/") else ROWS
    made = cached(
        "generated", [kind, sizes, code], lambda: {"json": np.frombuffer(_rows(kind, sizes).encode(), dtype=np.uint8)}
    )
    rows = {split: [tuple(row) for row in found] for split, found in json.loads(bytes(made["json"])).items()}
    return assemble(f"generated {kind}", GENERATED[kind][1], rows, generated=True, notes=["generated by posenc's code"])


def _rows(kind: str, sizes: Mapping[str, int]) -> str:
    module, name = GENERATED[kind][0].split(":")
    make = getattr(import_module(f"posenc.data.{module}"), name)
    rows: dict[str, list[tuple[object, ...]]] = {}
    seen: set[object] = set()
    for split, size in reversed(list(sizes.items())):
        drawn = size
        own: list[tuple[object, ...]] = []
        while len(own) < size:  # what another split has is drawn again
            made = make(derive(0, "generated", kind, split), drawn)
            own = [row for row in (row if isinstance(row, tuple) else (row,) for row in made) if row not in seen]
            drawn += 2 * (size - len(own))
        rows[split] = own[:size]
        seen.update(rows[split])
    return json.dumps({split: rows[split] for split in sizes}, ensure_ascii=False)
