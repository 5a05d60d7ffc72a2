"""Readers that remember nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from official import READERS


@pytest.fixture
def fresh_readers() -> Iterator[None]:
    for reader in READERS.values():
        reader.cache_clear()  # type: ignore[attr-defined]
    yield
    for reader in READERS.values():  # real files are large
        reader.cache_clear()  # type: ignore[attr-defined]
