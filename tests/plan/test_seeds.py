"""Seeds as a command line names them: single ones, ranges, both; what is no such text is said in a line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from posenc.cli import main
from posenc.plan.selection import MOST_SEEDS, seeds_of


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [3]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("7-7", [7]),
        ("0, 5-7 ,2", [0, 5, 6, 7, 2]),
        ("0-2,1-3,0", [0, 1, 2, 3]),
        ("-1", [-1]),
        ("-2-1", [-2, -1, 0, 1]),
        ("-3--2", [-3, -2]),
        (f"1-{MOST_SEEDS}", list(range(1, MOST_SEEDS + 1))),
    ],
)
def test_a_text_names_each_of_its_seeds_once(text: str, seeds: list[int]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "''"),
        ("x", "'x'"),
        ("0,,2", "whole numbers or ranges"),
        ("0-", "'0-'"),
        ("0-4-8", "'0-4-8'"),
        ("1.5", "'1.5'"),
        ("0:4", "0-4"),
        ("\u0663", "whole numbers"),
        ("4-0", "'4-0': a range must rise, such as 0-4"),
        (f"0-{MOST_SEEDS}", "names 1,001 seeds: must be at most 1,000"),
        ("0-99999999999999999999", "at most 1,000"),
        (f"0-{MOST_SEEDS - 1},-5", "at most 1,000"),
        ("9" * 5000, "whole numbers"),
    ],
)
def test_another_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        seeds_of(text)
    assert said in str(caught.value)
    done = CliRunner().invoke(main, ["plan", "quick", "--seeds", text])
    assert done.exit_code == 2
    assert "Invalid value for '--seeds'" in done.output and said in done.output
