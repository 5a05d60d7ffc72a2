"""Shared by the tests of `properties`: an encoding made for a test, and what is found of it."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.properties.check import Finding, measure

Named = Callable[..., dict[str, Finding]]


@pytest.fixture
def named() -> Iterator[Named]:
    """Registers a class as `broken` and gives its findings by name: at the short length alone, unless told others."""

    def findings(
        encoding: type[Encoding], text: str = "broken", lengths: Sequence[int] | None = ()
    ) -> dict[str, Finding]:
        registry.register("broken", encoding)
        return {finding.name: finding for finding in measure(text, lengths=lengths)}

    yield findings
    registry._registered.pop("broken", None)
