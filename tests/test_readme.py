"""What the README shows is true: its example passes the check, its links exist."""

from __future__ import annotations

import re
from pathlib import Path

from posenc import registry
from posenc.properties import measure, passed

ROOT = Path(__file__).resolve().parent.parent


def test_the_example_encoding_does_what_it_declares() -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    names: dict[str, object] = {"__name__": "readme"}
    exec(block, names)
    registry.register("alibi-of-the-readme", names["Alibi"])  # type: ignore[arg-type]
    try:
        findings = measure("alibi-of-the-readme")
    finally:
        del registry._registered["alibi-of-the-readme"]
    assert passed(findings), [finding for finding in findings if finding.passed is False]


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"
