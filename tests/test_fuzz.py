"""What nobody meant to write, and files that nobody meant to damage: a line and status 2, never a traceback.

A fresh seed each run, printed; POSENC_FUZZ_SEED gives one of one's own.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import string
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import options

from posenc.cli import main as program

pytestmark = pytest.mark.slow

WRITINGS, DAMAGED = 1000, 300
ALLOWED = (0, 2, 3)
LINES = 4

SUITE = """name = "mine"
title = "A suite"
baseline = "sinusoidal"
scale = "smoke"
seeds = [0, 1]
lengths = [16, 32]
tune = { "training.learning_rate" = [1e-3, 3e-3] }

[[grid]]
tasks = ["enwik8"]
encodings = ["sinusoidal", "rope(base=500000)", "layers(rope, none, every=2)"]
set = { "backbone.attention" = "softmax", "training.steps" = 10 }
"""

JUNK = [
    "", "0", "-1", "1e400", "nan", "inf", "true", "[]", "{}", '""', "[[]]", "99999999999999999999", "1e-320", "0x10",
    "'", '"', "[", "]]", "{", "}", "=", "\\u0000", "\x1b[31m", "=cmd()", "../..", "/", "~", "\N{SNOWMAN}", "a" * 5000,
    "[" * 200, "(" * 200, "2026-01-01", "null", "None", "__class__", "{time = [0.5]}", "rope+rope", "layers(none)",
    "\ud800".encode("utf-8", "replace").decode(), "1_000", "+", ",", "#", "\t", "%s", "{0}", "$HOME", "*", "smoke",
]  # fmt: skip
KEYS = [
    "training.steps", "training.batch", "training.learning_rate", "training.schedule", "training.stages", "length",
    "backbone.layers", "backbone.width", "backbone.heads", "backbone.attention", "backbone.dropout", "backbone.norm",
    "evaluation.length_factors", "evaluation.tokens", "runtime.threads", "data.source", "data.splits", "objective",
    "name", "title", "version", "card", "scales", "training", "backbone", "", ".", "training.", "training.nothing",
]  # fmt: skip
ENCODINGS = [
    "none", "rope", "rope(base=500000)", "rope(fraction=0.5)", "sinusoidal+rope", "t5(buckets=8, max_distance=16)",
    "shaw(clip=4)", "learned", "nezha(clip=8)", "layers(rope, none, every=2)", "layers(rope, t5, every=2, window=4)",
    "rope_outside", "./missing.py:Mine", "all",
]  # fmt: skip


def fuzzed(text: str, chance: random.Random) -> str:
    """A text with one to four small things done to it."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.randint(1, 12))
        lines = text.splitlines(keepends=True)
        what = chance.randrange(8)
        if what == 0:
            text = text[:at] + chance.choice(JUNK) + text[end:]
        elif what == 1:
            text = text[:at] + text[end:]
        elif what == 2:
            text = text[:at] + chance.choice(string.printable) + text[at:]
        elif what == 3 and lines:
            lines.insert(chance.randrange(len(lines)), chance.choice(lines))
            text = "".join(lines)
        elif what == 4 and lines:
            lines.pop(chance.randrange(len(lines)))
            text = "".join(lines)
        elif what == 5 and "=" in text:
            line = chance.choice([n for n, line in enumerate(lines) if "=" in line])
            lines[line] = lines[line].split("=")[0] + "= " + chance.choice(JUNK) + "\n"
            text = "".join(lines)
        elif what == 6:
            parts = text.split('"')
            place = chance.randrange(len(parts))
            parts[place] = chance.choice([*JUNK, *ENCODINGS])
            text = '"'.join(parts)
        elif what == 7:
            text = text[:at] if chance.random() < 0.3 else text[:at] + text[at : at + 20] + text[at:]
    return text


def run(arguments: list[str]) -> tuple[int, str]:
    """`posenc ...` in this process: its status, and what it said on standard error."""
    out, error = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["posenc", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                program(prog_name="posenc")
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return status, error.getvalue()


def hold(arguments: list[str], shown: str) -> None:
    """The arguments end as any bad input does; `shown` says what was written, where they fail."""
    try:
        status, error = run(arguments)
    except BaseException as raised:
        raise AssertionError(f"{arguments} raised {type(raised).__name__}: {raised}\n{shown}") from raised
    assert status in ALLOWED, f"{arguments} ended with {status}: {error}\n{shown}"
    assert "Traceback" not in error, f"{arguments}: {error}\n{shown}"
    if status == 2:
        assert 1 <= len(error.strip().splitlines()) <= LINES, f"{arguments}: {error}\n{shown}"


@pytest.fixture
def chance(fresh_seed: int) -> random.Random:
    seed = int(os.environ.get("POSENC_FUZZ_SEED", fresh_seed))
    print(f"POSENC_FUZZ_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSENC_DATA", raising=False)
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def a_suite(here: Path, chance: random.Random) -> tuple[list[str], str]:
    text = fuzzed(SUITE, chance)
    (here / "mine.toml").write_text(text, encoding="utf-8", errors="replace")
    return ["plan", "mine.toml"], text


def a_task(here: Path, chance: random.Random) -> tuple[list[str], str]:
    text = fuzzed((Path(__file__).parent.parent / "tasks/enwik8.toml").read_text(), chance)
    (here / "task.toml").write_text(text, encoding="utf-8", errors="replace")
    return ["plan", "task.toml", "--scale", "smoke", "--encodings", "none"], text


def a_setting(here: Path, chance: random.Random) -> tuple[list[str], str]:
    setting = f"{chance.choice(KEYS)}={chance.choice(JUNK)}"
    if chance.random() < 0.3:
        setting = fuzzed(setting, chance)
    return ["plan", "enwik8", "--encodings", "rope", "--set", setting.replace("\0", "")], setting


def an_encoding(here: Path, chance: random.Random) -> tuple[list[str], str]:
    text = fuzzed(chance.choice(ENCODINGS), chance).replace("\0", "")
    return ["plan", "enwik8", "--encodings", text, *options()], text


WAYS: list[Callable[[Path, random.Random], tuple[list[str], str]]] = [a_suite, a_task, a_setting, an_encoding]


def test_a_thousand_writings_end_with_a_plan_or_a_line(here: Path, chance: random.Random) -> None:
    for number in range(WRITINGS):
        arguments, text = WAYS[number % len(WAYS)](here, chance)
        hold(arguments, text)


def damage(path: Path, chance: random.Random) -> str:
    """Something done to a file; what."""
    raw = bytearray(path.read_bytes())
    what = chance.choice(["cut", "bits", "empty", "null", "list", "junk", "gone", "swapped"])
    if what == "cut":
        raw = raw[: chance.randrange(len(raw) + 1)]
    elif what == "bits":
        for _ in range(chance.randint(1, 20)):
            if raw:
                raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    elif what == "empty":
        raw = bytearray()
    elif what in ("null", "list"):
        raw = bytearray({"null": b"null", "list": b"[1, {}]"}[what])
    elif what == "junk":
        raw = bytearray(chance.randbytes(len(raw) or 7))
    elif what == "swapped" and b":" in raw:
        raw = bytearray(raw.replace(b"1", b'"x"', chance.randint(1, 3)))
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes(raw)
    return what


@pytest.mark.timeout(2400)
def test_three_hundred_damaged_files_cost_no_more_than_themselves(here: Path, chance: random.Random) -> None:
    again = ["run", "mlm", "--encodings", "none,rope", "--seeds", "0,1", "--lengths", "32", *options()[:-2]]
    status, error = run(again)
    assert status == 0, error
    files = [path.relative_to(here) for path in here.rglob("*") if path.is_file()]
    files = [path for path in files if path.parts[0] == "cache" or path.suffix in (".json", ".jsonl", ".npz")]
    assert {"record.json", "suite.json", "curve.jsonl", "items.npz", "values"} <= {path.name for path in files}
    whole = here / "whole"
    for part in ("results", "cache"):
        shutil.copytree(here / part, whole / part)
    commands = [["status", "mlm"], ["compare", "mlm", "mlm"], ["report", "mlm"], again]
    for number in range(DAMAGED):
        for part in ("results", "cache"):
            shutil.rmtree(here / part)
            shutil.copytree(whole / part, here / part)
        path = chance.choice(files)
        what = damage(here / path, chance)
        # A report takes seconds, a run trains: each its share.
        command = commands[3 if number % 30 == 0 else 2 if number % 10 == 0 else number % 2]
        hold(command, f"{what}: {path}")
