"""Corpora: their authors' layouts, every way a file can be wrong, the hub, and the real files."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posenc.common.errors import DataError
from posenc.data import cail, corpus, documents, glue, hub, parallel
from posenc.data.corpus import Corpus, File, Row

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


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    for reader in READERS.values():
        reader.cache_clear()  # type: ignore[attr-defined]
    yield
    for reader in READERS.values():  # real files are large
        reader.cache_clear()  # type: ignore[attr-defined]


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(reader: Reader, folder: Path | None) -> Corpus:
    reader.cache_clear()  # type: ignore[attr-defined]
    return reader(folder)


class TestLines:
    @given(st.lists(cells, min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
    def test_any_lines_come_back(
        self, tmp_path_factory: pytest.TempPathFactory, content: list[str], end: str, last: bool, mark: bool
    ) -> None:
        path = tmp_path_factory.mktemp("lines") / "file"
        raw = ("\ufeff" if mark else "") + end.join(content) + (end if last else "")
        path.write_bytes(raw.encode())
        assert corpus.lines(File(path)) == content

    def test_a_single_return_a_form_feed_and_a_line_separator_are_content(self, tmp_path: Path) -> None:
        write(tmp_path, {"file": "a\rb\r\nc\x0cd\u2028e\x85f\n"})
        assert corpus.lines(File(tmp_path / "file")) == ["a\rb", "c\x0cd\u2028e\x85f"]

    def test_blank_lines_are_lines(self, tmp_path: Path) -> None:
        write(tmp_path, {"file": "\na\n\n\n"})
        assert corpus.lines(File(tmp_path / "file")) == ["", "a", "", ""]

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
    def test_an_empty_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path, {"file": content})
        with pytest.raises(DataError, match=r"file is empty"):
            corpus.lines(File(tmp_path / "file"))

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
    def test_a_byte_that_is_not_utf8_is_placed(self, tmp_path: Path, mark: bytes) -> None:
        write(tmp_path, {"file": mark + b"one\ntwo\n\xe4 three\n"})
        with pytest.raises(DataError, match=r"file, line 3: not UTF-8 \(byte 0xe4"):
            corpus.lines(File(tmp_path / "file"))

    @pytest.mark.parametrize("damage", ["cut off", "no gzip", "flipped"])
    def test_a_damaged_gzip_is_named(self, tmp_path: Path, damage: str) -> None:
        raw = gzip.compress(os.urandom(500))
        flipped = bytearray(raw)
        flipped[-6] ^= 1  # in the checksum
        write(tmp_path, {"a.gz": {"cut off": raw[:200], "no gzip": b"hello", "flipped": bytes(flipped)}[damage]})
        with pytest.raises(DataError, match=r"a\.gz is damaged"):
            File(tmp_path / "a.gz").read()

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="gone cannot be read: No such file"):
            File(tmp_path / "gone").read()


class TestCorpus:
    def test_it_says_what_it_is(self) -> None:
        made = corpus.assemble("made", ("x",), {"train": [("a",)] * 3}, {"train": (5, 3), "test": (2,)}, ["and more"])
        assert made.describe() == {
            "name": "made",
            "digest": made.digest,
            "rows": {"train": 3},
            "expected_rows": {"train": 3, "test": 2},
            "generated": False,
            "note": "none of the 2 test rows: not comparable with published figures; and more",
        }

    def test_a_whole_release_has_no_note(self) -> None:
        assert corpus.assemble("made", ("x",), {"train": [("a",)]}, {"train": (1,)}).note == ""

    def test_more_rows_than_the_release_are_said(self) -> None:
        made = corpus.assemble("made", ("x",), {"train": [("a",)] * 3}, {"train": (2,)})
        assert "3 training rows where the release has 2" in made.note

    def test_a_digest_knows_where_cells_and_rows_end(self) -> None:
        versions: list[dict[str, list[Row]]] = [
            {"train": [("a", "b")]},
            {"train": [("ab", "")]},
            {"train": [("a",), ("b",)]},
            {"test": [("a", "b")]},
            {"train": [("a", 1)]},
            {"train": [("a", "1")]},
            {"train": [("a", 1.0)]},
        ]
        digests = {corpus.assemble("made", ("x", "y"), rows).digest for rows in versions}
        assert len(digests) == len(versions)

    def test_an_empty_split_is_refused(self) -> None:
        with pytest.raises(DataError, match="no rows for its test split"):
            corpus.assemble("made", ("x",), {"train": [("a",)], "test": []})


@pytest.mark.parametrize("name", READERS)
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--data .*gone: no such folder"):
        READERS[name](tmp_path / "gone")


MULTI30K = {
    "train.en": "A man.\nA dog runs.\n",
    "train.de": "Ein Mann.\nEin Hund läuft.\n",
    "val.en": "A cat.\n",
    "val.de": "Eine Katze.\n",
    "test_2016_flickr.en": "A boy.\n",
    "test_2016_flickr.de": "Ein Junge.\n",
}


def within(folder: str, files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


class TestParallel:
    def test_rows_are_pairs_english_first(self, tmp_path: Path) -> None:
        found = parallel.multi30k(write(tmp_path, within("multi30k", MULTI30K)))
        assert found.fields == ("source", "target")
        assert found.rows["train"] == [("A man.", "Ein Mann."), ("A dog runs.", "Ein Hund läuft.")]
        assert found.rows["validation"] == [("A cat.", "Eine Katze.")]
        assert found.expected == {"train": 29_000, "validation": 1014, "test": 1000}
        assert "only 2 of 29,000 training rows" in found.note

    def test_it_is_read_once_a_process(self, tmp_path: Path) -> None:
        write(tmp_path, within("multi30k", MULTI30K))
        assert parallel.multi30k(tmp_path) is parallel.multi30k(tmp_path)

    def test_plain_gzipped_and_zipped_under_any_of_the_names_give_the_same(self, tmp_path: Path) -> None:
        plain = parallel.multi30k(write(tmp_path / "a", within("multi30k", MULTI30K)))
        packed = {f"{name}.gz": gzip.compress(content.encode()) for name, content in MULTI30K.items()}
        gzipped = parallel.multi30k(write(tmp_path / "b", within("multi30k/data/task1/raw", packed)))
        (tmp_path / "c").mkdir()
        with zipfile.ZipFile(tmp_path / "c" / "multi30k.zip", "w") as archive:
            for name, content in MULTI30K.items():
                archive.writestr(f"multi30k/{name}", content)
        zipped = parallel.multi30k(tmp_path / "c")
        renamed = {
            name.replace("val", "valid").replace("test_2016_flickr", "test"): f"\ufeff{content}".replace("\n", "\r\n")
            for name, content in MULTI30K.items()
        }
        other = parallel.multi30k(write(tmp_path / "d", within("multi30k", renamed)))
        assert plain.digest == gzipped.digest == zipped.digest == other.digest
        assert plain.rows == gzipped.rows == zipped.rows == other.rows

    def test_sides_of_unequal_length_are_named_with_their_counts(self, tmp_path: Path) -> None:
        write(tmp_path, within("multi30k", {**MULTI30K, "val.de": "Eine Katze.\nEin Haus.\n"}))
        with pytest.raises(DataError, match=r"val\.en has 1 sentences and .*val\.de 2"):
            parallel.multi30k(tmp_path)

    @pytest.mark.parametrize("content", ["\nEin Hund läuft.\n", " \xa0\nEin Hund läuft.\n"])
    def test_an_empty_side_is_placed(self, tmp_path: Path, content: str) -> None:
        write(tmp_path, within("multi30k", {**MULTI30K, "train.de": content}))
        with pytest.raises(DataError, match=r"train\.de, line 1: empty, and the other side is 'A man\.'"):
            parallel.multi30k(tmp_path)

    def test_blank_lines_on_both_sides_are_counted(self, tmp_path: Path) -> None:
        files = {**MULTI30K, "train.en": "A man.\n\n", "train.de": "Ein Mann.\n\n"}
        found = parallel.multi30k(write(tmp_path, within("multi30k", files)))
        assert found.rows["train"] == [("A man.", "Ein Mann.")]
        assert "1 pairs of blank lines left out of train.en" in found.note

    @pytest.mark.parametrize(
        ("gone", "message"),
        [("train.de", r"train\.en is there, but not the train\.de"), ("val.en", r"val\.de is there, but not the val")],
    )
    def test_a_missing_side_is_named(self, tmp_path: Path, gone: str, message: str) -> None:
        write(tmp_path, within("multi30k", {name: text for name, text in MULTI30K.items() if name != gone}))
        with pytest.raises(DataError, match=message):
            parallel.multi30k(tmp_path)

    def test_a_missing_split_is_named_and_the_hub_is_not_asked(self, tmp_path: Path) -> None:
        write(tmp_path, within("multi30k", {name: text for name, text in MULTI30K.items() if "test" not in name}))
        with pytest.raises(DataError, match=r"train\.en is there, but no test split \(test_2016_flickr\.en or "):
            parallel.multi30k(tmp_path)

    def test_wmts_own_files_are_put_together_and_training_gaps_counted(self, tmp_path: Path) -> None:
        files = {
            "training/europarl-v7.de-en.en": "One.\n\nThree.\n",
            "training/europarl-v7.de-en.de": "Eins.\nZwei.\nDrei.\n",
            "training/commoncrawl.de-en.en": "Four.\n",
            "training/commoncrawl.de-en.de": "Vier.\n",
            "training/news-commentary-v9.de-en.en": "Five.\n",
            "training/news-commentary-v9.de-en.de": "Fünf.\n",
            "dev/newstest2012.en": "no\n",
            "dev/newstest2012.de": "no\n",
            "dev/newstest2013.en": "Six.\n",
            "dev/newstest2013.de": "Sechs.\n",
            "test-full/newstest2014-deen-src.en.sgm": '<doc>\n<seg id="1">A &amp; B</seg>\n<seg id="2"> C</seg>',
            "test-full/newstest2014-deen-ref.de.sgm": '<seg id="1">A und B</seg>\n<seg id="2">C!</seg>\n',
        }
        found = parallel.wmt14(write(tmp_path, within("wmt14", files)))
        assert [source for source, _ in found.rows["train"]] == ["One.", "Three.", "Four.", "Five."]
        assert found.rows["validation"] == [("Six.", "Sechs.")]
        assert found.rows["test"] == [("A &amp; B", "A und B"), ("C", "C!")]
        assert "1 pairs with one empty side left out of europarl-v7.de-en.en" in found.note
        (tmp_path / "wmt14/training/commoncrawl.de-en.de").unlink()
        with pytest.raises(DataError, match=r"not the commoncrawl\.de-en\.de"):
            read(parallel.wmt14, tmp_path)

    def test_wmts_tests_have_no_gaps_and_whole_segments(self, tmp_path: Path) -> None:
        files = {"train.en": "a\n", "train.de": "b\n", "valid.en": "a\n", "valid.de": "b\n"}
        write(tmp_path, within("wmt14", {**files, "newstest2014.en": "a\n\n", "newstest2014.de": "b\nc\n"}))
        with pytest.raises(DataError, match=r"newstest2014\.en, line 2: empty"):
            parallel.wmt14(tmp_path)
        (tmp_path / "wmt14/newstest2014.en").unlink()
        write(tmp_path, {"wmt14/newstest2014-src.en.sgm": '<seg id="1">a</seg>\n<seg id="2">a\n'})
        with pytest.raises(DataError, match=r"sgm, line 2: a segment that does not end"):
            parallel.wmt14(tmp_path)

    def test_stanfords_tokens_are_said(self, tmp_path: Path) -> None:
        files = {"train.en": "rich ##AT##-##AT## text\n", "train.de": "b\n", "newstest2013.en": "a\n"}
        files |= {"newstest2013.de": "b\n", "newstest2014.en": "a\n", "newstest2014.de": "b\n"}
        assert "tokenised text" in parallel.wmt14(write(tmp_path, within("wmt14.en-de", files))).note


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
            ("stsb", "five", "no such score 'five'; a number from 0 to 5 is wanted"),
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


# A document: lines that are not blank; the first has ink.
texts = st.lists(cells, min_size=1, max_size=3).map("\n".join)


class TestDocuments:
    @given(st.lists(texts, min_size=60, max_size=80, unique=True), st.integers(1, 3))
    def test_every_document_comes_back_once(
        self, tmp_path_factory: pytest.TempPathFactory, documents_: list[str], blanks: int
    ) -> None:
        content = ("\n" * (blanks + 1)).join(documents_) + "\n" * blanks
        found = read(documents.chinese, write(tmp_path_factory.mktemp("d"), {"chinese/wikipedia.txt": content}))
        assert found.fields == ("text",)
        assert sorted(row[0] for rows in found.rows.values() for row in rows) == sorted(documents_)
        assert list(found.rows) == ["train", "validation", "test"]

    def test_a_document_is_in_the_same_split_wherever_it_stands(self, tmp_path: Path) -> None:
        made = [f"Title {number}\nText." for number in range(400)]
        first = documents.chinese(write(tmp_path / "a", {"chinese/wikipedia.txt": "\n\n".join(made)}))
        second = documents.chinese(write(tmp_path / "b", {"chinese/wikipedia.txt": "\n\n".join(made[::-2])}))
        for split, rows in second.rows.items():
            assert set(rows) <= set(first.rows[split])
        assert 0.75 < len(first.rows["train"]) / 400 < 0.85
        assert 20 < len(first.rows["validation"]) < 60

    def test_english_takes_articles_and_books(self, tmp_path: Path) -> None:
        articles = "\n\n".join(f"Article {number}" for number in range(100))
        books = "\n\n".join(f"Paragraph one of {number}\nand two" for number in range(20))
        found = documents.english(write(tmp_path, {"english/wikipedia.txt": articles, "english/books.txt": books}))
        assert sum(map(len, found.rows.values())) == 120
        assert "100 documents of wikipedia.txt and 20 of books.txt" in found.note

    def test_books_joined_with_their_marks_are_not_torn(self, tmp_path: Path) -> None:
        articles = "\n\n".join(f"Article {number}" for number in range(100))
        books = "".join(f"\ufeffBook {number}\n\nChapter\r\n\r\n text\n\n\n" for number in range(20))
        found = documents.english(write(tmp_path, {"english/wikipedia.txt": articles, "english/books.txt": books}))
        assert ("Book 7\n\nChapter\n\n text",) in [row for rows in found.rows.values() for row in rows]
        assert "20 of books.txt" in found.note

    @pytest.mark.parametrize("line", [" ", "\t", "  \u3000"])
    def test_a_line_of_white_space_separates_documents(self, tmp_path: Path, line: str) -> None:
        made = [f"Title {number}\nText." for number in range(200)]
        content = f"\n{line}\n".join(made)
        found = read(documents.chinese, write(tmp_path, {"chinese/wikipedia.txt": content}))
        assert sorted(row[0] for rows in found.rows.values() for row in rows) == sorted(made)

    def test_a_split_without_documents_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="none of its 1 documents fell to"):
            read(documents.chinese, write(tmp_path, {"chinese/wikipedia.txt": "one\nalone\n"}))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"wikipedia\.txt is empty"),
            (b"\n\n \n", r"wikipedia\.txt has no text in it"),
            (b"a\n\nb\n", "none of its 2 documents fell to"),
            (b"a\n\nb\xffc\n", r"wikipedia\.txt, line 3: not UTF-8"),
        ],
    )
    def test_a_text_that_is_none_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        with pytest.raises(DataError, match=message):
            documents.chinese(write(tmp_path, {"chinese/wikipedia.txt": content}))

    @pytest.mark.parametrize("only", ["wikipedia.txt", "books.txt"])
    def test_half_of_english_is_not_taken_for_the_whole(self, tmp_path: Path, only: str) -> None:
        with pytest.raises(DataError, match=rf"{only} is there, but not the "):
            documents.english(write(tmp_path, {f"english/{only}": "text\n"}))


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


class Asked:
    """A stand-in for the hub that keeps what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: dict[str, dict[str, dict[str, list[object]]]]) -> None:
        import datasets
        import huggingface_hub

        self.info: list[tuple[object, ...]] = []
        self.loaded: list[tuple[object, ...]] = []
        self.commit: str | None = "abc123"

        def dataset_info(api: object, repository: str, revision: str, timeout: float) -> SimpleNamespace:
            self.info.append((repository, revision, timeout))
            return SimpleNamespace(sha=self.commit)

        def load(repository: str, config: str | None, revision: str) -> datasets.DatasetDict:
            self.loaded.append((repository, config, revision))
            return datasets.DatasetDict(
                {split: datasets.Dataset.from_dict(columns) for split, columns in answers[repository].items()}
            )

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr(datasets, "load_dataset", load)


class TestHub:
    @pytest.mark.parametrize("name", READERS)
    def test_every_failure_costs_one_quick_attempt_and_says_everything(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        calls = []

        def refuse(self: object, *arguments: object, **options: object) -> None:
            calls.append(arguments)
            raise ConnectionError("name not known\nand more")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        with pytest.raises(DataError, match=rf"^{name}: not found under .* \(.*\).*: put .* DIR") as caught:
            READERS[name](tmp_path)
        assert "\n" not in str(caught.value)
        if name in hub.HUB:
            assert "cannot be had (ConnectionError: name not known)" in str(caught.value)
            assert len(calls) == 1
        else:
            assert "no copy of it on the hub is known" in str(caught.value)
        with pytest.raises(DataError, match="no --data DIR and no POSENC_DATA was given"):
            READERS[name](None)

    def test_translations_come_as_from_files_and_the_commit_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pairs = [{"de": "Ein Mann.", "en": "A man."}]
        splits = {split: {"translation": list(pairs)} for split in ("train", "validation", "test")}
        asked = Asked(monkeypatch, {"wmt/wmt14": splits})  # type: ignore[dict-item]
        found = parallel.wmt14(tmp_path)
        assert found.rows["test"] == [("A man.", "Ein Mann.")]
        assert asked.info == [("wmt/wmt14", "main", 10)]
        assert asked.loaded == [("wmt/wmt14", "de-en", "abc123")]
        assert "from the hub's wmt/wmt14 de-en (main, commit abc123): hub revision unverified" in found.note
        files = {
            f"{split}.{side}": f"{text}\n" for split in ("train", "valid", "test") for side, text in pairs[0].items()
        }
        assert found.digest == read(parallel.wmt14, write(tmp_path, within("wmt14", files))).digest

    def test_scores_come_as_from_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import numpy as np

        columns = {
            "sentence1": ["a", "c"],
            "sentence2": ["b", "d"],
            "label": np.array([3.8, 4.667], np.float32).tolist(),
        }
        Asked(monkeypatch, {"nyu-mll/glue": {"train": dict(columns), "validation": dict(columns)}})
        assert glue.stsb(tmp_path).rows["train"] == [("a", "b", 3.8), ("c", "d", 4.667)]

    def test_both_sets_of_mnli_are_taken_and_hidden_labels_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows: dict[str, list[object]] = {"premise": ["a"], "hypothesis": ["b"], "label": [2]}
        names = ("train", "validation_matched", "validation_mismatched")
        Asked(monkeypatch, {"nyu-mll/glue": dict.fromkeys(names, rows)})
        assert list(glue.mnli(tmp_path).rows) == ["train", "validation", "validation_mismatched"]
        Asked(monkeypatch, {"nyu-mll/glue": {name: {**rows, "label": [-1]} for name in names}})
        with pytest.raises(DataError, match="row 1 of the hub's train has the label -1"):
            read(glue.mnli, tmp_path)

    def test_english_takes_two_sources(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        articles: list[object] = [f"Article {number}" for number in range(100)]
        sentences: list[object] = [f"Sentence {number}." for number in range(1200)]
        answers = {"wikimedia/wikipedia": {"train": {"text": articles}}}
        answers["bookcorpus/bookcorpus"] = {"train": {"text": sentences}}
        asked = Asked(monkeypatch, answers)
        asked.commit = None  # then the branch is all that can be said
        found = documents.english(tmp_path)
        assert sum(map(len, found.rows.values())) == 103
        assert [call[0] for call in asked.info] == ["wikimedia/wikipedia", "bookcorpus/bookcorpus"]
        assert [call[2] for call in asked.loaded] == ["main", "refs/convert/parquet"]
        assert "(main): hub revision unverified" in found.note
        assert "(refs/convert/parquet): hub revision unverified" in found.note

    def test_rows_with_nothing_in_them_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        splits = {split: {"en": ["a", None], "de": ["b", "c"]} for split in ("train", "validation", "test")}
        Asked(monkeypatch, {"bentrevett/multi30k": splits})  # type: ignore[dict-item]
        with pytest.raises(DataError, match=r"row 2 of the hub's bentrevett/multi30k has no en or de"):
            parallel.multi30k(tmp_path)


# What is small enough to be there whole; of the others there may be parts, and then the note says so.
WHOLE = ("multi30k", "glue/mrpc", "glue/sst2", "glue/stsb")


@pytest.mark.data
@pytest.mark.skipif("POSENC_DATA" not in os.environ, reason="POSENC_DATA names no folder of official data")
class TestRealFiles:
    @pytest.mark.parametrize("name", READERS)
    def test_they_are_whole_or_the_note_says_how_much_is_there(self, name: str) -> None:
        found = READERS[name](Path(os.environ["POSENC_DATA"]))
        assert found.name == name
        counts = {split: len(rows) for split, rows in found.rows.items()}
        for split, wanted in (found.expected or {}).items():
            if counts.get(split, 0) != wanted:
                assert f"{wanted:,}" in found.note
                assert "not comparable with published figures" in found.note
        if name in WHOLE:
            assert counts == found.expected
            assert found.note == ""
        texts = [cell for rows in found.rows.values() for row in rows for cell in row if isinstance(cell, str)]
        assert all(cell.strip() or name == "glue/qqp" for cell in texts)

    def test_known_rows_stand_where_they_should(self) -> None:
        folder = Path(os.environ["POSENC_DATA"])
        assert parallel.multi30k(folder).rows["train"][0] == (
            "Two young, White males are outside near many bushes.",
            "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
        )
        assert parallel.wmt14(folder).rows["test"][0][0] == "Gutach: Increased safety for pedestrians"
        assert len(parallel.wmt14(folder).rows["test"]) in (3003, 2737)
        assert glue.stsb(folder).rows["validation"][0][2] == 5.0
        assert len(glue.qnli(folder).rows["validation"]) == 5463
        first = glue.mrpc(folder).rows["train"][0]
        assert first[0].startswith('Amrozi accused his brother , whom he called " the witness "')
        assert first[2] == 1
        assert {row[3] for row in cail.cail2019_scm(folder).rows["test"]} == {"B", "C"}

    def test_no_document_is_in_two_splits(self) -> None:
        found = documents.english(Path(os.environ["POSENC_DATA"]))
        parts = [{row[0] for row in rows} for rows in found.rows.values()]
        assert sum(map(len, parts)) == len(set().union(*parts))
        total = sum(map(len, found.rows.values()))
        assert 0.78 < len(found.rows["train"]) / total < 0.82
