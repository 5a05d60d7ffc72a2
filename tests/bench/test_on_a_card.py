"""`python -m posenc.bench.gpu` runs whole on a CPU, tiny and without MLflow: so that it is not broken on a card."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from posenc.bench import agreement, gpu, steps

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_all_parts_run_on_a_cpu_without_mlflow(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    file = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--tiny", "--jobs", "1", "--minutes", "10", "--json", str(file)]
    assert gpu.main(arguments) == 0
    found = json.loads(file.read_text())
    assert found["left_out"] == [] and found["agreement"]["failed"] == []
    assert found["agreement"]["agreed"] >= 16 and "softmax blocks" in found["agreement"]["worst"]
    assert any("flex" in reason for reason in found["agreement"]["refused"])
    for row in found["steps"]:
        assert row["reason"] is None and row["milliseconds"] > 0 and row["tokens_a_second"] > 0
        assert 0 < row["matrix_share"] < 2
    assert {row["pass"] for row in found["speed"] if row["seconds"]} == {"forward", "step"}
    assert "comparisons agree, 0 do not" in capsys.readouterr().out


def test_what_differs_or_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that gives something else, and one that raises."""
    from posenc.attention.softmax import blocks, sdpa

    attend = sdpa.attend
    monkeypatch.setattr(sdpa, "attend", lambda call: attend(call) * 1.01)

    def broken(call: Any) -> Any:
        raise RuntimeError("Input dtypes must be the same\nand more")

    monkeypatch.setattr(blocks, "attend", broken)
    rows = list(agreement._case("rope", "softmax", "decoder", "mixed", "cpu", 20))
    by = {(row["backend"], row["precision"]): row for row in rows}
    # The float64 model itself goes by sdpa: what is told is that all others differ from it.
    assert by["reference", "float32"]["passed"] is False and "off by" in by["reference", "float32"]["reason"]
    assert by["blocks", "float32"]["reason"] == "RuntimeError: Input dtypes must be the same"
    found = gpu.summary(rows)
    assert len(found["failed"]) >= 3 and "reference" in str(found["worst"])


AGREED = {"agreed": 20, "failed": [], "worst": {}, "refused": {}}
NOTHING: dict[str, Any] = {"agreement": AGREED, "left_out": [], "steps": [], "speed": []}


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, False),
        ({"left_out": ["agreement of rope: out of time", "speed of rope at 512 tokens: out of time"]}, False),
        ({"steps": [{"reason": None}, {"reason": "not possible: no kernel"}]}, False),
        ({"agreement": {**AGREED, "failed": [{}]}}, True),
        ({"agreement": {**AGREED, "agreed": 0}}, True),
        ({"left_out": ["agreement of rope: ImportError: no such file"]}, True),
        ({"steps": [{"reason": "RuntimeError: out of resource"}]}, True),
    ],
)
def test_what_counts_as_a_failure(changes: dict[str, Any], fails: bool) -> None:
    assert gpu.failed({**NOTHING, **changes}) is fails


def test_a_step_is_that_of_its_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the task whose model it would start from."""
    timed: list[str] = []
    monkeypatch.setattr(steps, "_timed", lambda loop, *given: timed.append(loop.config["task"]) or {})
    row = steps.measure("glue/sst2", "softmax", "rope", "cpu", scale="smoke", data=None, compile="none", reached=None)  # type: ignore[arg-type]
    assert timed == ["glue/sst2"], row
