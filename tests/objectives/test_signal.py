"""What code makes for `smoke` can be learnt there by what knows order, and by nothing that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from posenc.plan.plan import Selection, find_suite, make
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
# What a model that knows order reaches from scratch at least, and what one that does not reaches at most.
TASKS = {
    "glue/mrpc": (0.8, 0.72), "glue/qnli": (0.9, 0.56), "glue/mnli": (0.8, 0.40), "glue/stsb": (0.5, 0.12),
    "glue/sst2": (0.7, 0.56), "cail2019-scm": (0.62, 0.56), "multi30k": (70, 50),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_order_decides_and_is_learnt(task: str, tmp_path: Path) -> None:
    """F1 of always yes is 0.667; a guess is right in a half, of three classes in a third."""
    at_least, at_most = TASKS[task]
    changes = {} if task == "multi30k" else {"start": "scratch"}
    plan = make(find_suite(task), Selection(encodings=["none", "rope"], seeds=[0], scale="smoke", changes=changes))
    scores, floors = {}, {}
    for cell in plan.cells:
        record = train(cell, CellTerms("smoke", tmp_path))
        assert record and record["status"] == "done", record and record["traceback"]
        name = cell.config["encoding"]["name"]
        main = record["metric"]["name"]  # type: ignore[index]
        scores[name] = next(
            row["value"] for row in record["scores"] if row["split"] == "test" and row["metric"] == main
        )
        floors[name] = max(record["baselines"].values())
    assert scores["rope"] >= at_least > floors["rope"]
    assert scores["none"] <= at_most < at_least
