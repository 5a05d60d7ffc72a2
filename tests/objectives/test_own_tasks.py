"""Tasks that are one TOML each, outside posenc's tree: data in their official layout, no code."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import posenc
from sklearn.metrics import matthews_corrcoef

from posenc.common.errors import ConfigError, DataError, MissingDataError, UnknownNameError
from posenc.config.data import DataConfig
from posenc.config.task import task_at
from posenc.data import own_files
from posenc.data.corpus import Corpus
from posenc.data.text import ByteText
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "man",
    "sees",
    "likes",
    "old",
    "red",
    "small",
    "house",
    "tree",
    "runs",
    "and",
    "of",
    "in",
]

BACKBONE = """
[backbone]
layers = 1
width = 16
heads = 2
feedforward = 16
"""
TRAINING = """
[training]
steps = 4
batch = 8
learning_rate = 1e-3
validate_every = 2
"""
PAIRS = """
[data]
source = "table"
tokeniser = "wordpiece"
columns = { first = "sentence1", second = "sentence2", label = "label" }
"""

RTE = f"""
name = "rte"
title = "RTE: does one sentence follow from another?"
objective = "classification"
length = 24
{PAIRS}
labels = ["entailment", "not_entailment"]
files = {{ train = "glue/RTE/train.tsv", validation = "glue/RTE/dev.tsv" }}
{BACKBONE}vocabulary = 200
outputs = 2
{TRAINING}
[evaluation]
metrics = ["accuracy"]
"""
COLA = f"""
name = "cola"
title = "CoLA: is a sentence acceptable?"
objective = "classification"
length = 16
[data]
source = "table"
tokeniser = "wordpiece"
files = {{ train = "glue/CoLA/train.tsv", validation = "glue/CoLA/dev.tsv" }}
header = false                     # GLUE's files of CoLA have none
columns = {{ first = 4, label = 2 }} # counted from 1
labels = ["0", "1"]
{BACKBONE}vocabulary = 200
outputs = 2
{TRAINING}
[evaluation]
metrics = ["matthews", "accuracy"]
"""
WNLI = (
    RTE.replace("rte", "wnli")
    .replace("RTE", "WNLI")
    .replace("does one sentence follow from another?", "whom does a pronoun mean?")
    .replace('["entailment", "not_entailment"]', '["0", "1"]')
)
LANGUAGE = f"""
name = "diary"
title = "Language modelling of a diary"
objective = "causal_lm"
length = 16
[data]
source = "text"
tokeniser = "bpe"
files = {{ all = "./diary.txt" }} # beside this file
splits = [0.8, 0.1, 0.1]
{BACKBONE}vocabulary = 300
{TRAINING}
[evaluation]
length_factors = [1, 2]
"""
MASKED = LANGUAGE.replace("diary", "masked", 1).replace("causal_lm", "masked_lm").replace('"bpe"', '"wordpiece"')
TRANSLATION = f"""
name = "mine"
title = "Translation from one pair of files"
objective = "translation"
length = 32
[data]
source = "parallel"
tokeniser = "bpe"
files = {{ all = ["./mine.en", "./mine.de"] }}
splits = [0.8, 0.1, 0.1]
{BACKBONE}vocabulary = 300
{TRAINING}
"""
TASKS = {"rte": RTE, "cola": COLA, "wnli": WNLI, "diary": LANGUAGE, "masked": MASKED, "mine": TRANSLATION}


def sentence(dice: random.Random) -> str:
    return " ".join(dice.choices(WORDS, k=dice.randint(3, 8)))


def write_data(folder: Path) -> None:
    """Small files in the layout of the official ones, and texts of one's own."""
    dice = random.Random(0)
    for name, labels in (("RTE", ("entailment", "not_entailment")), ("WNLI", ("0", "1"))):
        (folder / "glue" / name).mkdir(parents=True)
        for split, rows in (("train", 60), ("dev", 20)):
            lines = ["index\tsentence1\tsentence2\tlabel"]
            lines += [f"{i}\t{sentence(dice)}\t{sentence(dice)}\t{dice.choice(labels)}" for i in range(rows)]
            (folder / "glue" / name / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "glue" / "CoLA").mkdir()
    for split, rows in (("train", 60), ("dev", 20)):
        lines = []
        for _ in range(rows):
            label = dice.randint(0, 1)
            lines.append(f"gj04\t{label}\t{'' if label else '*'}\t{sentence(dice)}")
        (folder / "glue" / "CoLA" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    diary = "\n".join(sentence(dice).capitalize() + "." + ("\n" if dice.random() < 0.2 else "") for _ in range(400))
    (folder / "diary.txt").write_text(diary)
    pairs = [(text, " ".join(reversed(text.split()))) for text in (sentence(dice) for _ in range(200))]
    for side, suffix in enumerate(("en", "de")):
        (folder / f"mine.{suffix}").write_text("".join(f"{pair[side]}\n" for pair in pairs))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all six have run: one suite that names them by path, in one process."""
    folder = tmp_path_factory.mktemp("own")
    write_data(folder)
    for name, written in TASKS.items():
        (folder / f"{name}.toml").write_text(written)
    named = ", ".join(f'"./{name}.toml"' for name in TASKS)
    (folder / "suite.toml").write_text(
        f'name = "own"\ntitle = "Own"\nbaseline = "none"\nscale = "small"\nseeds = [0]\n'
        f'[[grid]]\ntasks = [{named}]\nencodings = ["rope"]\n'
    )
    posenc(folder, "run", "suite.toml", "--data", str(folder), "--jobs", "1")
    return folder


def records(folder: Path, name: str = "own") -> dict[str, dict[str, Any]]:
    return {record["config"]["task"]: record for record in Store(folder / "results" / name).records()}


def scores(record: dict[str, Any], split: str = "test") -> dict[str, float]:
    return {score["metric"]: score["value"] for score in record["scores"] if score["split"] == split}


def test_each_of_the_six_has_scores_of_its_own_metrics(finished: Path) -> None:
    found = records(finished)
    assert set(found) == set(TASKS)
    expected = {
        "rte": ["accuracy"], "cola": ["matthews", "accuracy"], "wnli": ["accuracy"],
        "diary": ["perplexity", "word_perplexity", "bits_per_byte"],
        "masked": ["masked_loss", "masked_accuracy"], "mine": ["bleu", "target_loss"],
    }  # fmt: skip
    for name, metrics in expected.items():
        assert found[name]["status"] == "done", found[name]["reason"]
        assert [metric["name"] for metric in found[name]["metrics"]] == metrics
        assert all(np.isfinite(scores(found[name])[metric]) for metric in metrics)
    page = (finished / "results" / "own" / "report" / "report.md").read_text()
    assert "Matthews' correlation" in page
    assert "perplexity" in page


def test_colas_matthews_correlation_is_scikit_learns(finished: Path) -> None:
    record = records(finished)["cola"]
    items = Store(finished / "results" / "own").read_items(record)
    truth = [int(line.split("\t")[1]) for line in (finished / "glue/CoLA/dev.tsv").read_text().splitlines()]
    assert items["test/16/truth"].tolist() == truth
    expected = matthews_corrcoef(truth, items["test/16/answer"])
    assert scores(record)["matthews"] == pytest.approx(expected, abs=1e-12)


def test_a_task_by_path_is_known_by_its_content(finished: Path) -> None:
    suite = find_suite(str(finished / "suite.toml"))
    before = {cell.config["task"]: cell for cell in make(suite, Selection(data=finished)).cells}
    assert {cell.id for cell in before.values()} == {record["id"] for record in records(finished).values()}
    assert before["rte"].folder == str(finished)
    assert str(finished) not in json.dumps([cell.config for cell in before.values()])
    try:
        (finished / "rte.toml").write_text(RTE + "# said\n")
        after = {cell.config["task"]: cell for cell in make(suite, Selection(data=finished)).cells}
    finally:
        (finished / "rte.toml").write_text(RTE)
    assert {name for name in before if before[name].id != after[name].id} == {"rte"}


@pytest.mark.slow
def test_a_task_alone_by_its_path_runs_and_its_status_is_found(finished: Path) -> None:
    (finished / "away").mkdir()
    posenc(finished / "away", "run", "../diary.toml", "--encodings", "none", "--set", "data.tokeniser='bytes'",
           "--set", "backbone.vocabulary=256")  # fmt: skip
    record = records(finished / "away", "diary")["diary"]
    assert record["status"] == "done", record["reason"]
    assert [metric["name"] for metric in record["metrics"]] == ["bits_per_character"]
    assert record["config"]["scale"] == "small"
    said = posenc(finished / "away", "status", "../diary.toml")
    assert "done          1" in said


def test_tasks_are_chosen_by_path_or_name_and_told_apart(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    suite = find_suite("suite.toml")
    for given in ("rte", "./rte.toml", str(finished / "rte.toml")):
        (cell,) = make(suite, Selection(tasks=[given], data=finished)).cells
        assert cell.config["task"] == "rte"
    with pytest.raises(UnknownNameError, match=r"unknown task of suite own 'rta' .*did you mean 'rte'"):
        make(suite, Selection(tasks=["rta"], data=finished))
    (finished / "again.toml").write_text(RTE)
    (finished / "both.toml").write_text((finished / "suite.toml").read_text().replace("wnli.toml", "again.toml"))
    with pytest.raises(ConfigError, match=r"again.toml and .*rte.toml are both named 'rte': rename one"):
        make(find_suite("both.toml"), Selection(data=finished))
    with pytest.raises(ConfigError, match=r"gone.toml: no such file"):
        find_suite("gone.toml")
    (finished / "nameless.toml").write_text(RTE.replace('name = "rte"\n', ""))
    with pytest.raises(ConfigError, match="name is missing"):
        find_suite("nameless.toml")


def test_a_task_may_start_from_another_by_its_path(finished: Path) -> None:
    changed = RTE.replace("length = 24", 'length = 16\nstart = "./masked.toml"')
    (finished / "tuned.toml").write_text(
        changed.replace('"rte"', '"tuned"').replace("vocabulary = 200", "vocabulary = 300")
    )
    parent, child = make(find_suite(str(finished / "tuned.toml")), Selection(encodings=["rope"], data=finished)).cells
    assert (parent.config["task"], child.config["start"], child.parent) == ("masked", "masked", parent.id)
    assert "from-masked" in child.name


def test_a_package_carries_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "carried" / "tasks").mkdir(parents=True)
    (tmp_path / "carried" / "__init__.py").write_text("raise ImportError('never imported for a list')")
    (tmp_path / "carried" / "tasks" / "diary.toml").write_text(LANGUAGE.replace('"diary"', '"own/diary"'))
    (tmp_path / "carried" / "tasks" / "other.toml").write_text(LANGUAGE)
    (tmp_path / "carried" / "tasks" / "diary.txt").write_text("A day.\n" * 500)
    info = tmp_path / "carried-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[posenc.tasks]\nown = carried.tasks\ngone = nowhere.tasks\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from posenc.plan import catalogue

    listed = {row["name"]: row["package"] for row in catalogue.rows("tasks")}
    assert listed["own/diary"] == "carried 1.0"
    assert listed["mlm"].startswith("posenc")
    (cell,) = make(find_suite("own/diary"), Selection(encodings=["none"])).cells
    assert cell.config["task"] == "own/diary"
    assert "task_source" not in cell.config  # a package has versions
    with pytest.raises(ConfigError, match=r"name = 'diary': carried 1.0 brings it as 'own/other'"):
        task_at("own/other", "small", {})


def table(folder: Path, content: str, name: str = "a.tsv", **more: Any) -> Corpus:
    (folder / name).write_bytes(content.encode())
    given: dict[str, Any] = {
        "files": {"train": f"./{name}", "validation": f"./{name}"},
        "columns": {"first": "x", "label": "y"},
    }
    config = DataConfig(source="table", tokeniser="bpe", **{**given, **more})
    found = own_files.load(config, (("first", "second", "label"), ("first", "label")), None, folder)
    assert isinstance(found, Corpus)
    return found


def test_tables_of_every_form_have_the_same_rows(tmp_path: Path) -> None:
    expected = [("a, b", 1), ('say "c"', 0)]
    classes = {"labels": ["no", "yes"]}
    forms = {
        "a.tsv": 'y\tz\tx\nyes\t1\ta, b\nno\t2\tsay "c"\n',
        "a.csv": 'y,z,x\r\nyes,1,"a, b"\r\nno,2,"say ""c"""\r\n',
        "a.jsonl": '{"x": "a, b", "y": "yes"}\n\n{"y": "no", "x": "say \\"c\\""}\n',
    }
    digests = set()
    for name, content in forms.items():
        found = table(tmp_path, content, name, **classes)
        assert list(found.rows["train"]) == expected
        digests.add(found.digest)
    numbers = {"first": 3, "label": 1}
    found = table(
        tmp_path, forms["a.tsv"].split("\n", 1)[1], "b.txt", columns=numbers, header=False, format="tsv", **classes
    )
    assert list(found.rows["train"]) == expected
    assert {*digests, found.digest} == {found.digest}


def test_a_quoted_cell_holds_line_ends_and_scores_are_numbers(tmp_path: Path) -> None:
    found = table(tmp_path, 'x,y\n"one\ntwo",2.5\n,-1\n', "a.csv")
    assert list(found.rows["train"]) == [("one\ntwo", 2.5), ("", -1.0)]
    assert "2 rows with an empty first kept" in found.note


WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    ("x\ty\na\tmaybe\n", "a.tsv", {"labels": ["no", "yes"]}, "2: no such label 'maybe'; data.labels has 'no', 'yes'"),
    ("x\ty\na\tmaybe\n", "a.tsv", {}, "line 2: label 'maybe' is no number, and data.labels names no classes"),
    ("x\tz\na\t1\n", "a.tsv", {}, "line 1: no column 'y'; the header has 'x', 'z'"),
    ("x\ty\na\t1\tb\n", "a.tsv", {}, "line 2: 3 columns, and the header has 2"),
    ("x\ty\na\t1\n", "a.tsv", {"columns": {"first": 1, "label": 3}}, "no column 3; there are 2, counted from 1"),
    ("x\ty\na\t1\n", "a.tsv", {"header": False}, "'x' is a name, and data.header = false"),
    ("x\ty\na\t1\n", "a.txt", {}, "data.format: .*a.txt does not tell it by its name"),
    ('x,y\n"a,1\n', "a.csv", {}, "a.csv, line 2: no CSV"),
    ("[1]\n", "a.jsonl", {}, "line 1: no JSON object"),
    ('{"x": "a"}\n', "a.jsonl", {}, "line 1: no 'y'; it has 'x'"),
    ('{"x": null, "y": 1}\n', "a.jsonl", {}, "'x' is null: a text or a number must stand there"),
    ('{"x": "\\ud800", "y": 1}\n', "a.jsonl", {}, "half a character"),
    ("x\ty\na\t1\n", "a.tsv", {"columns": {"text": "x"}}, "columns names text: .* first/second/label or first/label"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "name", "more", "said"), WRONG, ids=[one[3][:40] for one in WRONG])
def test_what_is_not_as_described_is_named(
    tmp_path: Path, content: str, name: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises((DataError, ConfigError), match=said):
        table(tmp_path, content, name, **more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "table"}, "must say where each split lies"),
        ({"source": "enwik8", "files": {"all": "x"}}, "only table, parallel, text have files"),
        ({"source": "text", "files": {"all": "x"}, "labels": ["a", "b"]}, "labels, format and header are of 'table'"),
        ({"source": "text", "files": {"all": "x", "train": "y"}}, "all stands alone"),
        ({"source": "text", "files": {"train": "y"}}, "train, validation and test, or all"),
        ({"source": "text", "files": {"dev": "y"}}, "data.files.dev: allowed are"),
        ({"source": "parallel", "files": {"all": "y"}}, "two files, source and target"),
        ({"source": "table", "files": {"validation": "y"}}, "train is missing"),
        ({"source": "table", "files": {"train": "y"}, "labels": ["a"]}, "at least two"),
        ({"source": "text", "files": {"all": []}}, "a path must stand there"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DataConfig(**given)


def text(folder: Path, beside: Path | None, **files: Any) -> ByteText | Corpus:
    config = DataConfig(source="text", files=files, splits=(0.5, 0.25, 0.25), tokeniser="bpe")
    return own_files.load(config, (("text",),), folder, beside)


def test_where_paths_start(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nsix\nten\n\nsun\nsea\n")
    expected = {"train": [("one\ntwo",), ("six",)], "validation": [("ten",), ("sun",)], "test": [("sea",)]}
    for given, folder, beside in (
        ("a.txt", tmp_path, None), ("./a.txt", None, tmp_path), (str(tmp_path / "a.txt"), None, None)
    ):  # fmt: skip
        found = text(folder, beside, all=given)
        assert isinstance(found, Corpus)
        assert {split: list(rows) for split, rows in found.rows.items()} == expected
    with pytest.raises(MissingDataError, match=r"data.files.all = 'a.txt': it starts at --data DIR or POSENC_DATA"):
        text(None, tmp_path, all="a.txt")  # type: ignore[arg-type]
    with pytest.raises(MissingDataError, match=r"'./b.txt': no such file \(it starts where the task's TOML lies"):
        text(tmp_path, tmp_path, all="./b.txt")


def test_running_text_is_cut_in_order_between_lines(tmp_path: Path) -> None:
    lines = [f"line {index:02}" for index in range(40)]
    lines[9] = ""
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    found = text(tmp_path, None, all="a.txt")
    assert isinstance(found, Corpus)
    assert [row[0].count("line") for row in found.rows["train"]] == [9, 11]
    kept = [line for rows in found.rows.values() for row in rows for line in row[0].split("\n")]
    assert kept == [line for line in lines if line]
    (tmp_path / "b.txt").write_text("other\n")
    apart = text(tmp_path, None, train=["a.txt", "b.txt"], validation="b.txt", test="b.txt")
    assert isinstance(apart, Corpus)
    assert [len(rows) for rows in apart.rows.values()] == [3, 1, 1]


def test_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name * 10)
    config = DataConfig(source="text", files={"train": ["a", "b"], "validation": "c", "test": "a"})
    found = own_files.load(config, (), tmp_path, None)
    assert isinstance(found, ByteText)
    parts = {split: bytes(part).decode() for split, part in found.split(config.splits).items()}
    assert parts == {"train": "a" * 10 + "b" * 10, "validation": "c" * 10, "test": "a" * 10}
    whole = own_files.load(DataConfig(source="text", files={"all": ["a", "b", "c", "a"]}), (), tmp_path, None)
    assert whole.digest != found.digest  # the same bytes, cut elsewhere


def test_repeated_rows_fall_to_one_split(tmp_path: Path) -> None:
    texts = [f"text {index % 50}" for index in range(400)]
    content = "x\ty\n" + "".join(f"{one}\t{index}\n" for index, one in enumerate(texts))
    found = table(tmp_path, content, files={"all": "./a.tsv"}, splits=(0.6, 0.2, 0.2))
    parts = [{row[0] for row in rows} for rows in found.rows.values()]
    assert sum(map(len, parts)) == 50
    assert sum(len(rows) for rows in found.rows.values()) == 400


def test_sides_of_other_lengths_are_refused_and_gaps_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("a\n\n" + "b\n" * 40)
    (tmp_path / "a.de").write_text("a\nx\n" + "b\n" * 40)
    (tmp_path / "b.de").write_text("a\n")
    shares = {"splits": (0.34, 0.33, 0.33), "source": "parallel", "tokeniser": "bpe"}
    with pytest.raises(DataError, match=r"a\.en has 42 sentences and .*b.de 1"):
        own_files.load(DataConfig(files={"all": ["a.en", "b.de"]}, **shares), (("source", "target"),), tmp_path, None)  # type: ignore[arg-type]
    files = {"train": ["a.en", "a.de"], "validation": ["a.en", "a.de"], "test": ["a.en", "a.de"]}
    with pytest.raises(DataError, match=r"a\.en, line 2: empty"):
        own_files.load(DataConfig(files=files, **shares), (("source", "target"),), tmp_path, None)  # type: ignore[arg-type]
