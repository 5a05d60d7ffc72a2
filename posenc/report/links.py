"""Addresses on the pages."""

from __future__ import annotations

import re


def checked(to: str) -> str:
    """An address that a page may hold.

    Raises:
        ValueError: it is neither of a file beside the page, nor an anchor, nor of the web.
    """
    scheme = re.match(r"\s*([^/?#]*):", to)
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise ValueError(f"a link to {to[:60]!r}: a file beside the page, an #anchor or a web address must be given")
    return to
