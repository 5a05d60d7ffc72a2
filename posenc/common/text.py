"""Text from elsewhere, made harmless before it is shown or written to a table; times in words; JSON."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def harmless(text: object) -> str:
    """A text in which nothing can act on a terminal: control characters, and those that turn the order of writing,
    are shown as `\\x1b` is. Line breaks and tabs stay.
    """
    text = str(text)
    # Python calls neither control characters nor those that turn the order printable: of most texts that is enough.
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    acts = unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
    if acts or character in TURNING:
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character


def masked(text: object) -> str:
    """A text in which the passwords of its URIs are `***`: `http://user:***@host`, `?password=***`."""
    text = re.sub(r"(\w://[^\s/:@]*):[^\s\"'<>]*@", r"\1:***@", str(text))
    return re.sub(r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|api_?key)=)[^\s&;\"'<>)]+", r"\1***", text)


def for_csv(text: str) -> str:
    """A cell of a CSV that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def duration(seconds: float | None) -> str:
    """Seconds for people: `14.2 s`, `5 min`, `2 h 10 min`; `?` where unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 20 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours / 24:.1f} days"


def size(count: float) -> str:
    """Bytes for people: `512 MB`, `3.1 GB`."""
    return (
        f"{count / 1e6:.0f} MB"
        if count < 1e9
        else f"{count / 1e9:.1f} GB"
        if count < 1e11
        else f"{count / 1e9:,.0f} GB"
    )


def as_json(value: Any) -> str:
    """A value as JSON that every reader takes: what is no finite number is null."""
    return json.dumps(_finite(value), indent=1, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
