"""Shared by the tests of `properties`: an encoding made for a test, and what is found of it."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from findings import NAMES

from posenc.api import registry
from posenc.api.encoding import Encoding
from posenc.properties.check import Finding, measure

QUICK = {"loads", "attention", "order", "norms", "positions", "gradients", "linear form"}
"""What takes some hundredths of a second each."""
Named = Callable[..., dict[str, Finding]]


@pytest.fixture
def measured() -> Iterator[Named]:
    """Registers a class as `broken` and gives the findings asked for by name, at the short length alone unless told."""

    def findings(
        encoding: type[Encoding], *names: str, text: str = "broken", lengths: Sequence[int] | None = ()
    ) -> dict[str, Finding]:
        assert names and set(names) <= set(NAMES)
        registry.register("broken", encoding)
        return {finding.name: finding for finding in measure(text, lengths=lengths, names=names)}

    yield findings
    registry._registered.pop("broken", None)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["quick", "whole"])
def named(request: pytest.FixtureRequest, measured: Named) -> Named:
    """As `measured`, for a test of what fails and what does not: beside those asked for it gives the quick ones.

    `nox -s slow` runs the same test with all, but for `graph`, for which a compiler goes over each stack.
    """

    def findings(encoding: type[Encoding], *names: str, lengths: Sequence[int] | None = ()) -> dict[str, Finding]:
        more = set(NAMES) - {"graph"} if request.param else QUICK
        return measured(encoding, *{*names, *more}, lengths=lengths)

    return findings
