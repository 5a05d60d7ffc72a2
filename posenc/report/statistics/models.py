"""The paper's own rows against each other on the same test items, whatever else than the encoding differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from posenc.api.blocks import Table
from posenc.common.errors import StoreError
from posenc.objectives.metrics import read
from posenc.records.record import Record
from posenc.records.store import Store
from posenc.report.statistics.intervals import mcnemar
from posenc.report.statistics.resampling import discordant, load, right

HEAD = ("task", "seed", "one model", "the other", "right by the one alone", "by the other alone", "items",
        "p (McNemar, exact)")  # fmt: skip


def between_models(
    store: Store, records: Iterable[Record], manifest: Mapping[str, Any], unread: list[str]
) -> dict[str, Table]:
    """By task a row for each pair of models that the suite gives names of their own: test items right by one alone.

    Pairs of one seed, at their trained lengths. BERT reads characters and RoFormer words; RoFormer may have been
    trained at two lengths: what is compared is what they say of the same items (McNemar 1947, exact binomial). It is no
    test of the encoding where more than the encoding differs. `unread` takes a line for each cell with damaged items.
    """
    labels = {cell["id"]: str(cell.get("label") or "") for cell in manifest["cells"]}
    found: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
    for record in records:
        config, label = record["config"], labels.get(record["id"])
        scored = next((one for one in map(read, record.get("metrics") or []) if one.test == "mcnemar"), None)
        if record["status"] != "done" or not label or scored is None:
            continue
        if record.get("items") and not (store.cell_folder(record["id"]) / "items.npz").is_file():
            continue  # records that were copied without them
        try:
            arrays = load(store, record).get(("test", config["length"]), {})
        except StoreError as error:
            unread.append(str(error))
            continue
        answered = right(scored, arrays)
        if answered is not None:
            key = (config["task"], config["scale"], config["backbone"]["attention"], config["start"], config["seed"])
            found.setdefault(key, []).append((f"{label}, {config['length']:,}", answered))
    rows: dict[str, list[tuple[str, ...]]] = {}
    for (task, *_, seed), models in found.items():
        for (one, ours), (other, theirs) in combinations(models, 2):
            if len(ours) != len(theirs):
                continue
            alone, by_other = discordant(ours, theirs)
            texts = (task, str(seed), one, other, str(alone), str(by_other), f"{len(ours):,}")
            rows.setdefault(task, []).append((*texts, f"{mcnemar(alone, by_other):.2g}"))
    return {task: Table(HEAD, tuple(texts)) for task, texts in rows.items()}
