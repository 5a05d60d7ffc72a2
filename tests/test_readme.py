"""What the README shows is true: its example passes the check, its links exist."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

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
