"""The harness's tests in their authors' layouts, and every way a file of them can be wrong."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from official import read, within, write

from posenc.common.errors import DataError, MissingDataError
from posenc.data import questions, sources

pytestmark = pytest.mark.usefixtures("fresh_readers")

LABELS = ("A", "B", "C", "D")


def science(answer: str = "B", stem: str = "Which?", labels: tuple[str, ...] = LABELS, **more: Any) -> str:
    choices = [{"text": f"answer {label}", "label": label} for label in labels]
    row = {"id": "x_1", "question": {"stem": stem, "choices": choices}, "answerKey": answer, **more}
    return json.dumps(row) + "\n"


ARC = {"ARC-Easy-Test.jsonl": science() + science("3", "What?", ("1", "2", "3"))}
OPEN_BOOK = {"test.jsonl": science("D", "The sun is")}
MMLU = {
    f"{subject}_test.csv": f'"Of {subject}, what?",one,"two, or so",three,four,C\n' for subject in questions.SUBJECTS
}
GPQA = {
    "gpqa_main.csv": "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    'r1,"Two lines\nof a question, with a comma",right,"wrong ""one""",wrong two,wrong three\n'
}
BBH = {
    f"{name}.json": json.dumps({"canary": "x", "examples": [{"input": f"{name}?", "target": "(A)"}]})
    for name in questions.HARD
}
PAGES = " \n = First = \n \n Some words , here . \n \n = = Part = = \n More words . \n = Second = \n \n Others . \n"
WIKITEXT = {"wiki.test.raw": PAGES}


def documents(load: Callable[[Path | None], Any], folder: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(task, json.loads(document)) for task, document in read(load, folder).rows["test"]]


class TestReleases:
    def test_arc(self, tmp_path: Path) -> None:
        found = documents(questions.arc_easy, write(tmp_path, within("arc", ARC)))
        assert found[0] == (
            "arc/arc_easy",
            {
                "id": "x_1",
                "question": "Which?",
                "choices": {"text": [f"answer {label}" for label in LABELS], "label": list(LABELS)},
                "answerKey": "B",
            },
        )
        assert found[1][1]["choices"]["label"] == ["1", "2", "3"] and found[1][1]["answerKey"] == "3"

    def test_arc_in_its_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "ARC-V1-Feb2018.zip", "w") as archive:
            archive.writestr("ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl", ARC["ARC-Easy-Test.jsonl"])
            archive.writestr("ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl", science())
        assert len(documents(questions.arc_easy, tmp_path)) == 2

    def test_openbookqa(self, tmp_path: Path) -> None:
        ((task, document),) = documents(questions.openbookqa, write(tmp_path, within("openbookqa", OPEN_BOOK)))
        assert task == "openbookqa/openbookqa"
        assert document["question_stem"] == "The sun is" and document["answerKey"] == "D"

    def test_mmlu(self, tmp_path: Path) -> None:
        found = documents(questions.mmlu, write(tmp_path, within("mmlu/test", MMLU)))
        assert [task for task, _ in found] == [f"mmlu/default/mmlu_{subject}" for subject in questions.SUBJECTS]
        assert found[0][1] == {
            "question": "Of abstract_algebra, what?",
            "subject": "abstract_algebra",
            "choices": ["one", "two, or so", "three", "four"],
            "answer": 2,
        }

    def test_gpqa(self, tmp_path: Path) -> None:
        ((task, document),) = documents(questions.gpqa, write(tmp_path, within("gpqa", GPQA)))
        assert task == "gpqa/zeroshot/gpqa_main_zeroshot"
        assert document["Question"] == "Two lines\nof a question, with a comma"
        assert document["Incorrect Answer 1"] == 'wrong "one"' and "Record ID" not in document

    def test_bbh(self, tmp_path: Path) -> None:
        found = documents(questions.bbh, write(tmp_path, within("bbh", BBH)))
        assert [task for task, _ in found] == [f"leaderboard/bbh_mc/{name}" for name in questions.HARD]
        assert found[0][1] == {"input": "boolean_expressions?", "target": "(A)"}

    def test_wikitext_is_cut_at_titles_and_nowhere_else(self, tmp_path: Path) -> None:
        found = documents(questions.wikitext, write(tmp_path, within("wikitext-2-raw", WIKITEXT)))
        pages = [document["page"] for _, document in found]
        assert [page.split("\n")[0] for page in pages] == [" = First = ", " = Second = "]
        assert " = = Part = = " in pages[0] and pages[1].endswith(" Others . ")

    @pytest.mark.parametrize(
        ("name", "sizes"),
        [("arc_easy", 2376), ("openbookqa", 500), ("mmlu", 14042), ("bbh", 5761), ("gpqa", 448), ("wikitext", 62)],
    )
    def test_a_part_of_a_release_is_said_to_be_one(self, tmp_path: Path, name: str, sizes: int) -> None:
        for place, files in (
            ("arc", ARC), ("openbookqa", OPEN_BOOK), ("mmlu/test", MMLU), ("gpqa", GPQA), ("bbh", BBH),
            ("wikitext-2-raw", WIKITEXT),
        ):  # fmt: skip
            write(tmp_path, within(place, files))
        found = getattr(questions, name)(tmp_path)
        assert found.expected == {"test": sizes} and "not comparable with published figures" in found.note
        assert set(found.rows) == {"test"} and found.fields == ("task", "document")


class TestFaults:
    @pytest.mark.parametrize("name", sources.HARNESS)
    def test_what_is_not_there_is_asked_for(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(MissingDataError, match=rf"lm-eval/{name} is not at hand: --data .* has no \w+"):
            sources.load(f"lm-eval/{name}", tmp_path)
        with pytest.raises(MissingDataError, match="give --data DIR, or POSENC_DATA"):
            sources.load(f"lm-eval/{name}", None)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (science()[:-9], "no whole JSON object"),
            ("[]\n", "no JSON object, but"),
            ('{"id": "x"}\n', "'question': no JSON object"),
            (science(labels=("A",)), "'choices' must be a list of at least two"),
            (science(answer="E"), "answerKey is 'E', and the choices are A, B, C, D"),
            (science(answer=""), "'answerKey' must be a text"),
            (science(stem=" "), "'stem' must be a text"),
        ],
    )
    def test_a_wrong_line_is_placed(self, tmp_path: Path, line: str, message: str) -> None:
        write(tmp_path, within("arc", {"ARC-Easy-Test.jsonl": science() + line}))
        with pytest.raises(DataError, match=rf"ARC-Easy-Test\.jsonl, line 2.*{message}"):
            questions.arc_easy(tmp_path)

    @pytest.mark.parametrize("row", ["what?,a,b,c,A\n", "what?,a,b,c,d,E\n", "what?,a,b,c,d,\n", "what?,a,b,c,d,AB\n"])
    def test_a_wrong_row_of_mmlu_is_placed(self, tmp_path: Path, row: str) -> None:
        first = "abstract_algebra_test.csv"
        write(tmp_path, within("mmlu/test", {**MMLU, first: MMLU[first] + row}))
        with pytest.raises(DataError, match=r"abstract_algebra_test\.csv, line 2: a question, four choices"):
            questions.mmlu(tmp_path)

    def test_a_subject_that_is_missing_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, within("mmlu/test", {name: text for name, text in MMLU.items() if "virology" not in name}))
        with pytest.raises(DataError, match=r"is there, but not the virology_test\.csv that belongs to it"):
            questions.mmlu(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (GPQA["gpqa_main.csv"].replace("Correct Answer", "Answer", 1), "no column 'Correct Answer' in the header"),
            (GPQA["gpqa_main.csv"] + "r2,only two\n", "line 4: 2 columns, and the header has 6"),
            (GPQA["gpqa_main.csv"] + "r2, ,a,b,c,d\n", "line 4: 'Question' must be a text"),
            ('Question,"Correct', "line 1: no CSV"),
        ],
    )
    def test_a_wrong_row_of_gpqa_is_placed(self, tmp_path: Path, text: str, message: str) -> None:
        write(tmp_path, within("gpqa", {"gpqa_main.csv": text}))
        with pytest.raises(DataError, match=message):
            questions.gpqa(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"examples": [', "no whole JSON object"),
            ("[]", "no JSON object"),
            ('{"examples": []}', "'examples' must be a list of at least one"),
            ('{"examples": [{"input": "x"}]}', "example 1: 'target' must be a text"),
        ],
    )
    def test_a_wrong_file_of_bbh_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        write(tmp_path, within("bbh", {**BBH, "navigate.json": text}))
        with pytest.raises(DataError, match=rf"navigate\.json.*{message}"):
            questions.bbh(tmp_path)


@pytest.mark.parametrize("name", sources.HARNESS)
def test_what_is_made_has_the_form_of_the_release(name: str) -> None:
    found = sources.load(f"generated/lm-eval/{name}", None)
    rows = [(task, json.loads(document)) for task, document in found.rows["test"]]  # type: ignore[union-attr]
    assert found.generated and len(rows) == 100 and len({document for _, document in found.rows["test"]}) == 100  # type: ignore[union-attr]
    if name in ("arc-easy", "openbookqa"):
        answers = [document["choices"]["label"].index(document["answerKey"]) for _, document in rows]
    elif name == "mmlu":
        answers = [document["answer"] for _, document in rows]
    elif name == "bbh":
        answers = ["AB".index(document["target"][1]) for _, document in rows]
    else:
        return
    assert all(answers.count(answer) > 10 for answer in set(answers)) and len(set(answers)) == (
        2 if name == "bbh" else 4
    )
