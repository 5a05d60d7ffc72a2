"""GLUE's tables in their authors' layouts, and every way one can be wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official import FILES, cells, read, within, write

from posenc.common.errors import DataError
from posenc.data import glue

pytestmark = pytest.mark.usefixtures("fresh_readers")


# By task: its folder, the header, a row of two texts and a label, and its labels.
HEADERS: dict[str, tuple[str, str, str, dict[str, float]]] = {
    "mrpc": ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{2}\t1\t2\t{0}\t{1}", {"0": 0, "1": 1}),
    "sst2": ("SST-2", "sentence\tlabel", "{0}\t{2}", {"0": 0, "1": 1}),
    "qnli": (
        "QNLI",
        "index\tquestion\tsentence\tlabel",
        "7\t{0}\t{1}\t{2}",
        {"entailment": 0, "not_entailment": 1},
    ),
    "stsb": (
        "STS-B",
        "index\tgenre\tsentence1\tsentence2\tscore",
        "7\tnews\t{0}\t{1}\t{2}",
        {"0": 0.0, "3.800": 3.8, "5.000": 5.0},
    ),
    "qqp": ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "7\t8\t9\t{0}\t{1}\t{2}", {"0": 0, "1": 1}),
    "mnli": (
        "MNLI",
        "index\tpairID\tsentence1\tsentence2\tlabel1\tgold_label",
        "7\t\t{0}\t{1}\tneutral\t{2}",
        {"entailment": 0, "neutral": 1, "contradiction": 2},
    ),
}


def task_files(name: str, train: str) -> dict[str, str]:
    """A task's files with these training lines and one row for validation."""
    folder, header, row, labels = HEADERS[name]
    dev = "dev_matched.tsv" if name == "mnli" else "dev.tsv"
    return {
        f"glue/{folder}/train.tsv": f"{header}\n{train}",
        f"glue/{folder}/{dev}": f"{header}\n{row.format('first text', 'second text', next(iter(labels)))}\n",
    }


class TestGlue:
    @pytest.mark.parametrize("name", HEADERS)
    @given(pairs=st.lists(st.tuples(cells, cells, FILES), min_size=1, max_size=5), mark=st.booleans())
    def test_any_text_and_every_label_come_back(
        self, tmp_path_factory: pytest.TempPathFactory, name: str, pairs: list[tuple[str, str, int]], mark: bool
    ) -> None:
        _, _, row, labels = HEADERS[name]
        keys = list(labels)
        chosen = [(first, second, keys[number % len(keys)]) for first, second, number in pairs]
        files = task_files(name, "".join(row.format(*three) + "\n" for three in chosen))
        if mark:
            files = {path: f"\ufeff{content}" for path, content in files.items()}
        found = read(glue.TASKS[name], write(tmp_path_factory.mktemp("glue"), files))
        texts = 1 if name == "sst2" else 2
        assert found.fields == (("first", "label") if texts == 1 else ("first", "second", "label"))
        assert found.rows["train"] == [(*three[:texts], labels[three[2]]) for three in chosen]
        assert type(found.rows["train"][0][-1]) is (float if name == "stsb" else int)
        assert list(found.rows) == ["train", "validation"]

    @pytest.mark.parametrize("name", HEADERS)
    def test_a_row_with_too_many_columns_is_placed(self, tmp_path: Path, name: str) -> None:
        row = HEADERS[name][2].format("a", "b", next(iter(HEADERS[name][3])))
        write(tmp_path, task_files(name, f"{row}\n{row}\tmore\n"))
        with pytest.raises(DataError, match=r"train\.tsv, line 3: \d+ columns, and the header has"):
            glue.TASKS[name](tmp_path)

    @pytest.mark.parametrize("name", HEADERS)
    def test_a_last_row_cut_off_is_placed(self, tmp_path: Path, name: str) -> None:
        row = HEADERS[name][2].format("a", "b", next(iter(HEADERS[name][3])))
        write(tmp_path, task_files(name, f"{row}\n{row.rpartition(chr(9))[0]}"))
        with pytest.raises(DataError, match=r"train\.tsv, line 3: \d+ columns, and the header has"):
            glue.TASKS[name](tmp_path)

    @pytest.mark.parametrize(
        ("name", "label", "message"),
        [
            ("mrpc", "2", "no such label '2'; known: 0, 1"),
            ("sst2", "", "no such label ''"),
            ("qnli", "Entailment", "no such label 'Entailment'; known: entailment, not_entailment"),
            ("mnli", "1", "no such label '1'; known: entailment, neutral, contradiction"),
            ("qqp", "yes", "no such label 'yes'"),
            ("stsb", "five", "no such score 'five'; must be a number from 0 to 5"),
            ("stsb", "nan", "no such score 'nan'"),
            ("stsb", "inf", "no such score 'inf'"),
            ("stsb", "5.001", r"no such score '5\.001'"),
            ("stsb", "-0.1", r"no such score '-0\.1'"),
        ],
    )
    def test_a_label_that_is_none_is_placed(self, tmp_path: Path, name: str, label: str, message: str) -> None:
        write(tmp_path, task_files(name, HEADERS[name][2].format("a", "b", label) + "\n"))
        with pytest.raises(DataError, match=rf"train\.tsv, line 2: {message}"):
            glue.TASKS[name](tmp_path)

    @pytest.mark.parametrize("name", sorted(set(HEADERS) - {"qqp"}))
    def test_an_empty_sentence_is_placed(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, task_files(name, HEADERS[name][2].format(" ", "b", next(iter(HEADERS[name][3]))) + "\n"))
        with pytest.raises(DataError, match=r"train\.tsv, line 2: '.*' is empty"):
            glue.TASKS[name](tmp_path)

    def test_what_quora_has_wrong_is_counted(self, tmp_path: Path) -> None:
        lines = [
            "1\t2\t3\tWhy?\tWhy not?\t1",
            '4\t5\t6\tWas he"',
            '"\tWho was he?\t0',
            "7\t8\t9\tHow?\t\t0",
            "1\t2\t3\ta\tb\t0",
        ]
        found = glue.qqp(write(tmp_path, task_files("qqp", "\n".join(lines) + "\n")))
        assert found.rows["train"] == [("Why?", "Why not?", 1), ("How?", "", 0), ("a", "b", 0)]
        assert "train: 2 lines of broken rows left out" in found.note
        assert "train: 1 rows with an empty question2 kept" in found.note

    def test_rows_without_agreement_are_counted_and_the_other_set_is_read_where_it_is(self, tmp_path: Path) -> None:
        _, header, row, _ = HEADERS["mnli"]
        write(tmp_path, task_files("mnli", f"{row.format('a', 'b', '-')}\n{row.format('c', 'd', 'neutral')}\n"))
        found = glue.mnli(tmp_path)
        assert found.rows["train"] == [("c", "d", 1)]
        assert "train: 1 rows without an agreed label left out" in found.note
        assert "none of the 9,832 validation_mismatched rows" in found.note
        write(tmp_path, {"glue/MNLI/dev_mismatched.tsv": f"{header}\n{row.format('e', 'f', 'contradiction')}\n"})
        assert read(glue.mnli, tmp_path).rows["validation_mismatched"] == [("e", "f", 2)]

    def test_a_header_without_the_column_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, {**task_files("sst2", "a\t1\n"), "glue/SST-2/dev.tsv": "index\tsentence\n0\ta\n"})
        with pytest.raises(DataError, match=r"dev\.tsv, line 1: no column 'label'; the header has 'index', 'sentence'"):
            glue.sst2(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"sentence\tlabel\n", b"sentence\tlabel\na\t1\n\xff\t1\n"])
    def test_an_empty_or_foreign_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path, {**task_files("sst2", ""), "glue/SST-2/train.tsv": content})
        with pytest.raises(DataError, match=r"train\.tsv is empty|no rows for its train|train\.tsv, line 3: not UTF-8"):
            glue.sst2(tmp_path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, task_files("sst2", "a\t1\n"))
        (tmp_path / "glue/SST-2/dev.tsv").unlink()
        with pytest.raises(DataError, match=r"train\.tsv is there, but not the dev\.tsv"):
            glue.sst2(tmp_path)

    def test_gluess_archives_and_other_folders_give_the_same(self, tmp_path: Path) -> None:
        files = task_files("qnli", HEADERS["qnli"][2].format("a?", "b.", "not_entailment") + "\n")
        plain = glue.qnli(write(tmp_path / "a", files))
        other = glue.qnli(write(tmp_path / "b", {name.removeprefix("glue/"): text for name, text in files.items()}))
        (tmp_path / "c/glue").mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / "c/glue/QNLIv2.zip", "w") as archive:
            archive.writestr("QNLI/original/train.tsv", "of another form")
            for name, content in files.items():
                archive.writestr(name.removeprefix("glue/"), content)
        assert plain.digest == other.digest == glue.qnli(tmp_path / "c").digest

    def test_a_damaged_archive_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, {"glue/SST-2.zip": b"no zip"})
        with pytest.raises(DataError, match=r"SST-2\.zip is damaged"):
            glue.sst2(tmp_path)

    def test_microsofts_files_give_glues_split(self, tmp_path: Path) -> None:
        header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
        rows = '1\t10\t11\t" a\tb\r\n0\t12\t13\tc\td\r\n'
        write(tmp_path, within("MRPC", {"msr_paraphrase_train.txt": header + rows, "dev_ids.tsv": "12\t13\n"}))
        found = glue.mrpc(tmp_path)
        assert found.rows == {"train": [('" a', "b", 1)], "validation": [("c", "d", 0)]}
        (tmp_path / "MRPC/dev_ids.tsv").unlink()
        with pytest.raises(DataError, match=r"not the dev_ids\.tsv or msr_paraphrase_test\.txt"):
            read(glue.mrpc, tmp_path)
        write(tmp_path, {"MRPC/msr_paraphrase_test.txt": header + "1\t1\t2\te\tf\r\n"})
        found = read(glue.mrpc, tmp_path)
        assert [len(found.rows[split]) for split in ("train", "validation")] == [2, 1]
        assert "Microsoft's split" in found.note
