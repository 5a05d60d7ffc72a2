"""Numbers and names as they are written in a report: rounding, signs, units, escapes."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import Any

from posenc.common.text import harmless
from posenc.records.record import is_number

MINUS = "\u2212"


def decimals_for(values: Iterable[Any]) -> int:
    """So many decimals that the largest of the values has four figures: 3.012, 0.8512, 27.31."""
    sizes = [abs(float(value)) for value in values if is_number(value)]
    largest = max(sizes, default=0.0)
    return 3 if largest == 0 else min(4, max(0, 3 - math.floor(math.log10(largest))))


def number(value: Any, decimals: int, *, signed: bool = False) -> str:
    """A rounded number with a true minus sign; `signed` writes the plus as well."""
    if not is_number(value):
        return "\u2013"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def which_is_better(better: Any) -> str:
    """`, lower is better`; nothing of what is no merit or is not known."""
    return f", {better} is better" if better in ("lower", "higher") else ""


def with_half_width(value: Any, half: Any, decimals: int, *, signed: bool = False) -> str:
    """`3.012 ± 0.020`, or the number alone where there is no interval."""
    text = number(value, decimals, signed=signed)
    if not is_number(half) or not is_number(value):
        return text
    smallest = 10.0**-decimals
    width = number(half, decimals) if half == 0 or half >= smallest / 2 else f"<{smallest:.{decimals}f}"
    return f"{text} \u00b1 {width}"


def p_value(value: float) -> str:
    """Two figures, or that it is smaller than any that matters."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def times(value: Any) -> str:
    """A ratio: `1.12 times`."""
    return f"{value:.2f} times" if is_number(value) else "\u2013"


def count(value: Any) -> str:
    """A whole number with thousands set apart."""
    return f"{round(value):,}" if is_number(value) else "\u2013"


def short_count(value: Any) -> str:
    """`1.2 M`: three figures and a unit of a thousand, a million, ..."""
    if not is_number(value):
        return "\u2013"
    size = float(value)
    for unit in ("", " k", " M", " G", " T"):
        if abs(size) < 999.5 or unit == " T":
            break
        size /= 1000
    return f"{size:.3g}{unit}" if abs(size) < 999.5 else f"{size:,.0f}{unit}"


def size_in_bytes(value: Any) -> str:
    """Bytes in a unit that reads well."""
    if not is_number(value):
        return "\u2013"
    return f"{short_count(value)}B" if abs(value) >= 999.5 else f"{round(value)} B"


def flops(value: Any) -> str:
    """`1.2 TFLOP`: floating-point operations."""
    return f"{short_count(value)}FLOP" if is_number(value) else "\u2013"


def duration(seconds: Any) -> str:
    """`14.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if not is_number(seconds):
        return "\u2013"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def short_time(seconds: Any) -> str:
    """A time in a unit that reads well: `1.23 ms`."""
    if not is_number(seconds):
        return "\u2013"
    size, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if seconds >= s), (1e-6, "\u00b5s"))
    return f"{seconds / size:.3g} {unit}"


def is_wordy(text: str) -> bool:
    """Whether a cell of a table holds words rather than a figure."""
    return bool(text) and not re.match(r"[-+\u2212<\u2013]?\s*\d|\u2013$", text)


def plural(amount: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def listed(values: Iterable[Any]) -> str:
    """`0, 1, 2`, each once, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values))


def markdown(value: Any) -> str:
    """Any value as Markdown that shows it as it is: no markup, no HTML, no end of a table's cell."""
    text = harmless(str(value).replace("\r", " ").replace("\n", " "))
    text = re.sub(r"([\\`*_{}\[\]|~$#!])", r"\\\1", text)
    return html.escape(text, quote=False)


def last_line(text: Any) -> str:
    """The last line that says something: of a traceback, the error."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    return lines[-1] if lines else ""
