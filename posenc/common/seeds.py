"""Seeds derived by name: what is drawn for one purpose never depends on what was drawn for another."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for a purpose, such as `derive(0, "batches", step)`: the same on every machine."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
