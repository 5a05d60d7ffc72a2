"""What a run shows: on a terminal and in a log, with names that hold anything."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posenc.records.store import Store
from posenc.running import progress
from posenc.running.progress import Progress, duration, main_score, state_of, tail


def make_cell(name: str, steps: int = 400) -> dict[str, Any]:
    config = {
        "task": "enwik8", "scale": "smoke", "encoding": {"name": "rope"}, "length": 64, "seed": 0,
        "training": {"steps": steps, "batch": 32},
    }  # fmt: skip
    return {"id": f"{abs(hash(name)):016x}"[:16], "name": name, "config": config, "parent": None}


def write_rows(store: Store, cell: dict[str, Any], steps: range, loss: float | None = 3.5) -> Path:
    path = store.cell_folder(cell["id"]) / "curve.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for step in steps:
            row = {"step": step, "tokens": step * 2048, "seconds": step / 10, "loss": loss, "learning_rate": 0.1}
            file.write(json.dumps(row) + "\n")
    return path


def write_record(store: Store, cell: dict[str, Any], status: str = "done") -> None:
    score = {"split": "test", "length": 64, "metric": "bits_per_character", "value": 3.0123, "why": None}
    longer = {**score, "length": 256, "value": 9.9}
    store.write_record(
        {
            "schema": 1,
            "id": cell["id"],
            "name": cell["name"],
            "status": status,
            "config": cell["config"],
            "metric": {"name": "bits_per_character", "title": "bits per character"},
            "scores": [longer, score] if status == "done" else [],
            "times": {"seconds": 14.2},
        }
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "monotonic", found)
    return found


def plain_console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=80, force_terminal=False), stream


def terminal(width: int = 120, height: int = 30) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=width, height=height, force_terminal=True, color_system=None), stream


def test_plain_lines(tmp_path: Path, clock: Clock) -> None:
    cells = [make_cell(f"enwik8/softmax/rope/L64/s{seed}") for seed in range(11)]
    store = Store(tmp_path)
    write_record(store, cells[10])
    console, stream = plain_console()
    with Progress(store, cells, console) as shown:
        shown.ended(cells[10]["id"], "done", None)  # known already: no line
        for cell in cells[:2]:
            shown.started(cell["id"])
        write_rows(store, cells[1], range(1, 201))
        for _ in range(50):
            clock.now += 0.1
            shown.refresh()
        write_record(store, cells[0])
        shown.ended(cells[0]["id"], "done", None)
        clock.now += 30
        shown.refresh()
        shown.refresh()
        shown.ended(cells[1]["id"], "failed", "ValueError: no [/b]")
        shown.ended(cells[2]["id"], "not_possible", "learned has 64 positions")
        shown.ended(cells[3]["id"], "timed_out", "after 5 s")
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("11 cells, 1 of them ended before; results in ")
    assert lines[1] == "[ 2/11] enwik8/softmax/rope/L64/s0 done 14.2 s  bits per character 3.012"
    # Two cells of 14.2 s and half of one in 20 s: 19 s each, two at a time, of which one has half of it behind itself.
    assert lines[2] == "2 done, 1 running, 8 left; left: 93 s"
    assert lines[3] == "[ 3/11] enwik8/softmax/rope/L64/s1 failed: ValueError: no [/b]"
    assert lines[4] == "[ 4/11] enwik8/softmax/rope/L64/s2 not possible: learned has 64 positions"
    assert lines[5] == "[ 5/11] enwik8/softmax/rope/L64/s3 timed out: after 5 s"
    assert lines[6] == "2 done, 2 failed, 1 not possible, 6 left; 35 s"
    assert len(lines) == 7
    assert "\x1b" not in stream.getvalue()


def test_long_names_are_one_line(tmp_path: Path) -> None:
    cell = make_cell("enwik8/softmax/" + "rope+" * 60 + "/L64/s0")
    console, stream = plain_console()
    with Progress(Store(tmp_path), [cell], console) as shown:
        shown.ended(cell["id"], "failed", "first\nsecond \x1b[31m")
    assert f"[1/1] {cell['name']} failed: first second \\x1b[31m" in stream.getvalue().splitlines()


@pytest.mark.parametrize("name", ["a[/b]", "[bold]x", "x[", "[link=x]é\x1b[2J\n\r", ":smile: {x} \\[", ""])
def test_odd_names(tmp_path: Path, clock: Clock, name: str) -> None:
    cell = make_cell(name)
    store = Store(tmp_path)
    write_rows(store, cell, range(5))
    for console, stream in (plain_console(), terminal()):
        with Progress(store, [cell], console) as shown:
            shown.started(cell["id"])
            clock.now += 1
            shown.refresh()
            shown.ended(cell["id"], "failed", name)
        shown_as = name.replace("\x1b", "\\x1b").replace("\r", "\\r").replace("\n", " ")
        assert shown_as.strip() in stream.getvalue().replace("\x1b[2K", "")
        assert "\x1b[2J" not in stream.getvalue()


def test_terminal(tmp_path: Path, clock: Clock) -> None:
    cells = [make_cell("enwik8/softmax/rope/L64/s0"), make_cell("enwik8/softmax/none/L64/s0"), make_cell("third")]
    store = Store(tmp_path)
    console, stream = terminal()
    with Progress(store, cells, console) as shown:
        for cell in cells[:2]:
            shown.started(cell["id"])
        write_rows(store, cells[0], range(1, 101))
        write_rows(store, cells[1], range(1, 11), loss=None)
        clock.now += 10
        shown.refresh()
        text = stream.getvalue()
        for part in ("rope/L64/s0", "100/400", "loss 3.500", "20.5k tokens/s", "30 s", "diverged", "2 running, 1 left"):
            assert part in text
        size = len(text)
        for _ in range(10):
            shown.refresh()
            clock.now += 0.04
        assert len(stream.getvalue()) == size  # at most twice a second
        write_record(store, cells[0])
        shown.ended(cells[0]["id"], "done", None)
        clock.now += 1
        shown.refresh()
        assert "[1/3] enwik8/softmax/rope/L64/s0 done 14.2 s  bits per character 3.012" in stream.getvalue()
    assert stream.getvalue().rstrip().endswith("1 done, 1 running, 1 left; 11.4 s")
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1  # the cursor is back


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [(120, ["loss 3.500", "20.5k tokens/s", "30 s", "\u2501"], []), (80, ["loss 3.500", "30 s"], ["tokens/s"]),
     (45, ["30 s"], ["tokens/s", "\u2501", "loss"])],
)  # fmt: skip
def test_a_narrow_terminal_shows_fewer_columns_and_cuts_none(
    tmp_path: Path, clock: Clock, width: int, there: list[str], gone: list[str]
) -> None:
    cell = make_cell("enwik8/performer/layers(rope, none, every=2)/L64/s0")
    console, stream = terminal(width=width)
    with Progress(Store(tmp_path), [cell], console) as shown:
        shown.started(cell["id"])
        write_rows(Store(tmp_path), cell, range(1, 101))
        clock.now += 10
        drawn = len(stream.getvalue())
        shown.refresh()
        text = stream.getvalue()[drawn:]
    lines = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", line) for line in text.split("\r")[-1].splitlines()]
    assert all(len(line) <= width for line in lines) and "\u2026" not in text
    assert all(word in text for word in ["100/400", "left: ", *there])
    assert not any(word in text for word in gone)
    assert cell["name"] in text if width > 45 else "enwik8/performer" in text and "L64/s0" in text


def test_more_cells_than_lines(tmp_path: Path, clock: Clock) -> None:
    cells = [make_cell(f"cell {number}") for number in range(50)]
    console, stream = terminal(height=10)
    with Progress(Store(tmp_path), cells, console) as shown:
        for cell in cells:
            shown.started(cell["id"])
        clock.now += 1
        shown.refresh()
    assert "44 running cells not shown" in stream.getvalue()


def test_an_exception_leaves_the_terminal_clean(tmp_path: Path) -> None:
    console, stream = terminal()
    with pytest.raises(KeyboardInterrupt), Progress(Store(tmp_path), [make_cell("a")], console):
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25h") == 1


def test_damaged_files(tmp_path: Path, clock: Clock) -> None:
    cell = make_cell("a")
    store = Store(tmp_path)
    path = write_rows(store, cell, range(1, 4))
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"step": "x"}\n{"step": 4, "loss": "high", "tokens": null}\n{"step": 5, "lo')
    (path.parent / "record.json").write_text("{")
    assert state_of(tail(path)).step == 4
    console, stream = plain_console()
    with Progress(store, [cell], console) as shown:
        shown.started(cell["id"])
        clock.now += 40
        shown.refresh()
        shown.ended(cell["id"], "done", None)
        shown.started("unknown")
        shown.ended("unknown", "failed", None)
    assert "[1/1] a done" in stream.getvalue()


def read_so_far() -> int:
    """Characters that this process has read from files."""
    return int(Path("/proc/self/io").read_text().splitlines()[0].removeprefix("rchar: "))


def test_only_the_tail_is_read(tmp_path: Path) -> None:
    cell = make_cell("a", steps=200_000)
    path = write_rows(Store(tmp_path), cell, range(100_000))
    before = read_so_far()
    rows = tail(path)
    assert read_so_far() - before < path.stat().st_size / 20
    assert 20 < len(rows) < 300
    state = state_of(rows)
    assert (state.step, state.loss) == (99_999, 3.5)
    assert state.tokens_per_second == pytest.approx(20480)
    assert tail(tmp_path / "nowhere") == []
    assert state_of([]).tokens_per_second is None


def test_words() -> None:
    seconds = (None, 0.04, 14.2, 59, 300, 7200, 90_000, 400_000, float("inf"))
    told = ["?", "0.0 s", "14.2 s", "59 s", "5 min", "2 h 00 min", "25 h 00 min", "4.6 days", "?"]
    assert [duration(value) for value in seconds] == told
    assert main_score({"config": {"length": 64}, "scores": [{"split": "test", "metric": None, "value": None}]}) == ""
