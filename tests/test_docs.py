"""The pages of docs/: commands, options, keys and links that there are; what is made from the code has no holes."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from derived import MAKERS, schema

import posenc
from posenc.api import registry
from posenc.cli import main
from posenc.common.errors import PosencError
from posenc.config.places import available
from posenc.properties.check import measure, passed
from posenc.report.statistics.tables import SCORE_FIELDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *ROOT.glob("*/README.md")]
}
SLOW = ("encodings", "tasks", "suites")
"""What takes seconds to make; nox -s docs makes it too."""


def commands(text: str) -> list[str]:
    """The command lines of posenc in a page: lines of a block, and what stands between backticks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    found = [line for block in blocks for line in block.splitlines() if line.startswith("posenc ")]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return found + re.findall(r"`(posenc [^`]*)`", rest)


COMMANDS = sorted({(page, line) for page, text in TEXTS.items() for line in commands(text)})


def test_pages_show_commands() -> None:
    assert len(COMMANDS) > 60 and {page for page, _ in COMMANDS} > {"docs/gpu.md", "docs/plugins.md", "README.md"}


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: value)
def test_a_command_line_of_a_page_can_be_read(page: str, line: str) -> None:
    _, name, *arguments = shlex.split(re.split(r" [>|] ", line)[0], comments=True)
    if name.endswith("...") or name == "--help":
        return
    command = main.commands[name]
    arguments = [argument for argument in arguments if argument != "--help"]
    needed = [one for one in command.params if isinstance(one, click.Argument)]
    if not arguments and needed:
        return  # `posenc check`: the command is spoken of, not shown
    context = command.make_context(name, arguments, resilient_parsing=False) if arguments else None
    given = context.params if context else {}
    for encoding in given.get("encodings") or ():
        if encoding != "all" and not re.search(r"\b(mine|waves)\b", encoding):
            registry.require_known(encoding)
    suite = str(given.get("suite") or "")
    if suite and suite.islower() and not suite.endswith(".toml"):
        assert suite in {*available("suites"), *available("tasks")}
    for change in given.get("changes") or ():
        assert change.partition("=")[0] in {*schema.settable(), "KEY"}, change


def test_every_session_that_a_page_names_is_one() -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    named = {name for text in TEXTS.values() for name in re.findall(r"nox -s (\w+)", text)}
    assert {"docs", "build", "ablation", "quick", "tests"} <= named <= sessions


def headings(text: str) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            assert re.match(r"https://(github\.com|arxiv\.org|pypi\.org|www\.jmlr\.org)/", target), target
            continue
        name, _, anchor = target.partition("#")
        other = ROOT / "docs" / (name or page)
        assert other.is_file(), target
        assert not anchor or anchor in headings(other.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_contents() -> None:
    contents = re.search(r"```{toctree}\n(.*?)```", TEXTS["docs/index.md"], flags=re.DOTALL)
    assert contents
    named = [line for line in contents[1].splitlines() if line and not line.startswith(":")]
    assert {f"{name}.md" for name in named} == {page.name for page in PAGES} - {"index.md"}


def test_what_pages_ask_for_is_made_and_nothing_else() -> None:
    asked = [name for page in PAGES for name in re.findall(r"<!-- derived: ([\w-]+) -->", TEXTS[f"docs/{page.name}"])]
    assert sorted(asked) == sorted(MAKERS)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in SLOW])
def test_what_is_made_has_something_in_each_row(name: str) -> None:
    text = MAKERS[name]()
    assert text.strip()
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---") and name != "objectives":
            assert not line.endswith("|  |"), line


def test_the_columns_are_those_of_load_records() -> None:
    text = MAKERS["columns"]()
    assert re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE) == list(SCORE_FIELDS)


def test_the_statuses_are_those_that_errors_have() -> None:
    statuses = set(re.findall(r"`(\d+)`", MAKERS["statuses"]()))
    assert {str(kind.exit_status) for kind in (PosencError, *PosencError.__subclasses__())} <= statuses


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", TEXTS[f"docs/{page}.md"], flags=re.DOTALL)


def test_the_tutorials_encoding_does_what_it_declares(tmp_path: Path) -> None:
    (block,) = (block for block in python_of("plugins") if "class Slopes" in block)
    (tmp_path / "slopes.py").write_text(block)
    found = measure(f"{tmp_path}/slopes.py:Slopes", lengths=(), names=("loads", "translation", "gradients", "start"))
    assert len(found) == 4 and passed(found), [one for one in found if one.passed is False]


@pytest.mark.parametrize("page", ["python", "plugins"])
def test_python_of_pages_can_be_read_and_names_what_there_is(page: str) -> None:
    for block in python_of(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "posenc":
                assert hasattr(posenc, node.attr)


@pytest.mark.parametrize("page", ["suites", "tasks", "plugins"])
def test_toml_of_pages_can_be_read(page: str, tmp_path: Path) -> None:
    from posenc.plan.selection import find_suite

    blocks = re.findall(r"```toml\n(.*?)```", TEXTS[f"docs/{page}.md"], flags=re.DOTALL)
    assert blocks
    for block in blocks:
        if "name" in tomllib.loads(block):
            (tmp_path / "shown.toml").write_text(block)
            assert find_suite(str(tmp_path / "shown.toml")).title


def test_no_page_names_a_file_that_is_not_there() -> None:
    for page, text in TEXTS.items():
        for name in re.findall(r"`((?:posenc|tests|docs|suites|tasks|reports)/[\w./-]+)`", text):
            assert any((ROOT / name).parent.glob(Path(name).name or "*")), f"{page}: {name}"


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = re.search(r"^## (\S+)", text, flags=re.MULTILINE)
    assert found and found[1] == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
