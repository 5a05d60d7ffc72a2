"""Several results folders read as one: those of other machines, or of other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posenc.common.errors import StoreError
from posenc.records.manifest import asked_at, merged, with_claims
from posenc.records.record import Record, dig
from posenc.records.store import Store

_NUMBERS = ("status", "scores", "checkpoint", "best_step", "tokens_seen")
"""Of two records of one cell these must be the same; when and where it ran may differ."""


class Together(Store):
    """Reads each cell from the first folder that has its record. Nothing is written.

    Raises:
        StoreError: a folder has no results, or those of another suite, or other cells of the same names; or two records
            of one cell have different numbers.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores[0].folder)
        self.stores = list(stores)
        self.manifests = [store.read_manifest() for store in self.stores]
        self._require_one_suite()
        self._owners: dict[str, Store] = {}
        for store, manifest in zip(self.stores, self.manifests, strict=True):
            for cell in manifest["cells"]:
                self._place(store, cell["id"], str(cell["name"]))

    def _require_one_suite(self) -> None:
        names: dict[str, tuple[str, Path]] = {}
        first = self.manifests[0]["suite"]
        for store, manifest in zip(self.stores, self.manifests, strict=True):
            own = manifest["suite"]
            for key in ("name", "definition"):
                if own.get(key) != first.get(key):
                    told = (
                        f"{first['name']!r} and {own['name']!r}" if key == "name" else "the same name, and others cells"
                    )
                    raise StoreError(f"{self.folder} and {store.folder} are not of one suite: {told}")
            for cell in manifest["cells"]:
                known, where = names.setdefault(cell["name"], (cell["id"], store.folder))
                if known != cell["id"]:
                    raise StoreError(
                        f"{cell['name']} is another cell in {store.folder} than in {where}: its data, its encoding's"
                        " version or its settings differ"
                    )

    def _place(self, store: Store, cell_id: str, name: str) -> None:
        if not (store.cell_folder(cell_id) / "record.json").is_file():
            return
        other = self._owners.setdefault(cell_id, store)
        if other is store:
            return
        one, two = _whole(other, cell_id), _whole(store, cell_id)
        if one is None:  # damaged: the other folder's stands in for it
            self._owners[cell_id] = store
        elif two and any(one.get(key) != two.get(key) for key in _NUMBERS):
            raise StoreError(f"two different records of {name}: in {other.folder} and in {store.folder}")

    def cell_folder(self, cell_id: str) -> Path:
        owner = self._owners.get(cell_id)
        return super().cell_folder(cell_id) if owner is None else owner.cell_folder(cell_id)

    @property
    def manifest_paths(self) -> list[Path]:
        return [store.manifest_path for store in self.stores]

    def read_manifest(self) -> dict[str, Any]:
        """All that was planned. Seeds that were asked for when others had ended are an extension, wherever they ran."""
        ended: list[str] = []
        asked: list[dict[str, Any]] = []
        for manifest in sorted(self.manifests, key=lambda one: str(one.get("made") or "")):
            for entry in asked_at(manifest):
                seen = sum(time <= str(entry.get("made") or "") for time in ended)
                asked = merged(asked, entry, seen)
            ended += [str(dig(record, ("times", "ended")) or "") for record in self._records_of(manifest)]
        cells = {cell["id"]: cell for manifest in self.manifests for cell in manifest["cells"]}
        tasks = {name: task for manifest in self.manifests for name, task in (manifest.get("tasks") or {}).items()}
        whole = sorted(cells.values(), key=lambda cell: cell["config"]["seed"])
        claims = with_claims(self.manifests)
        return {**self.manifests[0], "cells": whole, "tasks": tasks, "asked": asked, **claims}

    def _records_of(self, manifest: dict[str, Any]) -> list[Record]:
        return [record for cell in manifest["cells"] if (record := _whole(self, cell["id"]))]


def _whole(store: Store, cell_id: str) -> Record | None:
    """A record that can be used; the report names one that cannot."""
    try:
        return store.read_record(cell_id)
    except StoreError:
        return None


def together(stores: Sequence[Store]) -> Store:
    """One store of several folders; of one, itself."""
    return stores[0] if len(stores) == 1 else Together(stores)
