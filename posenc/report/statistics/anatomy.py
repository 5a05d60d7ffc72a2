"""What was measured of models' heads, gathered from the cells that measured it: before training and after."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posenc.common.errors import StoreError
from posenc.records.record import Record, coordinates, labels, variants
from posenc.records.store import Store
from posenc.report.statistics import resampling
from posenc.report.statistics.tables import GROUP

BEFORE, AFTER = "before training", "after training"
BY_HEAD = ("mean_distance", "entropy", "evenness", "first_token", "to_scores", "to_values")
CURVES = ("similarity", "score", "weight")
SPLIT = "anatomy"

Array = NDArray[Any]


@dataclass(frozen=True)
class Anatomies:
    """Each frame has GROUP, encoding, label, state (BEFORE, AFTER) and evaluated (the length of the rows measured).

    Attributes:
        heads: a row a head and seed: layer, rank (among the layer's heads, by value, so that seeds can be averaged),
            metric, value.
        curves: of the first seed, at the trained length: view (of CURVES), layer, head, distance, value.
        means: over seeds, layers and heads: view, distance, value.
        maps: (place, label, weights (layers,H,M,M), mean_distance (layers,H)) of the first seed after training.
    """

    heads: pd.DataFrame
    curves: pd.DataFrame
    means: pd.DataFrame
    maps: tuple[tuple[dict[str, Any], str, Array, Array], ...]


def state_of(config: Mapping[str, Any]) -> str:
    """Whether a cell measured a model that another had trained."""
    return AFTER if config.get("parent") else BEFORE


def place_of(record: Record, variant: str) -> dict[str, Any]:
    """Where a cell stands, its start apart: models before and after training stand in one group."""
    rest = re.sub(r"(^|, )start=[^,]*", "", variant).removeprefix(", ")
    return {**coordinates(record["config"]), "variant": rest}


def gather(store: Store, records: Iterable[Record], manifest: Mapping[str, Any], unread: list[str]) -> Anatomies:
    """All that cells kept by head and by distance; what cannot be read is named in `unread`."""
    by_id, named = variants(manifest["cells"]), labels(manifest["cells"])
    heads: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []
    maps: dict[Any, tuple[dict[str, Any], str, Array, Array]] = {}
    for record in sorted(records, key=lambda one: one["config"]["seed"]):
        if not any(score["split"] == SPLIT for score in record.get("scores") or []):
            continue
        try:
            items = resampling.load(store, record)
        except StoreError as error:
            unread.append(f"{error}: its cell is not in the anatomy")
            continue
        place = place_of(record, by_id.get(record["id"], ""))
        place |= {"label": named[record["id"]], "state": state_of(record["config"])}
        for (_, evaluated), arrays in items.items():
            at = {**place, "evaluated": evaluated}
            heads += [_heads(at, name, arrays[name]) for name in BY_HEAD if name in arrays]
            curves += [_curve(at, name, arrays) for name in CURVES if name in arrays]
            key = (*(place[name] for name in GROUP), place["encoding"])
            if place["state"] == AFTER and evaluated == place["length"] and key not in maps:
                maps[key] = (place, str(place["label"]), arrays["maps"], arrays["mean_distance"])
    columns = [*GROUP, "encoding", "label", "state", "seed", "evaluated"]
    found = _joined(heads, [*columns, "layer", "rank", "metric", "value"])
    whole = _joined(curves, [*columns, "view", "layer", "head", "distance", "value"])
    apart = [*GROUP, "encoding", "label", "state", "evaluated", "view", "distance"]
    means = whole.groupby(apart, dropna=False, sort=False)["value"].mean().reset_index()
    trained = whole[whole["evaluated"] == whole["length"]]
    firsts = trained.groupby([*GROUP, "encoding", "state"], dropna=False, sort=False)["seed"].transform("min")
    return Anatomies(found, trained[trained["seed"] == firsts], means, tuple(maps.values()))


def _heads(place: Mapping[str, Any], metric: str, values: Array) -> pd.DataFrame:
    """Of values (layers,H) a row each, ranked within their layer."""
    ranked = np.sort(values, axis=1)
    layer, rank = np.indices(ranked.shape)
    frame = pd.DataFrame({"layer": layer.ravel() + 1, "rank": rank.ravel() + 1, "value": ranked.ravel().astype(float)})
    return frame.assign(**place, metric=metric)


def _curve(place: Mapping[str, Any], view: str, arrays: Mapping[str, Array]) -> pd.DataFrame:
    """Of curves (layers,H,N) a row a point."""
    values, distances = arrays[view], arrays["distances"]
    layer, head, index = (part.ravel() for part in np.indices(values.shape))
    frame = pd.DataFrame({"layer": layer + 1, "head": head + 1, "distance": distances[index]})
    return frame.assign(value=values.ravel().astype(float), **place, view=view)


def _joined(frames: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
