"""What tests of whole runs share: tiny cells, the command line in a process of its own, a package of bad encodings."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warm import Process, Server

from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store

SETTINGS: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16,
    "backbone.attention": "softmax", "training.steps": 10, "training.batch": 4, "training.validate_every": 5,
    "training.log_every": 1, "evaluation.tokens": 256,
}  # fmt: skip

STAGES = [
    {"length": 16, "batch": 4, "steps": 3},
    {"length": 48, "batch": 2, "steps": 2},
    {"length": 8, "batch": 8, "accumulate": 2, "steps": 2},
]
STAGED: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 16, "backbone.heads": 2, "backbone.feedforward": 16,
    "backbone.dropout": 0.1, "training.steps": 7, "training.stages": STAGES, "training.validate_every": 3,
    "training.log_every": 1, "evaluation.tokens": 512,
}  # fmt: skip


def options(**changes: Any) -> list[str]:
    """SETTINGS as a command line has them; `training__steps=20` changes one."""
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]


def cells(*encodings: str, seeds: tuple[int, ...] = (0,), **changes: Any) -> list[Cell]:
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return make(find_suite("enwik8"), Selection(encodings=encodings, lengths=[16], seeds=seeds, changes=chosen)).cells


def environment(**more: str) -> dict[str, str]:
    left_out = ("POSENC_DATA", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    return {**{key: value for key, value in os.environ.items() if key not in left_out}, **more}


@functools.cache
def warm() -> Server:
    return Server()


def start(folder: Path, *arguments: str, **more: str) -> Process:
    """`posenc ...` in a process group of its own, forked off one that has its libraries."""
    return warm().start(arguments, folder, environment(**more))


def apart(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `posenc ...` to its end; its standard output and its standard error."""
    process = warm().start(arguments, folder, environment(**more), apart=True)
    try:
        output, error = process.communicate()
    finally:
        stop(process)
    return subprocess.CompletedProcess(arguments, process.wait(), output, error)


def posenc(folder: Path, *arguments: str, status: int | None = 0, **more: str) -> str:
    """Run `posenc ...` to its end; its output."""
    process = start(folder, *arguments, **more)
    try:
        output, _ = process.communicate()
    finally:
        stop(process)
    assert status is None or process.returncode == status, output
    return output


def stop(process: Process | subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def wait_until(condition: Callable[[], object]) -> None:
    """However slow the machine is: what never happens ends with the time of the whole test."""
    while not condition():
        time.sleep(0.05)


def workers_of(process: Process | subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split()]


def numbers(store: Store, cell_id: str) -> tuple[Any, ...]:
    """All of a cell's record and curve that must come out the same again: not times, memory or the code's state."""
    record = store.read_record(cell_id)
    assert record is not None
    noisy = ("times", "tokens_per_second", "peak_memory_bytes", "digest", "code")
    kept = {key: value for key, value in record.items() if key not in noisy}
    return kept, [{key: value for key, value in row.items() if key != "seconds"} for row in store.curve(cell_id)]


def listening(ancestor: int) -> set[str]:
    """The addresses on which the descendants of a process listen."""
    sockets: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A":
                raw = parts[1].split(":")[0]
                mapped = raw.removeprefix("0000000000000000FFFF0000")  # an IPv4 address in IPv6's table
                octets = (str(int(mapped[i : i + 2], 16)) for i in (6, 4, 2, 0))
                sockets[parts[9]] = ".".join(octets) if len(mapped) == 8 else raw
    found = set()
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    for process in parents:
        line = process
        while line in parents and line != ancestor:
            line = parents[line]
        if line != ancestor or process == ancestor:
            continue
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
        except OSError:
            continue
        found |= {sockets[link[8:-1]] for link in links if link.startswith("socket:[") and link[8:-1] in sockets}
    return found


FAULTY = '''
"""Encodings that go wrong, each in its own way."""
import os, signal, sys, time
from pathlib import Path
import torch
from posenc.api.encoding import Encoding

class Faulty(Encoding):
    title = "goes wrong"

    def embed(self, embeddings, positions, context):
        if embeddings.device.type != "meta":
            self.go_wrong()
        return embeddings * self.factor()

    def factor(self):
        return 1.0

    def go_wrong(self):
        pass

class Raises(Faulty):
    def go_wrong(self):
        raise RuntimeError("broken on purpose")

class Diverges(Faulty):
    def factor(self):
        return float("nan")

class Hungry(Faulty):
    def go_wrong(self):
        torch.zeros(2**50)

class Slow(Faulty):
    def go_wrong(self):
        if not Path(os.environ["FAULTY"], "fast").exists():
            time.sleep(4.0)

class Hangs(Faulty):
    def go_wrong(self):
        if "FAULTY" in os.environ:
            Path(os.environ["FAULTY"], "hangs").touch()
        time.sleep(10_000)

class Dies(Faulty):
    def go_wrong(self):
        os.kill(os.getpid(), signal.SIGKILL)

class DiesOnce(Faulty):
    def go_wrong(self):
        mark = Path(os.environ["FAULTY"], "died")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

class Waits(Faulty):
    passes = 0

    def go_wrong(self):
        self.passes += 1
        while not Path(os.environ["FAULTY"], "go").exists():
            time.sleep(0.05)
            if self.passes <= 30:
                break

class Tells(Faulty):
    def go_wrong(self):
        compiler = "compiler" if "torch._dynamo" in sys.modules else "plain"
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        Path(os.environ["FAULTY"], f"{os.getpid()}").write_text(f"{gpus} {compiler}")
'''


def install_faulty(folder: Path) -> str:
    """Lay out a package with the encodings of FAULTY as pip does; the folder for PYTHONPATH."""
    info = folder / "faulty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    names = ["Raises", "Diverges", "Hungry", "Slow", "Hangs", "Dies", "DiesOnce", "Waits", "Tells"]
    points = "\n".join(f"{name.lower()} = faulty:{name}" for name in names)
    (info / "entry_points.txt").write_text(f"[posenc.encodings]\n{points}\n")
    (folder / "faulty.py").write_text(FAULTY)
    return str(folder)
