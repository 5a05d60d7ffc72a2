"""All built-in encodings, from their classes and from what `posenc list encodings --long` is made of."""

from __future__ import annotations

from typing import Any

from derived.text import body, code, linked, table
from posenc.api import encoding, registry
from posenc.plan import table as long
from posenc.properties import facts

LABELS = ("hooks", "direction", "learnt", "axes", "length", "linear attention", "cached decoding", "a step over `none`")


def _facts() -> list[dict[str, Any]]:
    return [fact for fact in facts.rows() if fact["encoding"] in registry.BUILT_IN]


def every() -> str:
    """A table of all, then what is to be said of each."""
    found = _facts()
    rows = [
        (f"[`{fact['encoding']}`](#{anchor(fact['encoding'])})", fact["title"], code(fact["formula"])) for fact in found
    ]
    costs = long.costs()
    pages = [_one(fact, costs.get(fact["encoding"], "")) for fact in found]
    return "\n\n".join([long.ABOUT, table(("encoding", "what it does", "formula"), rows), *pages])


def anchor(name: str) -> str:
    """As the page's own headings have it."""
    return f"encoding-{name.replace('_', '-')}"


def _one(fact: dict[str, Any], cost: str) -> str:
    kind = registry.load(fact["encoding"])
    options = registry.options_of(kind)
    row = dict(zip(long.HEAD, long.cells(fact, cost), strict=True))
    lines = [
        f"({anchor(fact['encoding'])})=",
        f"### {fact['encoding']}",
        f"{fact['title']}. {linked(fact['paper'])}.",
        f"```text\n{fact['formula']}\n```",
        body(kind.__doc__, list(options)),
        table(("property", "value"), [(label, row[label]) for label in LABELS if row[label]]),
    ]
    if options:
        given = [(code(one.name), registry.type_name(one.type), code(repr(one.default))) for one in options.values()]
        lines.append(table(("option", "type", "default"), given))
    return "\n\n".join(lines)


def hooks() -> str:
    """The table of hooks as the interface's own file has it."""
    doc = encoding.__doc__ or ""
    start = doc.index("    hook  ")
    block = doc[start : doc.index("\n\n", start)]
    return "```text\n" + "\n".join(line[4:] for line in block.splitlines()) + "\n```"
