"""What a kill leaves half-written is swept at the next start, and what others write just now is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from made import cell, make_store, record

from posenc.common import files
from posenc.records.store import Store
from posenc.running import torchrun

WRITES = """
import os, sys
from pathlib import Path
from posenc.common import files

def wait(descriptor):
    print("writing", flush=True)
    sys.stdin.read()

files.os.fsync = wait
files.write_atomically(Path(sys.argv[1]), "half of it")
"""


def writing(path: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing a file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, str(path)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == "writing\n"
    return process


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if files.is_temporary(path)]


def test_a_run_sweeps_what_the_dead_have_left_and_nothing_else(tmp_path: Path) -> None:
    ended = cell("rope", 0)
    store = make_store(tmp_path, [ended], [record(ended, 2.0, 3.0)])
    own = store.folder / ".notes.of mine"
    own.write_text("x")
    (store.folder / "report" / "figures").mkdir(parents=True)
    places = [
        store.manifest_path,
        store.cell_folder(ended["id"]) / "record.json",
        store.folder / "report/figures/a.svg",
    ]
    processes = [writing(path) for path in (*places, store.folder / "driver.json")]
    try:
        for process in processes[:-1]:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert len(temporaries(tmp_path)) == 4
        with store.locked("posenc run fake"):
            (left,) = temporaries(tmp_path)
            assert left.name.startswith(".driver.json.")
        _, _ = processes[-1].communicate("")
        assert processes[-1].returncode == 0
        assert (store.folder / "driver.json").read_text() == "half of it"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert temporaries(tmp_path) == []
    assert own.read_text() == "x"
    assert store.read_record(ended["id"]) is not None


def test_a_file_swept_before_it_was_locked_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = tempfile.mkstemp, []

    def swept_once(**given: str) -> tuple[int, str]:
        descriptor, name = real(**given)
        made.append(name)
        if len(made) == 1:
            files.sweep(tmp_path)
        return descriptor, name

    monkeypatch.setattr(tempfile, "mkstemp", swept_once)
    files.write_atomically(tmp_path / "file", "whole")
    assert len(made) == 2
    assert os.listdir(tmp_path) == ["file"]


def test_folders_of_dead_groups_are_swept_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with torchrun._place() as (place, held):
        (place / "cell.json").write_text("{}")
        child = subprocess.Popen(["sleep", "100"], pass_fds=(held,))
        dead, alive = tmp_path / "posenc-torchrun-dead", tmp_path / "posenc-torchrun-alive"
        dead.mkdir()
        (dead / "lock").touch()
        alive.mkdir()  # not yet locked
        torchrun.sweep()
        assert place.is_dir() and alive.is_dir() and not dead.exists()
    assert not place.exists()
    child.kill()
    child.wait()


def test_a_group_outlives_its_worker_and_holds_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = tmp_path / "posenc-torchrun-group"
    place.mkdir()
    worker = "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX); "
    worker += "import subprocess; p = subprocess.Popen(['sleep', '100'], stdout=-3, pass_fds=(f,)); print(p.pid)"
    done = subprocess.run([sys.executable, "-c", worker, str(place / "lock")], stdout=subprocess.PIPE, text=True)
    torchrun.sweep()
    assert place.is_dir()
    group = int(done.stdout)
    os.kill(group, signal.SIGKILL)
    for _ in range(200):  # until the system has closed its files
        torchrun.sweep()
        if not place.exists():
            break
        time.sleep(0.05)
    assert not place.exists()


def test_a_store_of_another_kind_of_name_is_left(tmp_path: Path) -> None:
    names = [".lock", ".gitignore", "record.json.abcdefgh", ".record.json", ".a.toolongtobeone"]
    for name in names:
        (tmp_path / name).touch()
    with Store(tmp_path).locked("posenc run x"):
        assert {*names} <= set(os.listdir(tmp_path))
