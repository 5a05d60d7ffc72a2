"""Which model that was kept: of a cell of a suite's results, of any suite's, or of a folder that was exported."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from posenc.api import registry
from posenc.common.errors import PluginError, StoreError
from posenc.records.record import ending
from posenc.records.store import KEPT, Store
from posenc.trained import exported
from posenc.trained.model import Trained
from posenc.training import checkpoint, kept


def load(results: str | Path, cell: str | None = None) -> Trained:
    """A model that was kept, as its cell tested it.

    Args:
        results: the folder of a suite's results, such as "results/quick"; or one that `posenc export` wrote.
        cell: the cell's name ("enwik8/softmax/rope/L64/s0") or id; None for what was exported.

    Raises:
        StoreError: no such cell, it was not kept, its files are damaged, or its encoding is another one now.
        PosencError: its encoding is not installed.
    """
    if cell is None:
        whole = exported.read(Path(results))
        _require_same_encoding(whole[0]["config"]["encoding"])
        return Trained(*whole)
    store = Store(results)
    found = _find(store, cell)
    folder = store.cell_folder(found)
    if not (folder / KEPT).is_file():
        raise StoreError(_why_not(store, found, cell))
    described = kept.read(folder)
    record = store.read_record(found)
    if record is None or record["status"] != "done" or record["checkpoint"]["digest"] != described["weights"]:
        raise StoreError(f"{folder} holds a model and no record of it: {kept.ADVICE}")
    _require_same_encoding(described["config"]["encoding"])
    weights = checkpoint.load_weights(store.weights_path(found), described["weights"])
    return Trained(described, record, weights, kept.read_tokeniser(folder, described))


def load_of_any(results: Path, cell: str) -> Trained:
    """A model that was kept, of whichever suite under a folder of results has one of that name or id.

    Raises:
        StoreError: none has, or several have different ones; and as `load`.
    """
    found, told = dict[str, Path](), list[str]()
    for manifest in sorted([*results.glob("suite.json"), *results.glob("*/suite.json")]):
        store = Store(manifest.parent)
        try:
            known = _find(store, cell)
        except StoreError as error:
            told.append(str(error))
            continue
        if (store.cell_folder(known) / KEPT).is_file():
            found.setdefault(known, store.folder)
        else:
            told.insert(0, _why_not(store, known, cell))
    if not found:
        raise StoreError(told[0] if told else f"no results in {results}: name their folder with --results")
    if len(found) > 1:
        raise StoreError(f"several cells in {results} are named {cell!r}: give an id: {', '.join(found)}")
    ((known, folder),) = found.items()
    return load(folder, known)


def _find(store: Store, cell: str) -> str:
    """A cell's id, by its id or name."""
    names = {known["id"]: known["name"] for known in store.read_manifest()["cells"]}
    for path in sorted(store.folder.glob(f"cells/*/{KEPT}")):  # of earlier runs of the suite
        if path.parent.name not in names:
            names[path.parent.name] = kept.read(path.parent)["name"]
    if cell in names:
        return cell
    same = [key for key, name in names.items() if name == cell]
    if len(same) == 1:
        return same[0]
    if same:
        raise StoreError(f"{len(same)} cells in {store.folder} are named {cell!r}: give an id: {', '.join(same)}")
    near = difflib.get_close_matches(str(cell), [*names.values(), *names], n=1, cutoff=0.0)
    hint = f": did you mean {near[0]!r}?" if near else ""
    raise StoreError(f"no cell {cell!r} among the {len(names)} of {store.folder}{hint}")


def _why_not(store: Store, found: str, cell: str) -> str:
    record = store.read_record(found)
    if record is None:
        return f"cell {cell!r} has not run: `posenc run SUITE --keep` runs it, and keeps its model"
    if record["status"] != "done":
        return f"cell {cell!r} has no model: {ending(record)}"
    return f"the model of cell {cell!r} was not kept: {kept.ADVICE}, to the same numbers"


def _require_same_encoding(encoding: dict[str, Any]) -> None:
    registry.require_unchanged(encoding)
    now = registry.describe(encoding["name"], "a kept model")
    if now["version"] != encoding["version"]:
        raise PluginError(
            f"encoding {encoding['name']!r} has version {now['version']} here, and the model was trained with version"
            f" {encoding['version']}: install {encoding['package']}"
        )
