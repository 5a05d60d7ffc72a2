"""CAIL's triples in their authors' layout, and every way a file of them can be wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official import cells, read, within, write

from posenc.common.errors import DataError
from posenc.data import cail

pytestmark = pytest.mark.usefixtures("fresh_readers")


def triple(a: str = "甲", b: str = "乙", c: str = "丙", label: str = "B") -> str:
    return json.dumps({"A": a, "B": b, "C": c, "label": label}, ensure_ascii=False) + "\n"


CAIL = {"train.json": triple(), "valid.json": triple("丁"), "test.json": triple("戊", "己", "庚", "C")}


class TestCail:
    @given(st.lists(st.tuples(cells, cells, cells, st.sampled_from("BC")), min_size=1, max_size=5), st.booleans())
    def test_any_triples_come_back(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str]], plain: bool
    ) -> None:
        keys = ("A", "B", "C", "label")
        content = "".join(json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=not plain) + "\n" for row in rows)
        folder = write(tmp_path_factory.mktemp("cail"), within("cail2019-scm", {**CAIL, "train.json": content}))
        found = read(cail.cail2019_scm, folder)
        assert found.rows["train"] == rows
        assert found.fields == ("a", "b", "c", "label")
        assert found.expected == {"train": 5102, "validation": 1500, "test": 1536}

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (triple()[:-8], r"no whole JSON object \(Unterminated string"),
            ("\n", "no whole JSON object"),
            ("[" * 100_000 + "\n", "no whole JSON object"),
            ('["A", "B"]\n', "no JSON object"),
            ('{"A": "a", "B": "b", "label": "B"}\n', "no 'C'; it has 'A', 'B', 'label'"),
            ('{"A": "a", "B": "b", "C": "c"}\n', "no 'label'"),
            (triple(c=" "), "'C' is empty"),
            ('{"A": 3, "B": "b", "C": "c", "label": "B"}\n', "'A' is no text"),
            ('{"A": "\\ud83d", "B": "b", "C": "c", "label": "B"}\n', "'A' has half a character in it"),
            (triple(label="A"), "no such label 'A'; known: B, C"),
        ],
    )
    def test_a_wrong_line_is_placed(self, tmp_path: Path, line: str, message: str) -> None:
        write(tmp_path, within("cail2019-scm", {**CAIL, "valid.json": triple() + line}))
        with pytest.raises(DataError, match=rf"valid\.json, line 2: {message}"):
            cail.cail2019_scm(tmp_path)

    @pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"\xd6\xd0\n", "line 1: not UTF-8")])
    def test_an_empty_or_foreign_file_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        write(tmp_path, within("cail2019-scm", {**CAIL, "test.json": content}))
        with pytest.raises(DataError, match=rf"test\.json.*{message}"):
            cail.cail2019_scm(tmp_path)

    def test_a_missing_split_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, within("cail2019-scm", {"SCM_5k.json": triple(), "test.json": triple()}))
        with pytest.raises(DataError, match=r"SCM_5k\.json is there, but not the valid\.json or dev\.json"):
            cail.cail2019_scm(tmp_path)

    def test_the_archive_and_the_contests_form_give_the_same(self, tmp_path: Path) -> None:
        plain = cail.cail2019_scm(write(tmp_path / "a", within("cail2019-scm", CAIL)))
        (tmp_path / "b/cail2019-scm").mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / "b/cail2019-scm/CAIL2019-SCM.zip", "w") as archive:
            for name, content in CAIL.items():
                archive.writestr(f"CAIL2019-SCM/{name.replace('valid', 'dev')}", content)
        contest = {}
        for name, content in CAIL.items():
            record = json.loads(content)
            contest[f"{name[:-5]}/ground_truth.txt"] = record.pop("label") + "\n"
            contest[f"{name[:-5]}/input.txt"] = json.dumps(record) + "\n"
        other = cail.cail2019_scm(write(tmp_path / "c", within("cail2019-scm", contest)))
        assert plain.digest == cail.cail2019_scm(tmp_path / "b").digest == other.digest
        assert plain.note.endswith("; 1 validation rows share a text with training")
        write(tmp_path, {"c/cail2019-scm/test/ground_truth.txt": "B\nC\n"})
        with pytest.raises(DataError, match=r"input\.txt has 1 lines and .*ground_truth\.txt 2"):
            read(cail.cail2019_scm, tmp_path / "c")
        write(tmp_path, {"c/cail2019-scm/test/ground_truth.txt": "D\n"})
        with pytest.raises(DataError, match=r"ground_truth\.txt, line 1: no such label 'D'"):
            read(cail.cail2019_scm, tmp_path / "c")
