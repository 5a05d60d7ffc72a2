"""What a manifest says of its suite's claims: their shape."""

from __future__ import annotations

from typing import Any, Required, TypedDict


class ComparisonShape(TypedDict, total=False):
    """A line of the ledger: `mine` and `theirs` are the arms, as `without_seed` knows their cells ("" where the command
    line left them out); `evaluated`, `evaluated_theirs` the lengths scored, in tokens; the rest as in its TOML."""

    encoding: Required[str]
    baseline: Required[str]
    metric: Required[str]
    metric_theirs: Required[str]
    split: str
    mine: Required[str]
    theirs: Required[str]
    evaluated: Required[int | None]
    evaluated_theirs: Required[int | None]
    holds: Required[str]
    margin: Required[float]
    published: Required[list[dict[str, Any]]]


class ClaimShape(TypedDict, total=False):
    """A claim of a suite: its words, why it is not tested at this scale (else ""), and its comparisons."""

    name: Required[str]
    title: Required[str]
    who: Required[str]
    paper: Required[str]
    where: Required[str]
    says: Required[str]
    why_not: Required[str]
    published: Required[list[dict[str, Any]]]
    compare: Required[list[ComparisonShape]]
