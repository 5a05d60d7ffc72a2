"""What tests of `properties.check` share: the names of all findings, and which of some failed."""

from __future__ import annotations

from posenc.properties.check import MEASUREMENTS, Finding

NAMES = [measurement.__name__.replace("_", " ") for measurement in MEASUREMENTS]


def failed(findings: dict[str, Finding]) -> list[str]:
    return [name for name, finding in findings.items() if finding.passed is False]
