"""A pytest plug-in for packages that bring encodings: the fixture `check_encoding`.

    def test_it_does_what_it_declares(check_encoding):
        check_encoding("mine")  # a name, `mine(option=2)`, or `./mine.py:Mine`

pytest finds it where posenc is installed. Nothing is loaded until a test asks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest


def _check_encoding() -> Callable[..., None]:
    """Fails, with each finding, where an encoding does not do what it declares; options as of check's `measure`."""

    def check(encoding: str, **options: object) -> None:
        from posenc.properties.check import measure

        found = measure(encoding, **options)  # type: ignore[arg-type]
        failed = [f"{one.name}: {one.why or one.measured}" for one in found if one.passed is False]
        if failed:
            pytest.fail("\n".join([f"{encoding} does not do what it declares:", *failed]), pytrace=False)

    return check


check_encoding = pytest.fixture(_check_encoding, name="check_encoding")
