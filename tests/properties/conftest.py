"""Shared by the tests of `properties`: an encoding made for a test, and what is found of it."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.properties.check import MEASUREMENTS, Finding, measure

NAMES = [measurement.__name__.replace("_", " ") for measurement in MEASUREMENTS]
Named = Callable[..., dict[str, Finding]]


@pytest.fixture
def named() -> Iterator[Named]:
    """Registers a class as `broken` and gives its findings by name.

    At the short length alone, unless told others; without `graph`, for which a compiler goes over each stack, unless it
    is asked for.
    """

    def findings(
        encoding: type[Encoding], text: str = "broken", lengths: Sequence[int] | None = (), graph: bool = False
    ) -> dict[str, Finding]:
        registry.register("broken", encoding)
        names = [name for name in NAMES if graph or name != "graph"]
        return {finding.name: finding for finding in measure(text, lengths=lengths, names=names)}

    yield findings
    registry._registered.pop("broken", None)
