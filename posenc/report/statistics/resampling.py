"""The sampling error of the test items: had other items been drawn, by how much would a difference have moved?

Where a cell kept its items (`items.npz` beside its record), every metric here is a function of sums over them. So
all encodings and seeds of a task are resampled together, by one matrix of how often each item is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from posenc.api.metric import Metric
from posenc.common.errors import StoreError
from posenc.objectives.metrics import read
from posenc.records.record import POSITIONS, Record, coordinates, labels, variants
from posenc.records.store import Store
from posenc.report.statistics import positions
from posenc.report.statistics.intervals import LEVEL, mcnemar
from posenc.report.statistics.tables import COLUMN, GROUP

RESAMPLES = 1000
PART = 100
"""Resamples that are worked off at once: with tens of thousands of items, all of them would fill the memory."""

Numbers = NDArray[np.float64]
FIELDS = (*COLUMN, "encoding", "baseline", "items", "seeds", "item_low", "item_high", "mcnemar", "why")


NOT_AT_HAND = "items of some seeds are not at hand"
NOT_READABLE = "items of some seeds could not be read"
_NOTHING: dict[str, Any] = {"item_low": math.nan, "item_high": math.nan, "mcnemar": ()}


class Sums(NamedTuple):
    """What a metric is made from: (N, K) statistics of each item, and the metric of (B, K) sums of them."""

    each: Numbers
    value: Callable[[Numbers], Numbers]


def _ratio(sums: Numbers) -> Numbers:
    return sums[:, 0] / sums[:, 1]


def _exp_ratio(sums: Numbers) -> Numbers:
    return np.exp(_ratio(sums))


def _f1(sums: Numbers) -> Numbers:
    """2 TP / (2 TP + FP + FN), of label 1; nought where label 1 never comes, as scikit-learn has it."""
    both, answered, true = sums.T
    return np.divide(2 * both, answered + true, out=np.zeros_like(both), where=answered + true > 0)


def _pearson(sums: Numbers) -> Numbers:
    n, x, y, xx, yy, xy = sums.T
    spread = np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0)
    return np.divide(n * xy - x * y, np.sqrt(spread), out=np.zeros_like(xy), where=spread > 0)


def _bleu(sums: Numbers) -> Numbers:
    """Corpus BLEU from sentences' counts: lengths of translation and reference, then matches and n-grams by order."""
    from sacrebleu.metrics import BLEU

    order = (sums.shape[1] - 2) // 2
    whole = np.rint(sums).astype(int)
    scores = (
        BLEU.compute_bleu(list(row[2 : 2 + order]), list(row[2 + order :]), row[0], row[1], smooth_method="exp")
        for row in whole
    )
    return np.array([one.score for one in scores])


def sums_of(metric: Metric, arrays: Mapping[str, Any]) -> Sums | None:
    """The statistics of each item from which a metric is made, or None where the arrays do not tell it.

    Args:
        arrays: of one split and length, by the names that `metric.items` has; each (N,).
    """
    if not metric.over or not set(metric.items) <= arrays.keys():
        return None
    one, other = (np.asarray(arrays[name]) for name in metric.items)
    if metric.over in ("mean", "exp_mean"):
        return Sums(np.stack([one, other], axis=1).astype(float), _ratio if metric.over == "mean" else _exp_ratio)
    if metric.over == "bleu":
        from sacrebleu.metrics import BLEU

        return Sums(np.array(BLEU()._extract_corpus_statistics(list(one), [list(other)]), dtype=float), _bleu)
    if metric.over == "f1":
        return Sums(np.stack([(one == 1) & (other == 1), one == 1, other == 1], axis=1).astype(float), _f1)
    # Matthews' correlation of two classes is Pearson's of the numbers 0 and 1.
    x, y = one.astype(float) - np.mean(one), other.astype(float) - np.mean(other)
    return Sums(np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1), _pearson)


def draws(items: int, running: bool = False, seed: int = 0) -> Iterable[Numbers]:
    """How often each of N items is drawn in each resample: (B, N) parts, the same ones for all that is compared.

    Of a running text blocks of N^(1/3) neighbours are drawn, round its end to its beginning (Politis and Romano 1992):
    one by one, items that are alike would make the interval too narrow.
    """
    generator = np.random.default_rng([seed, items])
    block = max(1, round(items ** (1 / 3))) if running else 1
    for start in range(0, RESAMPLES, PART):
        size = min(PART, RESAMPLES - start)
        firsts = generator.multinomial(-(-items // block), np.full(items, 1 / items), size=size).astype(float)
        yield sum((np.roll(firsts, shift, axis=1) for shift in range(1, block)), firsts)


def _spearman(counts: Numbers, answer: Numbers, truth: Numbers) -> Numbers:
    """Pearson's correlation of mean ranks, in each resample: an item drawn twice takes two ranks, and their mean."""
    ranks = []
    for values in (answer, truth):
        _, group = np.unique(values, return_inverse=True)
        members = np.zeros((len(values), group.max() + 1))
        members[np.arange(len(values)), group] = 1
        many = counts @ members
        ranks.append((np.cumsum(many, axis=1) - many + (many + 1) / 2)[:, group])
    n = counts.sum(axis=1, keepdims=True)
    x, y = (rank - (counts * rank).sum(axis=1, keepdims=True) / n for rank in ranks)
    spread = np.sqrt((counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1))
    return np.divide((counts * x * y).sum(axis=1), spread, out=np.zeros(len(counts)), where=spread > 0)


def resampled(metric: Metric, models: Sequence[Mapping[str, Any]]) -> Numbers | None:
    """(M, B): the metric of each of M models in each resample, the same draws for all; None where it has no items."""
    if not all(set(metric.items) <= one.keys() for one in models):
        return None
    models = [_of(metric, one) for one in models]
    parts = draws(len(next(iter(models[0].values()))), metric.running)
    if metric.over == "spearman":
        pairs = [tuple(np.asarray(one[name], float) for name in metric.items) for one in models]
        return np.concatenate([np.stack([_spearman(part, *pair) for pair in pairs]) for part in parts], axis=1)
    found = [sums_of(metric, one) for one in models]
    known = [one for one in found if one is not None]
    if len(known) < len(models):
        return None
    return np.concatenate([np.stack([s.value(part @ s.each) for s in known]) for part in parts], axis=1)


def _of(metric: Metric, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that a metric is made from, or all items where it is made from none; others may be of other items."""
    names = metric.items or [name for name in arrays if not name.startswith(POSITIONS)]
    return {name: arrays[name] for name in names}


def percentiles(values: Numbers) -> tuple[float, float]:
    """The bootstrap's 95 % interval by percentiles (Efron 1979)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def right(metric: Metric, arrays: Mapping[str, Any]) -> Numbers | None:
    """(N,) 1 for each item that was answered rightly, 0 for a wrong one, 0.5 for a tie, which is neither.

    None where the metric does not count right answers to whole items.
    """
    if metric.test != "mcnemar" or not set(metric.items) <= arrays.keys():
        return None
    answered, weight = metric.items
    return np.asarray(arrays[answered], dtype=float) if np.all(np.asarray(arrays[weight]) == 1) else None


def discordant(ours: Numbers, theirs: Numbers) -> tuple[int, int]:
    """How many items one has right and the other wrong, and the other way round; a tie of either says nothing."""
    return int(((ours == 1) & (theirs == 0)).sum()), int(((theirs == 1) & (ours == 0)).sum())


def load(store: Store, record: Record) -> dict[tuple[str, int], dict[str, Any]]:
    """A cell's test items by (split, length), and by name; empty where it kept none.

    Raises:
        StoreError: they are damaged, or not those that the record tells of.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for key, array in store.read_items(record).items():
        split, length, name = key.rsplit("/", 2)
        if split != "validation":
            found.setdefault((split, int(length)), {})[name] = array
    return found


class ItemTables(NamedTuple):
    """What resampling the test items tells.

    differences: for each encoding beside the baseline, in the main metric: item_low, item_high, of the difference of
        the seeds' means, the seeds held as they are, 95 % (paired bootstrap). mcnemar: for right or wrong items, (seed,
        right by this one alone, by the baseline alone, exact p) of each seed.
    scores: for every encoding: own_low, own_high, of its seeds' mean itself.
    positions: the loss by place in the window (`positions.averaged`).
    """

    differences: pd.DataFrame
    scores: pd.DataFrame
    positions: pd.DataFrame


def item_tables(
    store: Store, records: Iterable[Record], manifest: Mapping[str, Any], unread: list[str] | None = None
) -> ItemTables:
    """All items of a suite, resampled.

    Args:
        unread: takes a line for each cell whose items are damaged: its encoding and the baseline have no interval.

    Raises:
        StoreError: items are damaged, and there is no `unread` to name them in.
    """
    baseline = manifest["suite"].get("baseline")
    by_id = variants(manifest["cells"])
    groups: dict[tuple[Any, ...], dict[Any, dict[Any, dict[str, Any]]]] = {}
    absent: dict[tuple[Any, ...], str] = {}
    metrics: dict[str, Metric] = {}
    named = labels(manifest["cells"])
    places: list[dict[str, Any]] = []
    for record in records:
        if record["status"] != "done" or not record.get("metric"):
            continue
        metric = read(record["metric"])
        metrics[metric.name] = metric
        place = {**coordinates(record["config"]), "variant": by_id.get(record["id"], "")}
        cells = tuple(place[name] for name in (*GROUP, "encoding"))
        if record.get("items") and not (store.cell_folder(record["id"]) / "items.npz").is_file():
            absent[cells] = NOT_AT_HAND  # records that were copied without them
            continue
        try:
            loaded = load(store, record)
        except StoreError as error:
            if unread is None:
                raise
            unread.append(str(error))
            absent[cells] = NOT_READABLE
            continue
        for (split, length), whole in loaded.items():
            row = {**place, "label": named.get(record["id"], place["encoding"])}
            places += positions.by_seed(row, metric.name, split, length, whole)
            if not set(metric.items) <= whole.keys():
                continue  # no score in the main metric at this length, for which the record says why
            arrays = _of(metric, whole)
            key = {**place, "split": split, "metric": metric.name, "evaluated": length}
            group = groups.setdefault(tuple(key[name] for name in COLUMN), {})
            group.setdefault(place["encoding"], {})[place["seed"]] = arrays
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    for place_key, group in groups.items():
        place = dict(zip(COLUMN, place_key, strict=True))
        values = _values(metrics[place["metric"]], group)
        for name, seeds in group.items():
            if values is not None and (*(place[key] for key in GROUP), name) not in absent:
                low, high = percentiles(np.mean([values[name, seed] for seed in seeds], axis=0))
                scores.append({**place, "encoding": name, "own_low": low, "own_high": high})
        for row in _differences(metrics[place["metric"]], group, values, baseline):
            both = [(*(place[key] for key in GROUP), name) for name in (row["encoding"], baseline)]
            gone = [absent[cells] for cells in both if cells in absent]
            rows.append({**place, "baseline": baseline, **row, **(_NOTHING | {"why": gone[0]} if gone else {})})
    columns = (*COLUMN, "encoding", "own_low", "own_high")
    tables = pd.DataFrame(rows, columns=list(FIELDS)), pd.DataFrame(scores, columns=list(columns))
    return ItemTables(*tables, positions.averaged(places, baseline))


Group = Mapping[Any, Mapping[Any, Mapping[str, Any]]]
"""Arrays over the items by encoding and seed."""


def _sizes(group: Group) -> set[int]:
    return {len(next(iter(arrays.values()))) for seeds in group.values() for arrays in seeds.values()}


def _values(metric: Metric, group: Group) -> dict[tuple[Any, Any], Numbers] | None:
    """The metric of each encoding and seed in each resample; None where it has no items, or they differ in number."""
    models = [(name, seed) for name, seeds in group.items() for seed in seeds]
    if len(_sizes(group)) > 1:
        return None
    values = resampled(metric, [group[name][seed] for name, seed in models])
    return None if values is None else dict(zip(models, values, strict=True))


def _differences(
    metric: Metric, group: Group, values: Mapping[tuple[Any, Any], Numbers] | None, baseline: Any
) -> Iterable[dict[str, Any]]:
    """A row for each encoding that shares seeds and items with the baseline."""
    theirs = group.get(baseline)
    if not theirs:
        return
    sizes = _sizes(group)
    empty = {**_NOTHING, "items": max(sizes), "seeds": 0, "why": None}
    if len(sizes) > 1:
        why = "the cells were scored on different items"
        yield from ({**empty, "encoding": name, "why": why} for name in group if name != baseline)
        return
    if values is None:
        return
    for name, mine in group.items():
        seeds = [seed for seed in mine if seed in theirs]
        if name == baseline or not seeds:
            continue
        low, high = percentiles(np.mean([values[name, seed] - values[baseline, seed] for seed in seeds], axis=0))
        tests = tuple(_discordant(metric, seed, mine[seed], theirs[seed]) for seed in seeds)
        yield {
            **empty,
            "encoding": name,
            "seeds": len(seeds),
            "item_low": low,
            "item_high": high,
            "mcnemar": tuple(test for test in tests if test),
        }


def _discordant(
    metric: Metric, seed: Any, mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[Any, int, int, float] | None:
    ours, others = right(metric, mine), right(metric, theirs)
    if ours is None or others is None:
        return None
    alone, other = discordant(ours, others)
    return seed, alone, other, mcnemar(alone, other)
