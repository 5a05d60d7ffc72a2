"""Tokenisers, the cache of what was made once, rows in batches, and every source of data by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posenc.api.objective import Objective
from posenc.common.errors import ConfigError, DataError, StorageError, UnknownNameError
from posenc.config.settings import Settings
from posenc.config.task import Task, available, plain, task_at
from posenc.data import cache, sources
from posenc.data.cache import Ragged, cached
from posenc.data.corpus import Corpus
from posenc.data.tokens import SPECIAL, Kind, Tokeniser, encoded, spaced, tokeniser
from posenc.objectives import factory
from posenc.objectives.epochs import Epochs, pad

TEXTS = ["The cat sat on the mat.", "A dog, a cat and 12 mice!", "Fünf Männer sitzen auf der Wiese.", "naïve café"] * 30


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_special_tokens_come_first_and_the_vocabulary_keeps_to_its_size(kind: str) -> None:
    found = tokeniser(Kind(kind, 400), TEXTS, "texts", None)
    assert [found.tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert (found.pad, found.unknown, found.cls, found.sep, found.mask) == (0, 1, 2, 3, 4)
    assert 50 < found.size <= 400


def test_bpe_gives_back_every_text_and_wordpiece_every_word_in_lower_case() -> None:
    bpe, wordpiece = (tokeniser(Kind(kind, 600), TEXTS, "texts", None) for kind in ("bpe", "wordpiece"))
    for text in [*TEXTS[:4], "Never seen: ßøπ 漢字 \U0001f600 "]:
        assert bpe.decode(bpe.encode([text])[0]) == text
        assert bpe.unknown not in bpe.encode([text])[0]
    assert wordpiece.decode(wordpiece.encode(["The CAT sat"])[0]) == "the cat sat"
    ids = bpe.encode(["a cat"])[0]
    assert bpe.decode([bpe.cls, *ids, bpe.sep, bpe.pad]) == "a cat"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_bpe_loses_nothing_of_any_text(text: str) -> None:
    found = tokeniser(Kind("bpe", 400), TEXTS, "texts", None)
    assert found.decode(found.encode([text])[0]) == text


def test_a_vocabulary_is_trained_once_for_a_text_and_anew_for_another(own_cache: Path) -> None:
    first = tokeniser(Kind("bpe", 400), TEXTS, "texts", None)
    files = sorted(own_cache.glob("tokeniser-*"))
    assert tokeniser(Kind("bpe", 400), [], "texts", None).key == first.key  # not read again, so not trained again
    assert sorted(own_cache.glob("tokeniser-*")) == files
    assert tokeniser(Kind("bpe", 400), [text.upper() for text in TEXTS], "others", None).key != first.key
    assert tokeniser(Kind("bpe", 270), TEXTS, "texts", None).key != first.key


def test_text_is_tokenised_once_and_kept_by_tokeniser_part_and_data(own_cache: Path) -> None:
    found = tokeniser(Kind("bpe", 400), TEXTS, "texts", None)
    rows = encoded(found, "train", TEXTS, "data")
    assert [row.tolist() for row in rows] == found.encode(TEXTS)
    assert rows.lengths.tolist() == [len(row) for row in found.encode(TEXTS)]
    again = encoded(found, "train", [], "data")
    assert again.values.tolist() == rows.values.tolist()
    assert len([path for path in own_cache.glob("tokens-*") if path.is_dir()]) == 1
    assert len(encoded(found, "test", TEXTS[:1], "data")) == 1
    assert len(encoded(found, "train", TEXTS[:2], "other data")) == 2


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="bpe or wordpiece"):
        tokeniser(Kind("bytes", 400), TEXTS, "texts", None)


def test_a_released_tokeniser_lies_in_the_folder(tmp_path: Path) -> None:
    made = tokeniser(Kind("wordpiece", 300), TEXTS, "texts", None)
    (tmp_path / "bert").mkdir()
    made.tokenizer.save(str(tmp_path / "bert/tokenizer.json"))
    found = tokeniser(Kind("wordpiece", 300, "someone/bert", "main"), [], "", tmp_path)
    assert found.encode(TEXTS[:2]) == made.encode(TEXTS[:2])


def test_a_released_tokeniser_that_cannot_be_had_costs_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.close_connection = True  # without an answer

    server = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code = (
        "from pathlib import Path; from posenc.data.tokens import *\n"
        f"tokeniser(Kind('wordpiece', 30522, 'someone/bert', 'main'), [], '', Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "DataError: the tokeniser of someone/bert: not found at" in done.stderr
    assert "put its tokenizer.json at DIR/bert/tokenizer.json" in done.stderr
    server.shutdown()
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "words"])
def test_every_process_trains_the_same_vocabulary(kind: str, own_cache: Path) -> None:
    """The library's WordPiece trainer numbers pieces by a hash table's order: another in every process."""
    code = (
        "import sys; from posenc.data.tokens import Kind, tokeniser;"
        "texts = [' '.join(f'w{chr(97 + a * b % 26)}{a * b}' for b in range(40)) + '原告借款' for a in range(60)];"
        f"print(tokeniser(Kind('{kind}', 300), texts, sys.argv[1], None).key)"
    )
    keys = {
        subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, text=True, check=True).stdout
        for n in range(3)  # a digest of its own each, or the second would read what the first has kept
    }
    assert len(keys) == 1


CHINESE = ["原告张某与被告李某系朋友关系，被告借款不还。", "被告李某在Python3公司，系原告的朋友，1992年借款。"] * 20


def test_characters_are_tokens_of_their_own_and_words_are_jiebas() -> None:
    characters, words = (tokeniser(Kind(kind, 200), CHINESE, "chinese", None) for kind in ("characters", "words"))
    assert pieces(characters, "原告与朋友借款") == list("原告与朋友借款")
    assert pieces(words, "原告与朋友借款") == ["原告", "与", "朋友", "借款"]
    # 关系 is a word of jieba's, and here of the vocabulary; 友告 is none, and 与 stands alone.
    assert pieces(words, "朋友关系友告") == ["朋友", "关系", "友", "告"]
    for found in (characters, words):
        assert [found.tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
        assert "[UNK]" not in pieces(found, "Python3")
    assert characters.key != words.key


def test_a_word_that_the_vocabulary_lacks_is_read_by_its_characters() -> None:
    found = tokeniser(Kind("words", 200), CHINESE, "chinese", None)
    assert found.words is not None and "告款" not in found.words
    assert spaced("朋友借款", {"朋友"}).split() == ["朋友", "借", "款"]
    assert spaced("关系abc友", {"关系"}).split() == ["关系", "abc", "友"]


def test_a_small_vocabulary_keeps_to_its_size_whatever_the_characters() -> None:
    many = ["".join(chr(0x4E00 + 50 * row + place) for place in range(50)) for row in range(100)]
    for kind in ("characters", "words"):
        assert tokeniser(Kind(kind, 300), many, kind, None).size <= 300


def test_a_released_vocabulary_of_words_is_read_from_its_list(tmp_path: Path) -> None:
    folder = tmp_path / "roformer_chinese_base"
    folder.mkdir()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "原", "告", "原告", "朋", "友", "a", "##b"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    kind = Kind("words", 0, "junnyu/roformer_chinese_base", "main")
    found = tokeniser(kind, [], "", tmp_path)
    assert found.size == len(tokens)
    assert pieces(found, "原告朋友AB") == ["原告", "朋", "友", "a", "##b"]
    assert found.encode(["原告"]) == [[7]], "ids are the places in the list"
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n原\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no \[CLS\]"):
        tokeniser(Kind("words", 1, "junnyu/roformer_chinese_base", "main"), [], "", tmp_path)
    (folder / "vocab.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"vocab.txt is damaged"):
        tokeniser(Kind("words", 2, "junnyu/roformer_chinese_base", "main"), [], "", tmp_path)


def pieces(found: Tokeniser, text: str) -> list[str]:
    return [str(found.tokenizer.id_to_token(token)) for token in found.encode([text])[0]]


def test_what_is_kept_is_made_once_and_damage_is_said(own_cache: Path) -> None:
    made = []

    def make() -> cache.Arrays:
        made.append(1)
        return {"a": np.arange(3)}

    for _ in range(3):
        assert cached("kind", {"x": 1}, make)["a"].tolist() == [0, 1, 2]
    assert len(made) == 1
    (path,) = (path for path in own_cache.glob("kind-*") if path.is_dir())
    (path / "a").write_bytes((path / "a").read_bytes()[:20])
    with pytest.raises(DataError, match=r"kind-.* is damaged \(a has 20 bytes, and had 24\): delete it"):
        cached("kind", {"x": 1}, make)
    shutil.rmtree(path)
    assert cached("kind", {"x": 1}, make)["a"].tolist() == [0, 1, 2]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(StorageError, match="cannot be written"):
        cached("kind", 1, lambda: {"a": np.arange(3)})


@given(st.lists(st.lists(st.integers(0, 1000), max_size=6), max_size=8))
def test_ragged_rows_come_back(rows: list[list[int]]) -> None:
    ragged = Ragged.of(rows)
    assert [ragged[index].tolist() for index in range(len(ragged))] == rows
    tokens, mask = pad([ragged[index] for index in range(len(ragged))], 7)
    assert [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)] == rows
    assert (tokens[~mask] == 7).all()


@given(st.lists(st.integers(1, 50), min_size=4, max_size=300), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_has_no_row_twice_and_the_next_another_order(lengths: list[int], batch: int, seed: int) -> None:
    epochs = Epochs(lengths, batch)
    first = np.concatenate([epochs.rows(seed, step) for step in range(1, epochs.steps + 1)])
    assert len(set(first.tolist())) == len(first) == len(lengths) // batch * batch
    second = np.concatenate([epochs.rows(seed, step) for step in range(epochs.steps + 1, 2 * epochs.steps + 1)])
    assert len(set(second.tolist())) == len(first)
    again = Epochs(lengths, batch)
    assert again.rows(seed, epochs.steps + 1).tolist() == epochs.rows(seed, epochs.steps + 1).tolist()


def test_batches_hold_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 3200)
    epochs = Epochs(lengths, 32)
    spread = [np.ptp(lengths[epochs.rows(0, step)]) for step in range(1, 101)]
    assert np.mean(spread) < 10


@pytest.mark.parametrize("kind", sources.GENERATED)
def test_generated_data_say_so_and_share_no_row_between_splits(kind: str) -> None:
    found = sources.load(f"generated/{kind}", None)
    assert isinstance(found, Corpus)
    assert found.generated
    assert found.name.startswith("generated ")
    assert found.fields == sources.GENERATED[kind][1]
    rows = {split: set(found.rows[split]) for split in found.rows}
    assert not any(one & other for one, other in combinations(rows.values(), 2))
    wanted = sources.TESTS if kind.startswith("lm-eval/") else sources.ROWS
    assert {split: len(one) for split, one in rows.items()} == wanted


def test_an_unknown_source_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'multi30k'"):
        sources.load("multi30", None)


def settings_of(task: Task, digest: str) -> Settings:
    written = plain(task)
    taken = {key: written[key] for key in ("objective", "start", "length", "backbone", "training", "evaluation")}
    place = {"schema": 1, "task": task.name, "task_version": task.version, "scale": "smoke", "seed": 0, "parent": None}
    place |= {"encoding": {"name": "none"}, "max_length": task.length, "runtime": written["runtime"]}
    return Settings.of({**place, **taken, "data": {**written["data"], "digest": digest}})


def made_of(task: Task) -> Objective:
    _, digest = factory.data(task.data, task.objective, None)
    return factory.make(settings_of(task, digest), None)


@pytest.mark.parametrize("name", available("tasks"))
def test_every_task_makes_batches_at_smoke_without_a_network(name: str) -> None:
    """What the tests of single objectives cannot see: that the TOMLs' keys fit each other and their data."""
    task = task_at(name, "smoke", {})
    _, digest = factory.data(task.data, task.objective, None)
    made = factory.make(settings_of(task, digest), None)
    if task.objective == "theory":
        assert not made.baselines() and made.tests == [("theory", 512)]
        return
    if task.objective == "harness":
        assert made.baselines() and {split for split, _ in made.tests} == {"test"} and made.data["generated"]
        return
    if not made.learns:
        assert not made.baselines() and {split for split, _ in made.tests} == {"anatomy"}
        return
    batch = made.batch(0, 1, task.training.batch)
    assert len(batch[0]) == task.training.batch
    assert 0 < made.targets(batch) <= made.seen(batch) <= 4 * task.training.batch * max(task.length, 64)
    assert made.data["generated"] == (task.data.source not in ("stdlib", "images/digits"))
    assert made.baselines()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mlm", {"data.source": "generated/translations"}, r"objective 'masked_lm' wants text"),
        ("mlm", {"data.source": "stdlib"}, r"cannot learn from it"),
        ("enwik8", {"data.source": "generated/documents"}, r"cannot learn from it"),
        ("glue/sst2", {"data.vocabulary_of": "stdlib"}, r"it has no rows of text"),
        ("glue/sst2", {"data.source": "generated/entailments"}, r"outputs = 2: generated entailments has 3"),
        ("multi30k", {"backbone.vocabulary": 100}, r"vocabulary = 100: the tokeniser has 26\d tokens"),
        ("multi30k", {"evaluation.tokens": 100}, r"whole sentences"),
    ],
)
def test_data_that_do_not_fit_are_refused(name: str, changes: dict[str, object], message: str) -> None:

    task = task_at(name, "smoke", {key: (value, "test") for key, value in changes.items()})
    with pytest.raises((ConfigError, DataError), match=message):
        made_of(task)


def test_data_that_changed_since_the_plan_are_refused() -> None:
    with pytest.raises(DataError, match="has changed since the plan was made"):
        factory.make(settings_of(task_at("mlm", "smoke", {}), "0" * 64), None)


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSENC_CACHE", "/somewhere")
    assert cache.folder() == Path("/somewhere")
    monkeypatch.delenv("POSENC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/else")
    assert cache.folder() == Path("/else/posenc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache/posenc"
    assert os.environ.get("POSENC_CACHE") is None
