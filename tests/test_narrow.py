"""Narrow terminals: no line of any table is wider than they are, nothing is cut, and what is left out is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made import cell, make_store, measured, record
from rich.console import Console

from posenc.bench import run
from posenc.cli import main
from posenc.common.terminal import natural_width, not_shown

WIDTHS = [60, 80]
LONG = "layers(rope(base=500000), none, every=2)"


def output(*arguments: str, width: int | None) -> str:
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": None if width is None else str(width)})
    assert done.exit_code == 0, done.output
    return done.stdout


def hold(text: str, width: int) -> None:
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_compare(tmp_path: Path, width: int) -> None:
    folders = []
    for name, rate in (("a", 0.002), ("b", 0.004)):
        cells = [cell(encoding, seed, learning_rate=rate) for encoding in ("rope", LONG) for seed in range(3)]
        records = [
            record(of, 3.0 + seed / 7 * rate, "not possible: it has 64 positions") for seed, of in enumerate(cells)
        ]
        folders.append(str(make_store(tmp_path / name, cells, records, title=name).folder))
    text = output("compare", *folders, width=width).partition("\n\n")[2]  # above stand the folders
    hold(text, width)
    assert "training.learning_rate" in text and "64" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_list(width: int) -> None:
    text = output("list", "encodings", width=width)
    hold(text, width)
    whole = output("list", "encodings", width=None)
    assert text.split() == whole.split(), "the same words"
    names = [line.split()[0] for line in whole.splitlines()]
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == names


def rows() -> list[dict[str, Any]]:
    common = {"compile": "none", "flops": 4.2e10, "rows": 2, "reason": None, "memory_reason": None}
    common |= {"matrix_share": 0.123, "copy_share": 0.0456}
    names = (("posenc", "none"), ("posenc", LONG), ("rotary-embedding-torch", "rope"))
    return [{**measured(encoding, 512, 0.298), **common, "subject": subject} for subject, encoding in names]


@pytest.mark.parametrize("width", [50, 60, 80, 100, 160])
def test_bench(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    (table,) = run.tables(rows(), console)
    missing = run.spared([table])
    assert missing == [column for column in run.COLUMNS if column in run.SPARE[: len(missing)]]
    assert {"subject", "encoding", "ms", "over none (95 %)"} <= {str(column.header) for column in table.columns}
    assert bool(missing) == (width < 120)
    if width >= 80:
        assert natural_width(table, console) <= width, "figures stand in one line"
    console.print(table)
    hold(console.file.getvalue(), width)  # type: ignore[attr-defined]


def test_what_is_left_out_is_named() -> None:
    assert not_shown(["backend", "peak MB"]).startswith("Not shown, for want of room: backend, peak MB.")


def test_a_log_has_a_width_of_its_own() -> None:
    """Whatever terminal is behind it: a line an encoding."""
    lines = output("list", "encodings", width=None).splitlines()
    assert len(lines) > 50 and max(map(len, lines)) > 100
