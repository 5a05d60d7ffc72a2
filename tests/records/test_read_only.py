"""Results that may only be read: what only reads writes nothing, and what must write says so in a line."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import cell, make_store, record

import posenc
from posenc.cli import main
from posenc.common.errors import StoreError
from posenc.records.store import Store

CELLS = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
OPENED: list[str] | None = None
"""While it is a list: the files that were opened for writing, created, renamed or removed."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is None:
        return
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & writes:
        OPENED.append(str(arguments[0]))
    if event in ("os.remove", "os.mkdir", "os.rename", "os.chmod", "os.utime", "os.truncate"):
        OPENED.append(str(arguments[0]))


sys.addaudithook(_watch)


def finished(folder: Path) -> Store:
    store = make_store(folder, CELLS, [record(one, 2.0, 3.0) for one in CELLS])
    (store.folder / "driver.lock").touch()
    return store


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder with what a write would change."""
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {str(path): (one.st_ino, one.st_size, one.st_mtime_ns) for path, one in found.items()}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Nothing under the folder is opened for writing, made or removed meanwhile."""
    global OPENED
    before, OPENED = listing(folder), []
    try:
        yield
        assert [path for path in OPENED if path.startswith(str(folder))] == []
    finally:
        OPENED = None
    assert listing(folder) == before


def asked(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(part) for part in arguments])


def test_what_only_reads_writes_nothing(tmp_path: Path) -> None:
    store = finished(tmp_path / "results")
    with untouched(store.folder.parent):
        found = asked("status", "fake", "--results", store.folder.parent)
        assert "done          4" in found.output, found.output
        assert asked("compare", store.folder, store.folder).exit_code == 0
        assert asked("report", store.folder, "--output", tmp_path / "elsewhere").exit_code == 0
        assert len(posenc.load_records(store.folder)) == 12
    assert (tmp_path / "elsewhere" / "index.html").is_file()


def test_who_looks_at_the_lock_sees_its_holder_and_keeps_no_driver_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.holder() is None
    with store.locked("posenc run x"):
        with untouched(tmp_path):
            holder = store.holder()
        assert holder is not None and holder["process"] == os.getpid()
        assert holder["command"] == "posenc run x"
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"), Store(tmp_path).locked("another"):
            pass
    assert store.holder() is None


def test_a_driver_waits_for_who_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = finished(tmp_path)
    looking = os.open(store.folder / "driver.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    real, tries = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        tries.append(how)
        if len(tries) == 2:
            os.close(looking)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with store.locked("posenc run fake"):
        assert len(tries) >= 2


def test_a_driver_that_may_not_write_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = finished(tmp_path), os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    words = f"results cannot be written to {store.folder}: Permission denied"
    with pytest.raises(StoreError, match=words) as found, store.locked("posenc run fake"):
        pass
    assert found.value.exit_status == 2


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder on a file system that takes no writes, from root either."""
    if subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True).returncode:
        pytest.skip("a folder cannot be mounted read-only here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_file_system_that_takes_no_writes(tmp_path: Path) -> None:
    store = finished(tmp_path / "results")
    with read_only(tmp_path / "results"):
        assert "done          4" in asked("status", "fake", "--results", tmp_path / "results").output
        assert asked("report", store.folder, "--output", tmp_path / "elsewhere").exit_code == 0
        beside = asked("report", store.folder)
        assert beside.exit_code == 2, beside.output
        assert "cannot be written (Read-only file system)" in beside.output
        for suite in ("fake", "enwik8"):  # a folder that is there, and one that is not
            (tmp_path / f"{suite}.toml").write_text(
                f'name = "{suite}"\ntitle = "x"\nbaseline = "none"\nseeds = [0]\n[[grid]]\ntasks = ["enwik8"]\n'
                'encodings = ["none"]\nlengths = [16]\n'
            )
            run = asked("run", tmp_path / f"{suite}.toml", "--results", tmp_path / "results")
            assert run.exit_code == 2, run.output
            assert run.output.count("\n") == 1
            assert f"results cannot be written to {tmp_path / 'results' / suite}: Read-only" in run.output
