"""Data sets of the Hugging Face hub, for who has none of the authors' files: one attempt, with the commit it gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posenc.common import telemetry
from posenc.common.errors import DataError, MissingDataError
from posenc.data.corpus import Row

TRAIN_ONLY = {"train": "train"}
USUAL = {"train": "train", "validation": "validation"}
WITH_TEST = {**USUAL, "test": "test"}


@dataclass(frozen=True)
class Source:
    """A data set of the hub.

    Attributes:
        columns: in the order of the corpus' fields; "translation.en" is the key "en" inside a column.
        splits: the corpus' names of splits and the hub's.
        revision: a branch. No commit was ever checked by hand, so none is written here: the one that the branch stood
            at is asked for, used, and said in the note.
    """

    repository: str
    config: str | None
    columns: tuple[str, ...]
    splits: Mapping[str, str]
    revision: str = "main"


def _glue(config: str, *columns: str, splits: Mapping[str, str] = USUAL) -> tuple[Source, ...]:
    return (Source("nyu-mll/glue", config, (*columns, "label"), splits),)


MATCHED = {"train": "train", "validation": "validation_matched", "validation_mismatched": "validation_mismatched"}
WIKIPEDIA = "wikimedia/wikipedia"

# CAIL2019-SCM has no copy there that is known to be its authors'.
HUB: dict[str, tuple[Source, ...]] = {
    "wmt14": (Source("wmt/wmt14", "de-en", ("translation.en", "translation.de"), WITH_TEST),),
    "multi30k": (Source("bentrevett/multi30k", None, ("en", "de"), WITH_TEST),),
    "glue/mrpc": _glue("mrpc", "sentence1", "sentence2"),
    "glue/sst2": _glue("sst2", "sentence"),
    "glue/qnli": _glue("qnli", "question", "sentence"),
    "glue/stsb": _glue("stsb", "sentence1", "sentence2"),
    "glue/qqp": _glue("qqp", "question1", "question2"),
    "glue/mnli": _glue("mnli", "premise", "hypothesis", splits=MATCHED),
    "english": (
        Source(WIKIPEDIA, "20231101.en", ("text",), TRAIN_ONLY),
        # The repository itself holds a script, which the library no longer runs; this branch is the hub's own copy.
        Source("bookcorpus/bookcorpus", "plain_text", ("text",), TRAIN_ONLY, "refs/convert/parquet"),
    ),
    "chinese": (Source(WIKIPEDIA, "20231101.zh", ("text",), TRAIN_ONLY),),
}


class Fetched(dict[str, "Split"]):
    """The splits of a data set of the hub, by the corpus' names.

    Attributes:
        identity: what tells its content from any other.
    """

    @property
    def identity(self) -> list[list[object]]:
        return [[split, list(rows.source.columns), str(rows.found._fingerprint)] for split, rows in self.items()]


class Split:
    """Rows of the hub's, read as they are asked for from what the hub's library has mapped into memory."""

    def __init__(self, found: Any, source: Source) -> None:
        self.found, self.source = found, source

    def __iter__(self) -> Iterator[Row]:
        number = 0
        for block in blocks(self.found, self.source.repository):
            for row in zip(*(_column(block, name) for name in self.source.columns), strict=True):
                number += 1
                if any(cell is None for cell in row):
                    columns = " or ".join(self.source.columns)
                    raise DataError(f"row {number} of the hub's {self.source.repository} has no {columns}")
                yield row


def blocks(found: Any, repository: str) -> Iterator[dict[str, list[Any]]]:
    """Columns of some rows at once.

    Raises:
        DataError: the library's copy of them cannot be read.
    """
    try:
        yield from found.iter(batch_size=1000)
    except Exception as error:  # the library raises its own, Arrow's and the system's errors
        message = str(error).strip().split("\n")[0] or "no message"
        raise DataError(f"the hub's {repository} cannot be read ({type(error).__name__}: {message})") from None


def fetch(name: str, folder: Path | None, looked: Sequence[str], advice: str) -> tuple[list[Fetched], str]:
    """Rows of every source of a data set by split, and the note that says which commits they are.

    Args:
        name: the corpus' name.
        folder: where its files were looked for before; None where no folder was given.
        looked: their names there.
        advice: what to put where.

    Raises:
        MissingDataError: it cannot be had: what was looked for where, why the hub failed, and what to do.
    """
    tried = (
        f"not found under {folder} ({', '.join(looked)})" if folder else "no --data DIR and no POSENC_DATA was given"
    )
    sources = HUB.get(name, ())
    if not sources:
        raise MissingDataError(f"{name}: {tried}, and no copy of it on the hub is known: {advice}")
    telemetry.off()
    current = sources[0]
    try:
        import datasets
        from huggingface_hub import HfApi

        commits = []
        for current in sources:  # one quick request each; the loader would try six times
            info = HfApi().dataset_info(current.repository, revision=current.revision, timeout=10)
            commits.append(getattr(info, "sha", None) or current.revision)
        loaded = []
        for current, commit in zip(sources, commits, strict=True):
            whole = datasets.load_dataset(current.repository, current.config, revision=commit)
            loaded.append(Fetched({ours: Split(whole[theirs], current) for ours, theirs in current.splits.items()}))
    except Exception as error:  # the libraries raise their own, their transport's and the system's errors
        message = str(error).strip().split("\n")[0] or "no message"
        raise MissingDataError(
            f"{name}: {tried}, and the hub's {current.repository} cannot be had"
            f" ({type(error).__name__}: {message}): {advice}"
        ) from None
    return loaded, "; ".join(_note(source, commit) for source, commit in zip(sources, commits, strict=True))


def _note(source: Source, commit: str) -> str:
    config = f" {source.config}" if source.config else ""
    at = f"{source.revision}, commit {commit}" if commit != source.revision else source.revision
    return f"from the hub's {source.repository}{config} ({at}): hub revision unverified"


def _column(split: Any, name: str) -> list[Any]:
    outer, _, inner = name.partition(".")
    return [cell[inner] for cell in split[outer]] if inner else list(split[outer])
