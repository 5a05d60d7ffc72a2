"""The tests of lm-evaluation-harness in their authors' files: ARC, OpenBookQA, MMLU, BBH, GPQA, and WikiText by page.

A row is a definition of the harness (its file under `lm_eval/tasks`) and a document, as JSON, in the form that this
definition reads from the hub. Tests alone: nothing is trained on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from posenc.common.errors import DataError, MissingDataError
from posenc.data.corpus import Corpus, File, Row, check_folder, find, identities, keep, missing, need, stream
from posenc.data.parsing import json_object, quoted, require_object

FIELDS = ("task", "document")
LETTERS = "ABCD"
Document = dict[str, Any]

# The subjects of MMLU (Hendrycks et al. 2021, table of the appendix), as its files are called.
SUBJECTS = (
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
)  # fmt: skip
# Of BBH (Suzgun et al. 2022) those with a closed set of answers; the harness's leaderboard has no other three either.
HARD = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "formal_fallacies",
    "geometric_shapes", "hyperbaton", "logical_deduction_five_objects", "logical_deduction_seven_objects",
    "logical_deduction_three_objects", "movie_recommendation", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies",
)  # fmt: skip


def _reader(
    name: str, places: tuple[str, ...], files: tuple[str, ...], size: int,
    read: Callable[[File, str], Iterable[tuple[str, Document]]], advice: str,
) -> Callable[[Path | None], Corpus]:  # fmt: skip
    """What the table of sources calls: reads a release once a process.

    Args:
        places: folders, or zip archives, under DIR. files: that all must be there. size: documents of the release.
        read: of a file and its name the definitions and documents.
    """

    @lru_cache(maxsize=1)
    def load(folder: Path | None) -> Corpus:
        check_folder(folder)
        first = next((one for file in files if (one := find(folder, places, [file]))), None)
        if first is None:
            raise MissingDataError(missing(name, folder, advice))
        found = [need(folder, places, [file], first) for file in files]

        def rows(notes: list[str]) -> Iterator[tuple[str, Row]]:
            for file, told in zip(found, files, strict=True):
                for task, document in read(file, told):
                    yield "test", (task, json.dumps(document, ensure_ascii=False))

        return keep(name, FIELDS, ("test",), [identities(found)], rows, {"test": (size,)})

    return load


def _objects(file: File) -> Iterator[tuple[str, Document]]:
    """The objects of JSON lines, each with where it stands."""
    for number, line in enumerate(stream(file), 1):
        where = f"{file}, line {number}"
        yield where, json_object(line, where)


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key!r} must be a text, and is {json.dumps(value)[:60]}")
    return value


def _science(task: str, stem: str) -> Callable[[File, str], Iterator[tuple[str, Document]]]:
    """The Allen Institute's form of ARC and of OpenBookQA; `stem` is what the hub calls the question."""

    def read(file: File, name: str) -> Iterator[tuple[str, Document]]:
        for where, found in _objects(file):
            question = require_object(found.get("question"), f"{where}: 'question'")
            given = question.get("choices")
            if not isinstance(given, list) or len(given) < 2:
                raise DataError(f"{where}: 'choices' must be a list of at least two")
            choices = [require_object(choice, f"{where}: 'choices'") for choice in given]
            texts, labels = ([_text(choice, key, where) for choice in choices] for key in ("text", "label"))
            answer = _text(found, "answerKey", where)
            if answer not in labels:
                raise DataError(f"{where}: answerKey is {answer!r}, and the choices are {', '.join(labels)}")
            about = {"id": str(found.get("id", "")), "answerKey": answer}
            yield task, {**about, stem: _text(question, "stem", where), "choices": {"text": texts, "label": labels}}

    return read


def _of_mmlu(file: File, name: str) -> Iterator[tuple[str, Document]]:
    """question, A, B, C, D, answer; without a header."""
    subject = Path(name).name.removesuffix("_test.csv")
    for number, cells in quoted(file):
        if len(cells) != 6 or cells[5] not in tuple(LETTERS):
            raise DataError(f"{file}, line {number}: a question, four choices and A, B, C or D must stand there")
        document = {"question": cells[0], "subject": subject, "choices": cells[1:5], "answer": LETTERS.index(cells[5])}
        yield f"mmlu/default/mmlu_{subject}", document


_GPQA = ("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def _of_gpqa(file: File, name: str) -> Iterator[tuple[str, Document]]:
    """Columns by their names; the harness puts the four answers into an order of its own."""
    rows = quoted(file)
    number, header = next(rows)
    if absent := [column for column in _GPQA if column not in header]:
        raise DataError(f"{file}, line {number}: no column {absent[0]!r} in the header")
    for number, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{file}, line {number}: {len(cells)} columns, and the header has {len(header)}")
        found = dict(zip(header, cells, strict=True))
        yield "gpqa/zeroshot/gpqa_main_zeroshot", {key: _text(found, key, f"{file}, line {number}") for key in _GPQA}


def _of_bbh(file: File, name: str) -> Iterator[tuple[str, Document]]:
    """{"canary": ..., "examples": [{"input": ..., "target": ...}]}."""
    try:
        whole = json_object(file.read().decode(), str(file))
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: no whole JSON object ({error})") from None
    examples = whole.get("examples")
    if not isinstance(examples, list) or not examples:
        raise DataError(f"{file}: 'examples' must be a list of at least one")
    for number, example in enumerate(examples, 1):
        where = f"{file}, example {number}"
        found = require_object(example, where)
        document = {key: _text(found, key, where) for key in ("input", "target")}
        yield f"leaderboard/bbh_mc/{Path(name).stem}", document


def _of_wikitext(file: File, name: str) -> Iterator[tuple[str, Document]]:
    """Pages: all from a title (`= Title =`) to the next, as EleutherAI's `wikitext_document_level` cuts them."""
    page: list[str] = []
    for line in stream(file):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare.startswith("= ") and bare.endswith(" ="):
            yield from _page(page)
            page = []
        page.append(line)
    yield from _page(page)


def _page(lines: list[str]) -> Iterator[tuple[str, Document]]:
    text = "\n".join(lines)
    if text.strip():
        yield "wikitext/wikitext", {"page": text}


arc_easy = _reader(
    "lm-eval/arc-easy", ("arc/ARC-Easy", "arc", "ARC-V1-Feb2018-2/ARC-Easy", "ARC-V1-Feb2018"),
    ("ARC-Easy-Test.jsonl",), 2_376, _science("arc/arc_easy", "question"),
    "arc/ARC-Easy-Test.jsonl of ARC-V1-Feb2018.zip (allenai.org/data/arc)",
)  # fmt: skip
openbookqa = _reader(
    "lm-eval/openbookqa", ("openbookqa", "OpenBookQA-V1-Sep2018/Data/Main", "OpenBookQA-V1-Sep2018"),
    ("test.jsonl",), 500, _science("openbookqa/openbookqa", "question_stem"),
    "openbookqa/test.jsonl, which is Data/Main/test.jsonl of OpenBookQA-V1-Sep2018.zip (allenai.org/data/open-book-qa)",
)  # fmt: skip
mmlu = _reader(
    "lm-eval/mmlu", ("mmlu/test", "mmlu/data/test", "mmlu"), tuple(f"{subject}_test.csv" for subject in SUBJECTS),
    14_042, _of_mmlu, "mmlu/test/*_test.csv, which is data/test of data.tar (github.com/hendrycks/test)",
)  # fmt: skip
bbh = _reader(
    "lm-eval/bbh", ("bbh", "BIG-Bench-Hard/bbh"), tuple(f"{name}.json" for name in HARD), 5_761, _of_bbh,
    "bbh/*.json of its release (github.com/suzgunmirac/BIG-Bench-Hard)",
)  # fmt: skip
gpqa = _reader(
    "lm-eval/gpqa", ("gpqa", "gpqa/dataset"), ("gpqa_main.csv",), 448, _of_gpqa,
    "gpqa/gpqa_main.csv of dataset.zip (github.com/idavidrein/gpqa), whose password its page tells",
)  # fmt: skip
wikitext = _reader(
    "lm-eval/wikitext", ("wikitext-2-raw", "wikitext-2-raw-v1"), ("wiki.test.raw",), 62, _of_wikitext,
    "wikitext-2-raw/wiki.test.raw, or wikitext-2-raw-v1.zip",
)  # fmt: skip
