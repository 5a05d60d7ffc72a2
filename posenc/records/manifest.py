"""What was planned of a suite, run after run: a command line that chose a part of it makes nothing else forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from posenc.records.record import dig


def union(before: Mapping[str, Any] | None, now: Mapping[str, Any], ended: int = 0) -> dict[str, Any]:
    """The manifest of a run, with the cells that the manifest before it has beyond its own; and in `asked` which seeds
    were asked for from when on.

    They are kept where both are of one suite: `suite.definition` is the same, which hashes all that a command line
    does not narrow. A cell of the same name is the same cell planned anew (its encoding's version may have changed),
    and one whose task now reads other data is no part of the same comparison: neither is kept.

    Args:
        ended: how many cells of the one before have a record. Seeds that are added where there are none are asked for
            at once with the others; later ones may have been asked for since the results were seen.
    """
    if before is None or not _of_one_suite(before, now):
        return {**now, "asked": [_asked(now["cells"], now.get("made"), 0)]}
    whole = _whole(before, now) | with_claims([now, before])
    return {**whole, "asked": merged(asked_at(before), _asked(whole["cells"], now.get("made"), 0), ended)}


def with_claims(manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The claims of manifests of one suite, under their key; {} where it has none.

    A command line that chose other tasks left a claim's cells unnamed: they are named by a manifest that has them.
    """
    found: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for claim in manifest.get("claims") or ():
            known = found.setdefault(claim["name"], claim)
            if not all(one["mine"] for one in known["compare"]):
                found[claim["name"]] = claim
    return {"claims": list(found.values())} if found else {}


def asked_at(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which seeds were asked for from when on; a manifest of an older posenc knows of one time."""
    return list(manifest.get("asked") or [_asked(manifest["cells"], manifest.get("made"), 0)])


def merged(asked: list[dict[str, Any]], entry: Mapping[str, Any], ended: int) -> list[dict[str, Any]]:
    """What was asked for, and these seeds once so many cells had ended; where none had, all were asked for at once."""
    if not asked:
        return [dict(entry)]
    if not set(entry["seeds"]) - set(asked[-1]["seeds"]):
        return asked
    seeds = sorted({*asked[-1]["seeds"], *entry["seeds"]})
    later = {"made": entry.get("made"), "seeds": seeds, "ended": ended}
    return [*asked, later] if ended else [*asked[:-1], later]


def _asked(cells: Iterable[Mapping[str, Any]], made: Any, ended: int) -> dict[str, Any]:
    return {"made": made, "seeds": sorted({cell["config"]["seed"] for cell in cells}), "ended": ended}


def _whole(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest now with what is kept of the one before."""
    planned = {cell["name"] for cell in now["cells"]}
    data: dict[Any, set[Any]] = {}
    for cell in now["cells"]:
        data.setdefault(cell["config"]["task"], set()).add(_data(cell))
    left = [
        cell
        for cell in before["cells"]
        if cell["name"] not in planned and _data(cell) in data.get(cell["config"]["task"], {_data(cell)})
    ]
    if not left:
        return dict(now)
    # In the order of before: a part of a suite that runs again does not come first for that.
    known = {cell["name"]: place for place, cell in enumerate(before["cells"])}
    cells = sorted([*left, *now["cells"]], key=lambda cell: known.get(cell["name"], len(known)))
    cells.sort(key=lambda cell: cell["config"]["seed"])  # which varies slowest in every plan
    used = {cell["config"]["task"] for cell in cells}
    tasks = {**(before.get("tasks") or {}), **(now.get("tasks") or {})}
    return {**now, "cells": cells, "tasks": {name: task for name, task in tasks.items() if name in used}}


def _of_one_suite(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """By their definitions; where the one before, of an older posenc, has none, by a cell that both have."""
    was, is_now = (dig(manifest, ("suite", "definition")) for manifest in (before, now))
    if was is None:
        return bool({cell["id"] for cell in before["cells"]} & {cell["id"] for cell in now["cells"]})
    return bool(was == is_now)


def _data(cell: Mapping[str, Any]) -> Any:
    return dig(cell, ("config", "data", "digest"))
