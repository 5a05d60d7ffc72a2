"""With what a result was made: this tree's commit and no other's, torch's own version, the processor's instructions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made import cell, make_store, record

from posenc.records import provenance
from posenc.report.compare import compare


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    for known in (provenance.code, provenance.versions):
        known.cache_clear()
    yield
    for known in (provenance.code, provenance.versions):
        known.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, env=clean, check=True, capture_output=True, text=True).stdout.strip()


def tree(folder: Path) -> Path:
    """A checkout that holds posenc's provenance.py; the file."""
    file = folder / "posenc" / "records" / "provenance.py"
    file.parent.mkdir(parents=True)
    shutil.copy(provenance.__file__, file)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return file


def test_another_repository_in_the_environment_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = tree(tmp_path / "ours"), tree(tmp_path / "theirs")
    (tmp_path / "theirs" / "more").touch()
    git(tmp_path / "theirs", "add", ".")
    git(tmp_path / "theirs", "commit", "-qm", "y")
    monkeypatch.setattr(provenance, "__file__", str(ours))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "ours"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "theirs" / ".git" / "index"))
    assert provenance.code() == {"commit": git(tmp_path / "ours", "rev-parse", "HEAD"), "dirty": False}
    assert theirs.is_file()


def test_a_tree_that_is_no_checkout_of_posenc_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tree(tmp_path / "theirs")
    installed = tmp_path / "theirs" / "venv" / "posenc" / "records" / "provenance.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(theirs, installed)
    for file in (installed, tmp_path / "none" / "posenc" / "records" / "provenance.py"):
        monkeypatch.setattr(provenance, "__file__", str(file))
        provenance.code.cache_clear()
        assert provenance.code() == {"commit": None, "dirty": None}
    # A user's own repository whose folder posenc was unpacked into, and that does not know it.
    git(tmp_path / "theirs", "rm", "-q", "--cached", str(theirs))
    git(tmp_path / "theirs", "commit", "-qm", "z", "--allow-empty")
    monkeypatch.setattr(provenance, "__file__", str(theirs))
    provenance.code.cache_clear()
    assert provenance.code() == {"commit": None, "dirty": None}


def test_the_version_of_torch_is_its_own_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    assert provenance.versions()["torch"] == "2.14.1+cu130"


def test_a_record_tells_processor_and_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = provenance.hardware("cpu")
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu"]
    assert [found[key] for key in ("gpu", "driver", "cuda", "cudnn")] == [None] * 4
    told = tmp_path / "version"
    told.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\nGCC 1.2.3\n"
    )
    monkeypatch.setattr(provenance, "NVIDIA", told)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    found = provenance.hardware("cuda")
    assert [found[key] for key in ("gpu", "driver", "cuda", "cudnn")] == ["a card", "580.65.06", "13.0", "91002"]


def test_compare_tells_where_pairs_ran_on_other_machines(tmp_path: Path) -> None:
    cells = [cell("sinusoidal", seed) for seed in (0, 1)]

    def ran(folder: str, **machines: Any) -> Any:
        told = [{"cpu": "a CPU", "cores": 2, "gpu": None, **machine} for machine in machines["on"]]
        versions = {"python": "3.11.7", "torch": machines.get("torch", "2.14.1+cpu")}
        records = [record(one, 2.0, 3.0, hardware=told[i], versions=versions) for i, one in enumerate(cells)]
        return make_store(tmp_path / folder, cells, records)

    avx2, avx512 = {"instructions": "AVX2"}, {"instructions": "AVX512"}
    same = compare(ran("a", on=[avx2, avx512]), ran("b", on=[avx2, avx512]))
    assert not same.changes
    assert not any("last bits" in caution for caution in same.cautions)
    # The same machines in all, and every cell on another than its pair.
    crossed = compare(ran("c", on=[avx2, avx512]), ran("d", on=[avx512, avx2]))
    assert crossed.changes == (
        ("CPU instructions (1 cell of 2)", "AVX2", "AVX512"),
        ("CPU instructions (1 cell of 2)", "AVX512", "AVX2"),
    )
    assert any("last bits" in caution for caution in crossed.cautions)
    other = compare(ran("e", on=[avx2, {}]), ran("f", on=[{**avx2, "gpu": "a card"}, avx2], torch="2.14.1+cu130"))
    assert other.changes == (
        ("torch", "2.14.1+cpu", "2.14.1+cu130"),
        ("CPU instructions (1 cell of 2)", "not recorded", "AVX2"),
        ("GPU (1 cell of 2)", "none", "a card"),
    )
