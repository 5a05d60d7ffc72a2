"""Whether the order of encodings changes: by hand, against SciPy, the seeds' bootstrap, the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made import cell, make_store, pages, record, visible
from scipy import stats

from posenc.records.store import Store
from posenc.report.statistics import order
from posenc.report.statistics.tables import scores_frame

NAMES = ("none", "sinusoidal", "t5", "rope")


def test_by_hand() -> None:
    one, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 4.0, 3.0])
    assert order.kendall(one, other) == pytest.approx((5 - 1) / 6)  # five pairs agree, one does not
    assert order.spearman(one, other) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert order.kendall(one, -one) == order.spearman(one, -one) == -1
    assert np.isnan(order.kendall(one, np.ones(4))) and np.isnan(order.spearman(np.ones(4), one))


def test_against_scipy_with_ties() -> None:
    generator = np.random.default_rng(0)
    for size in (3, 5, 9):
        x, y = generator.integers(0, 5, (2, 40, size)).astype(float)
        for a, b, tau, rho in zip(x, y, order.kendall(x, y), order.spearman(x, y), strict=True):
            if np.ptp(a) and np.ptp(b):
                assert tau == pytest.approx(stats.kendalltau(a, b).statistic)
                assert rho == pytest.approx(stats.spearmanr(a, b).statistic)


def test_the_bootstrap_draws_the_same_seeds_for_both() -> None:
    """What all seeds share moves no order; two seeds' intervals can be counted: each draw is one of three means."""
    luck = np.array([[0.0], [5.0]])
    x = np.array([[1.0, 2.0, 3.0]]) + luck
    found = order.interval(x, x[:, ::-1] + 1)
    assert (found["tau"], found["tau_low"], found["tau_high"]) == (-1, -1, -1)
    # At one seed the first two change places, and by the mean they do not.
    y = np.array([[1.0, 2.0, 3.0], [1.5, 1.0, 3.0]])
    found = order.interval(np.array([[1.0, 2.0, 3.0]] * 2), y)
    assert found["tau"] == 1 and found["tau_low"] == pytest.approx(1 / 3) and found["tau_high"] == 1
    assert np.isnan(order.interval(x[:1], x[:1])["tau_low"])


def store_of(folder: Path) -> Store:
    """Three rates; at the last the order is reversed. At four times the length all are worse by 1."""
    cells, records = [], []
    for rate, sign in ((0.001, 1), (0.002, 1), (0.004, -1)):
        for place, name in enumerate(NAMES):
            for seed in range(3):
                cells.append(cell(name, seed, learning_rate=rate))
                score = 3 + sign * 0.1 * place + 0.01 * seed
                records.append(record(cells[-1], score, score + 1))
    return make_store(folder, cells, records)


def test_a_report_holds_each_value_against_the_first(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    html, markdown = pages(store)
    written: Any = pd.read_csv(store.folder / "report" / "tables" / "order.csv").to_dict("records")
    rows = {(row["axis"] if isinstance(row["axis"], str) else "", row["value"]): row for row in written}
    assert len(rows) == 2 + 3 and all(row["encodings"] == 4 and row["seeds"] == 3 for row in written)
    assert rows["", "training.learning_rate=0.002"]["tau"] == 1
    far = rows["", "training.learning_rate=0.004"]
    assert (far["tau"], far["tau_high"], far["first"], far["first_reference"]) == (-1, -1, "rope", "none")
    assert rows["length scored", "256 (training.learning_rate=0.004)"]["rho"] == 1
    for text in (visible(html), markdown):
        assert "Of 5 values 4 have the same order of means" in text and "in 1 another encoding is best" in text
    assert (store.folder / "report" / "figures" / "order-enwik8.svg").is_file()


def test_two_encodings_have_no_order() -> None:
    cells = [cell(name, 0, learning_rate=rate) for rate in (0.001, 0.002) for name in NAMES[:2]]
    assert order.orders(scores_frame([record(one, 3.0, 4.0) for one in cells])).empty
