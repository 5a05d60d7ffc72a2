"""What the README shows is true: its example passes the check, its links exist."""

from __future__ import annotations

import ast
import inspect
import math
import re
from pathlib import Path

import pandas as pd

import posenc
from posenc.properties.check import measure, passed

ROOT = Path(__file__).resolve().parent.parent


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_encoding_does_what_it_declares(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if "class Alibi" in block)
    (tmp_path / "mine.py").write_text(block)
    findings = measure(f"{tmp_path}/mine.py:Alibi", lengths=(72, 193))
    assert passed(findings), [finding for finding in findings if finding.passed is False]


def test_the_example_of_a_run_names_options_that_there_are() -> None:
    (block,) = (block for block in BLOCKS if "posenc.run(" in block)
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]
    (asked,) = (node for node in calls if ast.unparse(node.func) == "posenc.run")
    assert {keyword.arg for keyword in asked.keywords} < set(inspect.signature(posenc.run).parameters)
    assert all(
        hasattr(posenc, ast.unparse(node.func).removeprefix("posenc."))
        for node in calls
        if "posenc" in ast.unparse(node.func)
    )


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_score_of_published_results_stands_in_their_tables() -> None:
    """No figure is typed by hand: each mean and difference with its half interval is one of the published tables'."""
    readme = (ROOT / "README.md").read_text()
    told = set(
        re.findall(r"([−+]?\d+\.\d{2,3}) ± (\d+\.\d{2,3})", readme[: readme.index("[docs/](docs/index.md) explains")])
    )
    known = set()
    columns = (
        ("mean", "low", "high"),
        ("difference", "difference_low", "difference_high"),
        ("difference", "low", "high"),
    )
    for table in ("summary", "length"):
        for path in (ROOT / "reports" / "published").glob(f"*/tables/{table}.csv"):
            for row in pd.read_csv(path).to_dict("records"):
                for value, low, high in columns:
                    if all(math.isfinite(row.get(name, math.nan)) for name in (value, low, high)):
                        half = (row[high] - row[low]) / 2
                        known |= {(f"{abs(row[value]):.{n}f}", f"{half:.{n}f}") for n in (2, 3)}
    assert len(told) > 30
    assert not {(value.lstrip("−+"), half) for value, half in told} - known
