"""The six tasks of GLUE that the RoFormer paper fine-tunes on, from GLUE's own files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, count
from pathlib import Path

from posenc.common.errors import DataError
from posenc.data import hub
from posenc.data.corpus import Corpus, File, Row, by_split, check_folder, counted, find, identities, keep, need, stream

BINARY = {"0": 0, "1": 1}
PAIR = ("first", "second", "label")
LAST_SCORE = 5.0


@dataclass(frozen=True)
class Task:
    """A task as GLUE's files have it.

    Attributes:
        columns: the header's names of the columns wanted, the label's last.
        labels: the numbers of its labels; None for scores from 0 to 5.
        official: rows by split; more than one number where releases differ.
        archive: the name of GLUE's zip archive, where it is not the folder's.
        validation: splits besides "train", and their files.
        broken: rows short of columns are the release's own, and left out.
        gaps: empty sentences are the release's own, and kept.
        undecided: a label that means "no agreement", whose rows are left out.
    """

    name: str
    folder: str
    columns: tuple[str, ...]
    labels: Mapping[str, int] | None
    official: Mapping[str, tuple[int, ...]]
    archive: str = ""
    fields: tuple[str, ...] = PAIR
    validation: Mapping[str, str] = field(default_factory=lambda: {"validation": "dev.tsv"})
    broken: bool = False
    gaps: bool = False
    undecided: str | None = None

    @property
    def places(self) -> list[str]:
        """Where its files may lie; also the stems of zip archives."""
        names = [self.folder, self.archive] if self.archive else [self.folder]
        return [f"{root}{name}" for name in names for root in ("glue/", "", "glue_data/")]

    @property
    def advice(self) -> str:
        """What to put where."""
        return f"put GLUE's {self.folder} (gluebenchmark.com/tasks) at DIR/glue/{self.folder}"


MRPC = Task(
    "glue/mrpc", "MRPC", ("#1 String", "#2 String", "Quality"), BINARY, {"train": (3668,), "validation": (408,)}
)
SST2 = Task(
    "glue/sst2",
    "SST-2",
    ("sentence", "label"),
    BINARY,
    {"train": (67_349,), "validation": (872,)},
    fields=("first", "label"),
)
# The second release (QNLIv2), which replaced the first.
QNLI = Task(
    "glue/qnli",
    "QNLI",
    ("question", "sentence", "label"),
    {"entailment": 0, "not_entailment": 1},
    {"train": (104_743,), "validation": (5463,)},
    archive="QNLIv2",
)
STSB = Task("glue/stsb", "STS-B", ("sentence1", "sentence2", "score"), None, {"train": (5749,), "validation": (1500,)})
# Some questions have line ends in them: their rows lie broken on several lines, and loaders leave those out. Two
# other rows have an empty second question and are counted among the 363,846; some copies have three rows more.
QQP = Task(
    "glue/qqp",
    "QQP",
    ("question1", "question2", "is_duplicate"),
    BINARY,
    {"train": (363_846, 363_849), "validation": (40_430,)},
    archive="QQP-clean",
    broken=True,
    gaps=True,
)
# "-" is MultiNLI's mark where its annotators did not agree; its authors leave such rows out, GLUE's files have none.
MNLI = Task(
    "glue/mnli",
    "MNLI",
    ("sentence1", "sentence2", "gold_label"),
    {"entailment": 0, "neutral": 1, "contradiction": 2},
    {"train": (392_702,), "validation": (9815,), "validation_mismatched": (9832,)},
    validation={"validation": "dev_matched.tsv", "validation_mismatched": "dev_mismatched.tsv"},
    undecided="-",
)


@lru_cache(maxsize=1)
def mrpc(folder: Path | None) -> Corpus:
    """Do two sentences say the same? Fields "first", "second" and "label": 1 where they do.

    From GLUE's train.tsv and dev.tsv, or from Microsoft's own files. The labels of its test file are public, but GLUE
    hides them, and published figures for MRPC's dev set hold it out: it is not read.

    Raises:
        DataError: files are missing or damaged: which, and where.
    """
    check_folder(folder)
    original = find(folder, MRPC.places, ["msr_paraphrase_train.txt"])
    if original is None or find(folder, MRPC.places, ["train.tsv"]) is not None:
        return _task(MRPC, folder)
    chosen = find(folder, MRPC.places, ["dev_ids.tsv", "mrpc_dev_ids.tsv"])
    beside = chosen or need(folder, MRPC.places, ["dev_ids.tsv", "msr_paraphrase_test.txt"], original)

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        rows = _rows(MRPC, original, Counter())
        if chosen is None:
            notes.append("Microsoft's split: its test is validation")
            return by_split({"train": rows, "validation": _rows(MRPC, beside, Counter())})
        # GLUE's dev set: the rows whose two numbers are in its list.
        held_out = {tuple(line.split("\t")) for line in stream(chosen)}
        header, *body = (line.split("\t") for line in stream(original))
        first, second = header.index("#1 ID"), header.index("#2 ID")
        return (
            ("validation" if (cells[first], cells[second]) in held_out else "train", row)
            for cells, row in zip(body, rows, strict=True)
        )

    return keep(MRPC.name, MRPC.fields, ("train", "validation"), identities([original, beside]), read, MRPC.official)


@lru_cache(maxsize=1)
def sst2(folder: Path | None) -> Corpus:
    """Does a phrase of a review praise? Fields "first" and "label": 1 where it does. Raises as `mrpc`."""
    return _task(SST2, folder)


@lru_cache(maxsize=1)
def qnli(folder: Path | None) -> Corpus:
    """Does a sentence answer a question? Fields "first" (question), "second" and "label": 0 where it does.

    Raises as `mrpc`.
    """
    return _task(QNLI, folder)


@lru_cache(maxsize=1)
def stsb(folder: Path | None) -> Corpus:
    """How near are two sentences in meaning? Fields "first", "second" and "label": 0.0 to 5.0. Raises as `mrpc`."""
    return _task(STSB, folder)


@lru_cache(maxsize=1)
def qqp(folder: Path | None) -> Corpus:
    """Do two questions ask the same? Fields "first", "second" and "label": 1 where they do. Raises as `mrpc`.

    Two training rows of the release have an empty second question; they are kept, as GLUE counts them.
    """
    return _task(QQP, folder)


@lru_cache(maxsize=1)
def mnli(folder: Path | None) -> Corpus:
    """Does the first sentence entail the second (0), say nothing on it (1) or contradict it (2)? Raises as `mrpc`.

    Fields "first", "second" and "label"; "validation" is the matched set, "validation_mismatched" the other.
    """
    return _task(MNLI, folder)


TASKS = {"mrpc": mrpc, "sst2": sst2, "qnli": qnli, "stsb": stsb, "qqp": qqp, "mnli": mnli}


def _task(task: Task, folder: Path | None) -> Corpus:
    # GLUE's test labels are hidden: test.tsv is not read.
    check_folder(folder)
    wanted = {"train": "train.tsv", **task.validation}
    files = {split: find(folder, task.places, [name]) for split, name in wanted.items()}
    one = next((file for file in files.values() if file is not None), None)
    if one is None:
        looked = [f"glue/{task.folder}/{name}" for name in wanted.values()]
        (fetched,), note = hub.fetch(task.name, folder, looked, task.advice)

        def hubs(notes: list[str]) -> Iterator[tuple[str, Row]]:
            notes.append(note)
            return _from_hub(task, fetched)

        return keep(task.name, task.fields, tuple(fetched), [note, fetched.identity], hubs, task.official)
    # Of the mismatched set the note says where there is none.
    there = {
        split: need(folder, task.places, [name], one)
        for split, name in wanted.items()
        if split != "validation_mismatched" or files[split] is not None
    }

    def read(notes: list[str]) -> Iterator[tuple[str, Row]]:
        for split, file in there.items():
            oddities: Counter[str] = Counter()
            for row in _rows(task, file, oddities):
                yield split, row
            notes += [f"{split}: {what}" for what in counted(oddities)]

    return keep(task.name, task.fields, tuple(there), identities(there.values()), read, task.official)


def _rows(task: Task, file: File, oddities: Counter[str]) -> Iterator[Row]:
    """The rows of one file; what the release itself has wrong is counted in `oddities`.

    GLUE's files are not quoted: a quotation mark is content, and a tab always ends a cell.
    """
    body = stream(file)
    names = next(body).split("\t")
    missing = [column for column in task.columns if column not in names]
    if missing:
        raise DataError(f"{file}, line 1: no column {missing[0]!r}; the header has {', '.join(map(repr, names))}")
    places = [names.index(column) for column in task.columns]
    ahead: Iterator[str | None] = chain(body, [None])
    line = next(ahead)
    for number in count(2):
        if line is None:
            return
        cells, line = line.split("\t"), next(ahead)
        if len(cells) != len(names):
            if task.broken and len(cells) < len(names) and line is not None:  # a short last line was cut off
                oddities["lines of broken rows left out"] += 1
                continue
            raise DataError(f"{file}, line {number}: {len(cells)} columns, and the header has {len(names)}")
        *texts, label = [cells[place] for place in places]
        if task.undecided is not None and label == task.undecided:
            oddities["rows without an agreed label left out"] += 1
            continue
        for column, sentence in zip(task.columns, texts, strict=False):
            if not sentence.strip():
                if not task.gaps:
                    raise DataError(f"{file}, line {number}: {column!r} is empty")
                oddities[f"rows with an empty {column} kept"] += 1
        yield (*texts, _label(task, label, f"{file}, line {number}"))


def _label(task: Task, given: str, where: str) -> int | float:
    if task.labels is not None:
        if given not in task.labels:
            raise DataError(f"{where}: no such label {given!r}; known: {', '.join(task.labels)}")
        return task.labels[given]
    try:
        score = float(given)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= LAST_SCORE:  # NaN is neither
        raise DataError(f"{where}: no such score {given!r}; must be a number from 0 to {LAST_SCORE:g}")
    return score


def _from_hub(task: Task, fetched: Mapping[str, Iterable[Row]]) -> Iterator[tuple[str, Row]]:
    """The hub's rows with labels as the files have them."""
    known = set(task.labels.values()) if task.labels is not None else None
    for split, content in fetched.items():
        for number, row in enumerate(content, 1):
            if known is None:  # its scores are single precision: 3.8 is 3.7999999523
                row = (*row[:-1], round(float(row[-1]), 5))
            if row[-1] not in known if known is not None else not 0 <= row[-1] <= LAST_SCORE:
                raise DataError(f"{task.name}: row {number} of the hub's {split} has the label {row[-1]!r}")
            yield split, row
