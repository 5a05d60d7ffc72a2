"""Docstrings to Markdown: the sections of Google's style, and what they say of each name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

SECTIONS = ("Attributes", "Args", "Options", "Returns", "Raises")


def parts(doc: str | None) -> dict[str, str]:
    """A docstring by its sections; what stands before and between them under ""."""
    found, here, indented = {"": ""}, "", False
    for line in inspect.cleandoc(doc or "").splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            here, indented = line[:-1], True
            found[here] = ""
            continue
        if indented and line and not line.startswith(" "):
            here, indented = "", False
            found[""] += "\n"
        found[here] += (line.strip() if indented else line) + "\n"
    return {key: text.strip() for key, text in found.items()}


def said(text: str, names: Iterable[str]) -> dict[str, str]:
    """What a section says of each name: `steps: of training. batch: sequences a step.` has two.

    Where no names are given, any word that begins a sentence with a colon after it is one.
    """
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"[a-z_]\w*"
    if not text:
        return {}
    pieces = re.split(rf"(?:^|(?<=[.)] ))((?:{one})(?:, (?:{one}))*): ", " ".join(text.split()))
    return {
        name: told.strip() for many, told in zip(pieces[1::2], pieces[2::2], strict=True) for name in many.split(", ")
    }


def listed(text: str, names: Sequence[str]) -> str:
    """A section as a list, an item for each name."""
    found = said(text, names)
    return "\n".join(f"- `{name}`: {told}" for name, told in found.items()) if found else " ".join(text.split())


def body(doc: str | None, names: Sequence[str] = ()) -> str:
    """A docstring as Markdown."""
    found = parts(doc)
    lines = [found.pop("")]
    for section, text in found.items():
        known = re.findall(r"\b[A-Z]\w*Error\b", text) if section == "Raises" else names
        lines.append(f"**{section}**\n\n{listed(text, known)}")
    return "\n\n".join(line for line in lines if line)


def first(doc: str | None) -> str:
    """The first paragraph of a docstring."""
    return " ".join(parts(doc)[""].split("\n\n")[0].split())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """A value as code; nothing where there is none."""
    return f"`{value}`" if str(value) else ""


def linked(text: str) -> str:
    """With each `arXiv:2104.09864` as a link."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})(v\d+)?", r"[arXiv:\1\2](https://arxiv.org/abs/\1\2)", text)
