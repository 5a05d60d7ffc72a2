"""The report's statistics, each against a case worked by hand and, where SciPy has the same, against SciPy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import cell, make_store, pages, record, visible
from scipy import stats

from posenc.api.metric import Metric, mean
from posenc.common.errors import StoreError
from posenc.objectives.metrics import KNOWN
from posenc.records.store import Store
from posenc.report.statistics import resampling
from posenc.report.statistics.intervals import mcnemar, power, seeds_needed
from posenc.report.statistics.resampling import item_tables, resampled


def test_mcnemar_by_hand() -> None:
    # Of 10 items that one model alone got right, 8 are mine: 2 (1 + 10 + 45) / 1024 = 0.109375.
    assert mcnemar(8, 2) == pytest.approx(112 / 1024)
    assert mcnemar(2, 8) == mcnemar(8, 2)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)


def test_power_by_hand() -> None:
    # With no difference the test is wrong one time in twenty, however many seeds.
    assert [power(0.0, seeds) for seeds in (2, 5, 50)] == pytest.approx([0.05] * 3, abs=1e-9)
    # Cohen's tables (and every program since): a difference of half a standard deviation wants 34 pairs for 80 %.
    assert power(0.5, 33) < 0.8 <= power(0.5, 34)
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(-0.25, 0.5) == 34
    assert seeds_needed(3.0, 0.001) == 5  # fewer would do, and a claim needs five
    assert seeds_needed(1.0, 0.0) == 5
    assert seeds_needed(1e300, 1e-300) == seeds_needed(1e8, 1.0) == seeds_needed(1e8, 1e-9) == 5
    assert seeds_needed(0.001, 1.0) is None
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(math.nan, math.nan) is None


def test_power_is_how_often_a_simulated_difference_is_found() -> None:
    draws = np.random.default_rng(0).normal(0.8, 1.0, size=(4000, 10))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power(0.8, 10) == pytest.approx(found, abs=0.03)


def items_of(generator: np.random.Generator, kind: str, size: int = 60) -> dict[str, Any]:
    truth = generator.integers(0, 2, size)
    if kind == "means":
        weight = generator.integers(1, 9, size)
        return {"weight": weight, "loss": weight * generator.normal(2, 0.5, size)}
    if kind == "classes":
        answer = np.where(generator.random(size) < 0.7, truth, 1 - truth)
        return {"truth": truth, "answer": answer, "accuracy": answer == truth, "weight": np.ones(size)}
    if kind == "scores":
        scores = np.round(generator.random(size) * 5)  # with ties
        return {"truth": scores, "answer": np.round(scores + generator.normal(0, 1, size), 1)}
    words = np.array(["a", "b", "c", "d", "e", "f", "g", "h"])
    reference = [" ".join(generator.choice(words, 8)) for _ in range(size)]
    translation = [" ".join(np.where(generator.random(8) < 0.8, text.split(), "z")) for text in reference]
    return {"translation": np.array(translation), "reference": np.array(reference)}


def value(metric: str, arrays: dict[str, Any], index: Any) -> float:
    """The metric of chosen items, by the libraries that define it."""
    from sacrebleu.metrics import BLEU
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    chosen = {name: np.asarray(array)[index] for name, array in arrays.items()}
    if metric in ("loss", "perplexity"):
        loss = float(chosen["loss"].sum() / chosen["weight"].sum())
        return loss if metric == "loss" else math.exp(loss)
    if metric == "bleu":
        return float(BLEU().corpus_score(list(chosen["translation"]), [list(chosen["reference"])]).score)
    function = {
        "accuracy": accuracy_score, "f1": f1_score, "matthews": matthews_corrcoef,
        "pearson": lambda t, a: stats.pearsonr(t, a).statistic,
        "spearman": lambda t, a: stats.spearmanr(t, a).statistic,
    }[metric]  # fmt: skip
    return float(function(chosen["truth"], chosen["answer"]))


LOSS = mean("loss", "loss", "lower")
PERPLEXITY = Metric("perplexity", "perplexity", "lower", "exp_mean", ("loss", "weight"))
METRICS = [(LOSS, "means"), (PERPLEXITY, "means"), (KNOWN["accuracy"], "classes"), (KNOWN["f1"], "classes"),
           (KNOWN["matthews"], "classes"), (KNOWN["pearson"], "scores"), (KNOWN["spearman"], "scores"),
           (KNOWN["bleu"], "texts")]  # fmt: skip


@pytest.mark.parametrize(("metric", "kind"), METRICS, ids=lambda one: getattr(one, "name", one))
def test_every_resample_scores_as_the_metrics_own_library_does(
    metric: Metric, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES", 20)
    arrays = items_of(np.random.default_rng(1), kind)
    got = resampled(metric, [arrays])
    assert got is not None
    counts = np.concatenate(list(resampling.draws(60)))
    expected = [value(metric.name, arrays, np.repeat(np.arange(60), row.astype(int))) for row in counts]
    assert got[0] == pytest.approx(expected, abs=1e-9)


def test_item_interval_is_scipys_paired_bootstrap() -> None:
    generator = np.random.default_rng(2)
    mine, theirs = items_of(generator, "means", 200), items_of(generator, "means", 200)
    theirs["weight"] = mine["weight"]
    values = resampled(LOSS, [mine, theirs])
    assert values is not None
    got = resampling.percentiles(values[0] - values[1])
    expected = stats.bootstrap(
        (mine["loss"], theirs["loss"], mine["weight"]),
        lambda a, b, w, axis: a.sum(axis) / w.sum(axis) - b.sum(axis) / w.sum(axis),
        paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    width = expected.high - expected.low
    assert got == pytest.approx((expected.low, expected.high), abs=0.12 * width)


def with_items(store: Store, of: dict[str, Any], value: float, arrays: dict[str, Any], **changes: Any) -> None:
    """Write a cell's items and its record, which names them."""
    store.write_record(record(of, value, value + 1, items=store.write_items(of["id"], arrays), **changes))


ACCURACY = {"metric": {"name": "accuracy", "title": "accuracy", "better": "higher"}}


def test_item_table_by_hand(tmp_path: Path) -> None:
    # Of 20 items rope alone gets 8 right, sinusoidal alone 2, both 10: p as above. In every resample the difference
    # is (mine - theirs) / 20, whose mean is 0.3 and whose variance is (10 / 20 - 0.3^2) / 20.
    truth = np.ones(20, int)
    rope, sinusoidal = np.array([1] * 18 + [0] * 2), np.array([0] * 8 + [1] * 12)
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
    store = make_store(tmp_path, cells, [])
    for of in cells:
        answer = rope if of["config"]["encoding"]["name"] == "rope" else sinusoidal
        with_items(store, of, 0.9, {"test/64/accuracy": answer == truth, "test/64/weight": np.ones(20)}, **ACCURACY)
    found = item_tables(store, list(store.records()), store.read_manifest()).differences
    row = found.iloc[0]
    assert (len(found), row["encoding"], row["evaluated"], row["items"], row["seeds"]) == (1, "rope", 64, 20, 2)
    assert row["mcnemar"] == ((0, 8, 2, pytest.approx(0.109375)), (1, 8, 2, pytest.approx(0.109375)))
    half = 1.96 * math.sqrt((0.5 - 0.09) / 20)
    assert (row["item_low"], row["item_high"]) == pytest.approx((0.3 - half, 0.3 + half), abs=0.051)


def test_items_of_another_file_are_refused(tmp_path: Path) -> None:
    of = cell("sinusoidal", 0)
    store = make_store(tmp_path, [of], [])
    with_items(store, of, 0.9, {"test/64/answer": np.ones(3), "test/64/truth": np.ones(3)}, **ACCURACY)
    store.write_items(of["id"], {"test/64/answer": np.zeros(3), "test/64/truth": np.ones(3)})
    with pytest.raises(StoreError, match="is not what the record beside it tells of"):
        item_tables(store, list(store.records()), store.read_manifest())


def test_items_that_are_not_at_hand_are_said(tmp_path: Path) -> None:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
    store = make_store(tmp_path, cells, [])
    for of in cells:
        with_items(store, of, 0.9, {"test/64/weight": np.ones(3), "test/64/bits_per_character": np.ones(3)})
    (store.cell_folder(cells[3]["id"]) / "items.npz").unlink()
    row = item_tables(store, list(store.records()), store.read_manifest()).differences.iloc[0]
    assert row["why"] == "items of some seeds are not at hand"
    assert math.isnan(row["item_low"])
    assert "No interval over test items: items of some seeds are not at hand" in visible(pages(store)[0])
