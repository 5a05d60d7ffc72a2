"""What `posenc plan` shows: seeds as one row, as many columns as there is room for, all of it as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from runs import options

from posenc.cli import main
from posenc.plan.overview import COLUMNS, SPARE, Planned, _groups
from posenc.plan.selection import ranges, seeds_of

LONG = "sinusoidal+rope(base=500000.0)+t5(buckets=8, max_distance=16)"


def plan(*arguments: str, width: int | None = None) -> str:
    environment = {"COLUMNS": None if width is None else str(width), "POSENC_DATA": None}
    done = CliRunner().invoke(main, ["plan", *arguments, *options()], env=environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_ranges_are_what_seeds_of_reads() -> None:
    for seeds in ([0], [0, 1, 2], [3, 1, 0, 7], [-2, -1, 5], [0, 2, 4]):
        assert sorted(seeds_of(ranges(seeds))) == sorted(seeds)
    assert ranges([4, 0, 1, 2, 3, 7]) == "0-4,7"


def test_seeds_are_one_row_and_totals_count_them_all() -> None:
    one = json.loads(plan("enwik8", "--encodings", "rope,none", "--seeds", "0", "--json"))
    output = plan("enwik8", "--encodings", "rope,none", "--seeds", "0-2,5")
    assert output.count("/rope/") == output.count("/none/") == output.count("0-2,5") / 2 == 1
    assert "8 cells" in output and "/s0" not in output
    assert f"together {4 * one['flops']:.2e} FLOPs" in output


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_loses_whole_columns_and_says_which(width: int) -> None:
    output = plan("enwik8", "--encodings", f"rope,{LONG}", "--seeds", "0-4", width=width)
    assert max(map(len, output.splitlines())) <= width
    assert "\u2026" not in output, "nothing is cut"
    (head,) = (line for line in output.splitlines() if "seeds" in line and "\u2503" in line)
    shown = [name.strip() for name in head.strip("\u2503").split("\u2503")]
    missing = [column for column in COLUMNS if column not in shown]
    assert {"cell", "seeds", "FLOPs", "time"} <= set(shown) and missing
    assert set(missing) == set(SPARE[: len(missing)])
    told = " ".join(output.split()).split("want of room: ")[1].split(".")[0]
    assert told.split(", ") == missing
    names = "".join(line.split("\u2502")[1].strip() for line in output.splitlines() if line.startswith("\u2502"))
    assert LONG.replace(" ", "") in names.replace(" ", ""), "a long name is folded"


def test_a_wide_one_shows_all() -> None:
    assert "want of room" not in plan("enwik8", "--encodings", "rope", "--seeds", "0")


def test_what_cannot_run_is_told_once_for_all_seeds() -> None:
    output = plan("enwik8", "--encodings", "rope_outside,rope", "--seeds", "0-2", "--lengths", "16", width=80)
    (line,) = (line for line in output.splitlines() if line.startswith("cannot run: "))
    assert line.startswith("cannot run: enwik8/softmax/rope_outside/L16, seeds 0-2: ")
    found = json.loads(plan("enwik8", "--encodings", "rope_outside", "--seeds", "0-2", "--json"))
    assert [cell["why_not"] is not None for cell in found["cells"]] == [True] * 3
    assert found["flops"] == 0 and {cell["flops"] for cell in found["cells"]} == {None}


def of(seed: int, **more: Any) -> Planned:
    place = {"task": "t", "attention": "softmax", "encoding": "rope", "length": 16, "parent": None}
    return Planned(**{"id": f"{seed}", "name": f"t/rope/L16/s{seed}", "seed": seed, **place, **more})


def test_cells_are_one_row_only_where_they_differ_by_their_seed_alone() -> None:
    cells = [of(0), of(1), of(1, name="t/rope/L32/s1"), of(2, backend="flex"), of(10)]
    assert [[cell.seed for cell in group] for group in _groups(cells)] == [[0, 1, 10], [1], [2]]
    barred = [of(n, why_not=f"its parent m/rope/L16/s{n} is not possible") for n in (0, 1)]
    assert len(_groups([*barred, of(2, why_not="another reason")])) == 2


def test_json_is_all_that_is_printed_and_names_cells_as_records_do(tmp_path: Path) -> None:
    found = json.loads(plan("quick", "--seeds", "0-1", "--encodings", "rope", "--json"))
    assert (found["suite"], found["scale"], found["not_at_hand"]) == ("quick", "smoke", [])
    assert len(found["cells"]) == len({cell["id"] for cell in found["cells"]})
    for cell in found["cells"]:
        assert cell["name"].endswith(f"/s{cell['seed']}") and cell["seconds"] > 0
    assert found["seconds"] == pytest.approx(sum(cell["seconds"] for cell in found["cells"]))
    faster = json.loads(plan("quick", "--seeds", "0-1", "--encodings", "rope", "--json", "--speed", "2"))
    assert faster["seconds"] == pytest.approx(found["seconds"] / 100)


def test_a_speed_must_be_one() -> None:
    for speed in ("0", "-1"):
        done = CliRunner().invoke(main, ["plan", "quick", "--speed", speed])
        assert done.exit_code == 2 and "--speed" in done.output
