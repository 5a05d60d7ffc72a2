"""The paper's own rows on the same test items: McNemar's test between models that differ in more than the encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import cell, make_store, pages, record

from posenc.records.store import Store
from posenc.report.figures.forests import overview
from posenc.report.figures.style import looks
from posenc.report.sections.paper import theory_grid
from posenc.report.statistics.models import between_models
from posenc.report.statistics.tables import configuration_differences, scores_frame
from posenc.report.view import View


def matching(folder: Path, answers: dict[tuple[str, str, int], list[float]], metric: str = "accuracy") -> Store:
    """Cells of one task by (label, tokeniser, length), with what each said of the same items."""
    cells, records = [], []
    for index, (label, tokeniser, length) in enumerate(answers):
        one = cell("learned" if label != "RoFormer" else "rope", 0)
        config = {**one["config"], "task": "cail2019-scm", "length": length, "start": "zh-mlm"}
        config["data"] = {**config.get("data", {}), "tokeniser": tokeniser}
        cells.append({**one, "id": f"cell{index}", "config": config, "label": label})
        metrics = [{"name": metric, "title": metric, "better": "higher"}]
        records.append(record(cells[-1], 0.5, 0.5) | {"id": f"cell{index}", "config": config, "metrics": metrics})
    store = make_store(folder, cells, records)
    for one, items in zip(records, answers.values(), strict=True):
        length = one["config"]["length"]
        arrays = {f"test/{length}/accuracy": np.array(items), f"test/{length}/weight": np.ones(len(items))}
        store.write_record({**one, "items": store.write_items(one["id"], arrays)})
    card = {"paper": "Su et al. 2021", "caveats": [], "reported": [
        {"where": "Table 5", "row": "RoFormer", "metric": "accuracy", "value": 0.68, "says": "", "split": "test",
         "length": 64, "stage": 0}
    ]}  # fmt: skip
    store.write_manifest({**store.read_manifest(), "tasks": {"cail2019-scm": {"title": "Cases", "card": card}}})
    return store


def test_every_pair_of_named_models_is_compared_on_the_same_items(tmp_path: Path) -> None:
    store = matching(
        tmp_path,
        {
            ("BERT", "characters", 64): [1, 0, 0, 0, 0, 0, 0, 0, 0.5],
            ("RoFormer", "words", 64): [0, 1, 1, 1, 1, 1, 1, 1, 1],
            ("RoFormer", "words", 128): [1, 1, 1, 1, 1, 1, 1, 1, 0.5],
        },
    )
    grid = between_models(store, store.records(), store.read_manifest(), [])["cail2019-scm"]
    # One item BERT alone has right, seven RoFormer alone (a tie says nothing): of 8, P(at most 1) twice is 18/256.
    assert grid.rows[0] == ("cail2019-scm", "0", "BERT, 64", "RoFormer, 64", "1", "7", "9", "0.07")
    assert [row[2:6] for row in grid.rows[1:]] == [
        ("BERT, 64", "RoFormer, 128", "0", "7"), ("RoFormer, 64", "RoFormer, 128", "0", "1")
    ]  # fmt: skip
    assert float(grid.rows[1][-1]) == pytest.approx(2 / 2**7, abs=1e-3)
    assert all("McNemar, exact" in page for page in pages(store))


def test_models_without_a_name_or_of_a_task_without_right_answers_are_left_out(tmp_path: Path) -> None:
    store = matching(tmp_path / "one", {("BERT", "characters", 64): [1, 0], ("", "words", 64): [1, 1]})
    assert between_models(store, store.records(), store.read_manifest(), []) == {}
    both: dict[tuple[str, str, int], list[float]] = {("BERT", "words", 64): [1, 0], ("RoFormer", "words", 64): [1, 1]}
    scores = matching(tmp_path / "two", both, "spearman")  # its answers are numbers
    assert between_models(scores, scores.records(), scores.read_manifest(), []) == {}


def test_a_theory_says_which_claims_hold(tmp_path: Path) -> None:
    details: dict[str, Any] = {"holds": {"relative_error": True, "norm_error": False}}
    common = {"split": "theory", "length": 512, "items": 1, "why": None, "details": details}
    rows = [
        {**common, "metric": "relative_error", "value": 1e-15},
        {**common, "metric": "norm_error", "value": 0.5},
        {**common, "metric": "sparse_error", "value": None, "why": "it does not rotate"},
    ]
    one = record(cell("rope", 0), 1.0, 1.0) | {"scores": rows}
    grid = theory_grid(scores_frame([one]), [one])
    assert grid.rows[0][1:] == ("1e-15 (holds)", "0.5 (not so)", "it does not rotate")


def test_a_parent_is_no_difference_of_configuration(tmp_path: Path) -> None:
    cells = [cell("sinusoidal", 0), cell("rope", 0)]
    for index, one in enumerate(cells):
        one["config"] = {**one["config"], "parent": f"parent{index}"}
    store = make_store(tmp_path, cells, [record(one, 1.0, 1.0) for one in cells])
    assert "parent" not in set(configuration_differences(View(store).manifest["cells"], "sinusoidal")["key"])


def test_each_metric_has_a_figure_in_its_own_units_and_the_floor_is_left_out() -> None:
    common = {"named": True, "pairs": 2, "better": "higher", "attention": "softmax", "variant": "", "scale": "small",
              "length": 64, "encoding": "rope", "claim": "rope", "baseline": "learned", "p_holm": 1.0, "decimals": 3,
              "difference": 0.1, "difference_low": 0.0, "difference_high": 0.2, "differences": "0.05 0.15",
              "at_floor": False}  # fmt: skip
    rows = [
        {**common, "task": "glue/stsb", "metric": "spearman", "title": "correlation"},
        {**common, "task": "glue/sst2", "metric": "accuracy", "title": "accuracy"},
        {**common, "task": "glue/rte", "metric": "accuracy", "title": "accuracy"},
        {**common, "task": "glue/wnli", "metric": "accuracy", "title": "accuracy", "at_floor": True},
    ]
    first, second = overview(rows, looks(["rope"]))
    assert [list(one.data["task"]) for one in (first, second)] == [["glue/stsb"], ["glue/sst2", "glue/rte"]]
    assert list(second.data["difference"]) == [0.1, 0.1]
    assert "Left out, as neither is better than a score without a model: glue/wnli." in first.notes[-1]
    assert "accuracy: rope less learned" in second.svg and "per cent" not in second.svg
