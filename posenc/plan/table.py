"""The table of all encodings, made from their classes: in the documentation, in `list encodings --long`, in reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from posenc.common.errors import StoreError
from posenc.common.paths import content

HEAD = ("encoding", "formula", "paper", "hooks", "direction", "learnt", "axes", "length", "linear attention",
        "cached decoding", "a step over `none`")  # fmt: skip
ABOUT = (
    "s is the scaled score of query i and key j, n = i - j; x what enters the first layer. Learnt: numbers in a stack"
    " of 4 layers, 4 heads, 256 wide, rows of 512 tokens."
)


def costs() -> dict[str, str]:
    """For each encoding, a training step of its attention over that of `none`: median and 95 % interval.

    Of softmax attention; of a Performer, told so, where it serves that alone.

    What `posenc bench --json` measured and reports/bench.json keeps; empty where there is no such file.

    Raises:
        StoreError: the file is not what `posenc bench` writes.
    """
    path = content("reports") / "bench.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        steps = [row for row in rows if row["pass"] == "step" and row["subject"] == "posenc"]
        found = {
            (row["attention"], row["encoding"]): f"{row['ratio_to_none']:.2f}"
            f" [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
            for row in steps
            if row["ratio_to_none"] is not None
        }
        linear = {name: f"{told} (Performer)" for (attention, name), told in found.items() if attention == "performer"}
        return linear | {name: told for (attention, name), told in found.items() if attention == "softmax"}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is not what posenc bench --json writes: {error}") from None


def cells(fact: Mapping[str, Any], cost: str = "") -> tuple[str, ...]:
    """One encoding's row under HEAD, as text."""
    if "broken" in fact:
        return (str(fact["encoding"]), f"broken: {fact['broken']}", *[""] * (len(HEAD) - 2))
    both = {("bidirectional", "causal"): "both", ("causal",): "causal", ("bidirectional",): "both ways only"}
    linear = str(fact["linear"]) if fact["softmax"] == "yes" else f"{fact['linear']}; softmax: {fact['softmax']}"
    return (
        str(fact["encoding"]),
        str(fact["formula"]),
        str(fact["paper"]),
        ", ".join(fact["hooks"]) or "none",
        both[tuple(fact["directions"])],
        f"{fact['parameters']:,}",
        "any" if fact["axes"] is None else str(fact["axes"]),
        "any" if fact["max_length"] is None else "as trained",
        linear,
        "yes" if fact["cached_decoding"] else "no",
        cost,
    )


def markdown(facts: Iterable[Mapping[str, Any]]) -> str:
    """All of it as a Markdown table under its heading."""
    measured = costs()
    lines = [
        "# All encodings",
        "",
        "Made by `posenc list encodings --long` from the files in this folder. " + ABOUT,
        "",
    ]
    lines += [_line(HEAD), _line(["---"] * len(HEAD))]
    for fact in facts:
        name, formula, *others = cells(fact, measured.get(str(fact["encoding"]), ""))
        lines.append(_line((f"`{name}`", f"`{formula}`", *others)))
    return "\n".join(lines) + "\n"


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
