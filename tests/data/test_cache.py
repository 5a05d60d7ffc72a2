"""The cache: made once, whole or not at all, never taken for what it is not; and memory that no corpus fills."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from posenc.common.errors import DataError, StorageError
from posenc.data import cache, documents
from posenc.data.cache import Stream, Writer, built, cached, content_digest
from posenc.data.corpus import Rows


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "cache"))
    documents.chinese.cache_clear()
    return tmp_path / "cache"


def write(writer: Writer) -> Mapping[str, object]:
    values = writer.stream("values", np.uint16)
    for part in ([1, 2, 3], [4], []):
        values.append(part)
    writer.stream("none", np.int64)
    return {"said": "so"}


def entry_at(folder: Path) -> Path:
    (found,) = (path for path in folder.glob("kind-*") if path.is_dir())
    return found


def test_arrays_come_back_mapped_and_read_only_with_their_facts() -> None:
    entry = built("kind", 1, write)
    assert isinstance(entry["values"], np.memmap)
    assert entry["values"].tolist() == [1, 2, 3, 4]
    assert entry["none"].tolist() == []
    assert (entry.length("values"), entry.length("none"), entry.facts) == (4, 0, {"said": "so"})
    with pytest.raises(ValueError, match="read-only"):
        entry["values"][0] = 7


@pytest.mark.parametrize("name", ["values", "manifest.json"])
def test_any_flipped_bit_is_said(own_cache: Path, name: str, fresh_seed: int) -> None:
    built("kind", 1, write)
    path = entry_at(own_cache) / name
    whole = path.read_bytes()
    dice = random.Random(fresh_seed)
    for _ in range(40):
        raw = bytearray(whole)
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
        path.write_bytes(raw)
        cache._sound.clear()  # as in another process
        with pytest.raises(DataError, match=r"kind-\w+ is damaged \(.*\): delete it, and it is made again"):
            built("kind", 1, write)["values"]
    path.write_bytes(whole)
    assert built("kind", 1, write)["values"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"digest": 3}', b"\xff"])
def test_a_manifest_that_is_none_is_said(own_cache: Path, content: bytes) -> None:
    built("kind", 1, write)
    (entry_at(own_cache) / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        built("kind", 1, write)


@pytest.mark.parametrize("name", ["values", "manifest.json"])
def test_a_file_that_is_gone_is_said(own_cache: Path, name: str) -> None:
    built("kind", 1, write)
    (entry_at(own_cache) / name).unlink()
    with pytest.raises(DataError, match="is damaged"):
        built("kind", 1, write)["values"]


def test_a_full_disk_is_said_and_leaves_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: Stream, values: object) -> None:
        stream._file.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Stream, "append", full)
        with pytest.raises(StorageError, match="No space left on device"):
            built("kind", 1, write)
    assert [path.name for path in own_cache.iterdir() if path.is_dir()] == []
    assert built("kind", 1, write)["values"].tolist() == [1, 2, 3, 4]


def test_what_cannot_be_made_leaves_nothing_and_what_a_killed_process_left_is_swept(own_cache: Path) -> None:
    def fail(writer: Writer) -> Mapping[str, object]:
        writer.stream("values", np.uint16).append([1])
        raise DataError("line 3 is wrong")

    with pytest.raises(DataError, match="line 3 is wrong"):
        built("kind", 1, fail)
    assert [path for path in own_cache.iterdir() if path.is_dir()] == []
    built("kind", 1, write)
    path = entry_at(own_cache)
    left = path.rename(path.with_name(f".{path.name}.999"))
    built("kind", 1, write)
    assert not left.exists()


def test_who_asks_at_once_waits_and_it_is_made_once(own_cache: Path) -> None:
    code = (
        "import time, sys; from pathlib import Path; import numpy as np; from posenc.data.cache import cached\n"
        "def make():\n"
        "    with open(sys.argv[1], 'a') as file: file.write('x')\n"
        "    time.sleep(0.5)\n"
        "    return {'a': np.arange(3)}\n"
        "print(cached('kind', 1, make)['a'].tolist())"
    )
    own_cache.mkdir()
    log = own_cache / "log"

    def ask(_: int) -> str:
        asked = [sys.executable, "-c", code, str(log)]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(ask, range(3))) == {"[0, 1, 2]\n"}
    assert log.read_text() == "x"


def test_a_cache_that_may_only_be_read_is_read(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached("kind", 1, lambda: {"a": np.arange(3)})
    monkeypatch.setattr(cache, "_build", lambda *given: pytest.fail("nothing is to be written"))
    assert cached("kind", 1, dict)["a"].tolist() == [0, 1, 2]


class TestContentDigest:
    def test_a_file_is_read_once_while_it_is_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "SETTLED", -(10**18))
        path = tmp_path / "file"
        path.write_bytes(b"one")
        first = content_digest(path)
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_summed", lambda file: pytest.fail("it is read again"))
            assert content_digest(path) == first

    def test_a_change_that_keeps_size_and_time_shows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "SETTLED", -(10**18))
        path = tmp_path / "file"
        path.write_bytes(b"one")
        stat = path.stat()
        first = content_digest(path)
        other = tmp_path / "other"
        other.write_bytes(b"two")
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(path)
        assert path.stat().st_mtime_ns == stat.st_mtime_ns
        assert content_digest(path) != first

    def test_what_has_just_changed_is_not_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "SETTLED", 10**18)
        path = tmp_path / "file"
        path.write_bytes(b"one")
        content_digest(path)
        assert not list((tmp_path / "cache").glob("files/*"))

    def test_a_damaged_note_has_the_file_read_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "SETTLED", -(10**18))
        path = tmp_path / "file"
        path.write_bytes(b"one")
        first = content_digest(path)
        (note,) = (tmp_path / "cache/files").iterdir()
        for content in ("", "null", "[]", '{"state": 1}', json.dumps({**json.loads(note.read_text()), "sha256": 3})):
            note.write_text(content)
            assert content_digest(path) == first


def test_a_corpus_is_read_once_and_anew_when_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chinese/wikipedia.txt"
    path.parent.mkdir()
    path.write_text("\n\n".join(f"Text {number}." for number in range(100)))
    first = documents.chinese(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(documents, "_split", lambda *given: pytest.fail("it is read again"))
        documents.chinese.cache_clear()
        again = documents.chinese(tmp_path)
    assert again == first
    rows = again.rows["train"]
    assert isinstance(rows, Rows)
    assert rows[-1] == list(rows)[-1] == rows[len(rows) - 1]
    assert rows[:3] == list(rows)[:3]
    with pytest.raises(IndexError):
        rows[len(rows)]
    path.write_text(path.read_text().replace("Text 7.", "Text 8!"))
    documents.chinese.cache_clear()
    assert documents.chinese(tmp_path).digest != first.digest


MEASURED = """
import sys, threading
from pathlib import Path
import numpy as np
from posenc.config.task import task_at
from posenc.data import documents
from posenc.data.corpus import Texts
from posenc.data.tokens import Kind, counts, running, tokeniser

def own():  # kilobytes that are the process' own: pages of mapped files are the system's to take back
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])

done, most = threading.Event(), [0]
def watch():
    while not done.wait(0.01):
        most[0] = max(most[0], own())
watcher = threading.Thread(target=watch)
watcher.start()
from posenc.objectives.masked_lm import MaskedLM
task = task_at("mlm", "smoke", {})
folder = Path(sys.argv[1])
corpus = documents.chinese(folder)
tokens = tokeniser(Kind("wordpiece", 500), Texts(corpus.rows["train"], 0), corpus.digest, folder)
learnt = MaskedLM(corpus, tokens, 128, task.training, task.evaluation)
for step in range(1, 200):
    learnt.batch(0, step, 32)
learnt.baselines()
done.set()
watcher.join()
print(most[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the system does not tell a process' own memory")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Ten times the text: as much memory, but for the offsets of its documents (8 bytes each)."""
    dice = random.Random(0)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(2, 6))) for _ in range(500)]
    found = []
    for megabytes in (4, 40):
        folder = tmp_path / str(megabytes)
        (folder / "chinese").mkdir(parents=True)
        size = 0
        with (folder / "chinese/wikipedia.txt").open("w") as file:
            while size < megabytes * 10**6:
                size += file.write(" ".join(dice.choices(words, k=1000)) + "\n\n")
        code = [sys.executable, "-c", MEASURED, str(folder)]
        environment = {**os.environ, "POSENC_CACHE": str(folder / "cache")}
        found.append(int(subprocess.run(code, capture_output=True, text=True, check=True, env=environment).stdout))
    print("megabytes at most:", [round(peak / 1024) for peak in found])
    assert found[1] < found[0] + 15_000
