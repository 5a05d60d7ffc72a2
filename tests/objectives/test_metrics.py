"""A metric says how it is made from items, in a record too; objectives are found by name, a package's as posenc's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from posenc.api.entry_points import Registry
from posenc.api.metric import Metric
from posenc.common.errors import PluginError, UnknownNameError
from posenc.config.objectives import OBJECTIVES, objective
from posenc.config.task import task_at
from posenc.objectives.metrics import KNOWN, read
from posenc.report.statistics.resampling import resampled, right


@pytest.mark.parametrize("name", KNOWN)
def test_a_record_tells_all_of_a_metric(name: str) -> None:
    assert read(json.loads(json.dumps(asdict(KNOWN[name])))) == KNOWN[name]


def test_records_of_before_are_read_by_name_and_unknown_metrics_have_no_items() -> None:
    assert read({"name": "f1", "title": "F1", "better": "higher"}) == KNOWN["f1"]
    for odd in ({"over": "median"}, {"items": ["a"]}, {"test": "sign"}, {}):
        assert resampled(read({"name": "mine", "better": "lower", **odd}), [{"mine": [1.0], "weight": [1.0]}]) is None


def test_a_metric_of_a_package_is_resampled_as_it_says() -> None:
    mine = read({"name": "mine", "title": "", "better": "lower", "over": "exp_mean", "items": ["nats", "words"]})
    found = resampled(mine, [{"nats": [2.0, 2.0], "words": [4, 4]}])
    assert found is not None
    assert found.min() == found.max() == pytest.approx(2.718281828**0.5)


def test_right_answers_are_of_metrics_that_say_so() -> None:
    arrays = {"accuracy": [1, 0.5], "weight": [1, 1]}
    assert list(right(KNOWN["accuracy"], arrays)) == [1, 0.5]  # type: ignore[arg-type]
    assert right(KNOWN["masked_accuracy"], {"masked_accuracy": [1, 0], "weight": [1, 1]}) is None
    assert right(KNOWN["accuracy"], {**arrays, "weight": [2, 1]}) is None


@pytest.mark.parametrize(
    "wrong", [{"better": "more"}, {"over": "sum"}, {"over": "mean"}, {"items": ("a", "b")}, {"test": "mcnemar"}]
)
def test_a_metric_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="metric 'mine'"):
        Metric(**{"name": "mine", "title": "mine", "better": "lower", **wrong})


def test_every_objective_of_a_task_is_found() -> None:
    assert set(OBJECTIVES.entries()) == {
        "causal_lm", "masked_lm", "translation", "classification", "matching", "theory", "sequence", "anatomy",
        "anatomy_both_ways", "images", "videos", "harness",
    }  # fmt: skip
    assert objective("translation").sides == 2
    with pytest.raises(UnknownNameError, match=r"unknown objective 'causal_ml'.*did you mean 'causal_lm'"):
        objective("causal_ml")
    broken = Registry("objective", "nothing", {"masked_lm": "posenc.objectives.masked_lm:Nothing"})
    with pytest.raises(PluginError, match=r"objective 'masked_lm' of posenc .* cannot be loaded"):
        broken.load("masked_lm")


def test_names_are_known_without_torch() -> None:
    code = "import sys; from posenc.config.objectives import OBJECTIVES"
    code += "; print(len(OBJECTIVES.entries()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12", "False"]


PLUGIN = """
from posenc.api.entry_points import Registry
from posenc.api.metric import mean
from posenc.objectives.causal_lm import CausalLM


class Backwards(CausalLM):
    name = "backwards"

    def batch(self, seed, step, rows):
        return (super().batch(seed, step, rows)[0].flip(1),)


no_class = 3
"""


def test_a_package_brings_an_objective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reversal.py").write_text(PLUGIN)
    info = tmp_path / "reversal-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reversal\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[posenc.objectives]\nbackwards = reversal:Backwards\n"
        "none = reversal:no_class\nmasked_lm = reversal:Backwards\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(vars(OBJECTIVES), "_installed", raising=False)
    try:
        assert OBJECTIVES.entry("backwards").package == "reversal 1.0"
        assert list(OBJECTIVES.code("backwards")) == ["backwards"]
        assert OBJECTIVES.code("causal_lm") == {}
        with pytest.raises(PluginError, match=r"is claimed by .*MaskedLM of posenc.* and by reversal:Backwards"):
            objective("masked_lm")
        with pytest.raises(PluginError, match="reversal:no_class is no subclass"):
            objective("none")
        assert objective("backwards").form == "decoder"
        monkeypatch.setattr("posenc.config.task.CHANGED", ("objective", "backbone"))
        assert task_at("enwik8", "smoke", {"objective": ("backwards", "here")}).objective == "backwards"
    finally:
        monkeypatch.undo()
        vars(OBJECTIVES).pop("_installed", None)
