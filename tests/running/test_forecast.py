"""How long the rest takes: by FLOPs before anything has run, then by what cells of each kind took."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posenc.backbone import cost
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.running import forecast
from posenc.running.forecast import Forecast, expected, flops_per_token
from posenc.running.progress import Progress, state_of

DAY = 86_400.0


def cell(
    task: str, encoding: str = "rope", seed: int = 0, attention: str = "softmax", **training: Any
) -> dict[str, Any]:
    config = {
        "task": task, "scale": "smoke", "encoding": {"name": encoding}, "length": 64, "seed": seed,
        "backbone": {"attention": attention, "layers": 2, "width": 64, "heads": 4, "feedforward": 256},
        "training": {"steps": 400, "batch": 32, "validate_every": 100, **training},
        "evaluation": {"length_factors": [1, 4], "tokens": 8192},
    }  # fmt: skip
    return {
        "id": f"{task}-{attention}-{encoding}-{seed}",
        "name": f"{task}/{attention}/{encoding}/L64/s{seed}",
        "config": config,
    }


def by_id(*cells: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in cells}


def test_before_anything_has_run_it_is_by_flops() -> None:
    short, long = cell("a"), cell("b", steps=4000)
    found = Forecast(by_id(short, long))
    assert found.seconds(short["id"]) == expected(short["config"]).whole
    assert 5 < found.seconds(long["id"]) / found.seconds(short["id"]) < 10
    wide = cell("c")
    wide["config"]["backbone"]["width"] = 640
    assert expected(wide["config"]).training > 20 * expected(short["config"]).training


@pytest.mark.parametrize("task", ["enwik8", "mlm"])
@pytest.mark.parametrize("attention", ["softmax", "performer"])
def test_the_closed_form_is_near_what_is_counted(task: str, attention: str) -> None:
    (one,) = make(
        find_suite(task), Selection(encodings=["none"], seeds=[0], changes={"backbone.attention": attention})
    ).cells  # fmt: skip
    settings = one.settings
    _, counted = cost.count(settings.backbone, "none", settings.length, settings.max_length)
    assert flops_per_token(one.config, settings.length) == pytest.approx(counted, rel=0.5)


def test_a_cell_that_trains_nothing_says_nothing_of_days() -> None:
    """It ended after ten seconds without a step: by tokens a second the rest would take weeks."""
    proofs = cell("theory", steps=0)
    rest = [cell("mlm", name, seed) for name in ("rope", "none", "t5") for seed in range(5)]
    found = Forecast(by_id(proofs, *rest))
    before = found.left({}, [one["id"] for one in rest], 2)
    found.ended(proofs["id"], 10.0)
    after = found.left({}, [one["id"] for one in rest], 2)
    assert before <= after < 4 * before < DAY / 24


@pytest.mark.parametrize("seconds", [0.01, 1.0, 60.0, 600.0])
def test_the_same_cell_under_another_seed_takes_what_the_first_took(seconds: float) -> None:
    first, second, other = cell("a"), cell("a", seed=1), cell("b", "t5", attention="performer")
    found = Forecast(by_id(first, second, other))
    found.ended(first["id"], seconds)
    assert found.seconds(second["id"]) == pytest.approx(seconds)
    prior = expected(other["config"]).whole
    ratio = seconds / expected(first["config"]).whole
    assert min(1.0, ratio) <= found.seconds(other["id"]) / prior <= max(1.0, ratio)


def test_what_took_long_says_more_and_nearer_kinds_say_more() -> None:
    def told(ran: dict[str, Any], asked: dict[str, Any], times: float) -> float:
        found = Forecast(by_id(ran, asked))
        found.ended(ran["id"], times * expected(ran["config"]).whole)
        return found.seconds(asked["id"]) / expected(asked["config"]).whole

    ran = cell("a", steps=2000)
    other_task, other_attention, other_encoding = cell("b"), cell("a", attention="performer"), cell("a", "t5")
    rates = [told(ran, asked, 5.0) for asked in (other_task, other_attention, other_encoding)]
    assert 1 < rates[0] < rates[1] < rates[2] < 5
    assert told(cell("a", steps=20), other_task, 5.0) < rates[0]
    slow = [told(ran, asked, 0.2) for asked in (other_task, other_attention, other_encoding)]
    assert 1 > slow[0] > slow[1] > slow[2] > 0.2


def test_a_cell_that_failed_or_starts_again_is_forgotten() -> None:
    one, other = cell("a"), cell("a", seed=1)
    found = Forecast(by_id(one, other))
    before = found.seconds(other["id"])
    found.running(one["id"], 500.0, 0.5)
    assert found.seconds(other["id"]) > 2 * before
    found.forget(one["id"])
    assert found.seconds(other["id"]) == pytest.approx(before)
    found.ended("unknown", 3.0)
    found.running("unknown", 3.0, 0.5)
    found.forget("unknown")
    assert found.seconds(other["id"]) == pytest.approx(before)


def test_cells_at_once_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [cell("a", seed=seed) for seed in range(5)]
    found = Forecast(by_id(*cells))
    names = [one["id"] for one in cells]
    found.ended(names[0], 10.0)
    assert found.left({}, names[1:4], 1) == pytest.approx(30)
    assert found.left({}, names[1:4], 2) == pytest.approx(20), "the third has a worker for itself"
    assert found.left({}, names[1:], 4) == pytest.approx(10)
    assert found.left({}, [], 4) == 0
    share = expected(cells[0]["config"]).training / expected(cells[0]["config"]).whole
    assert found.left({names[1]: 0.5}, [], 2) == pytest.approx(10 * (1 - share / 2))
    assert found.left({names[1]: 1.0}, names[2:3], 1) == pytest.approx(10 * (1 - share) + 10)


def test_after_the_first_seed_the_rest_is_known() -> None:
    """Kinds that take from a fifth to twenty times what their FLOPs say."""
    dice = random.Random(3)
    kinds = [(task, name) for task in ("a", "b", "c") for name in ("rope", "none", "t5", "fire")]
    took = {kind: 20.0 * 10 ** dice.uniform(-0.7, 1.3) for kind in kinds}
    cells = [cell(task, name, seed) for seed in range(3) for task, name in kinds]
    found = Forecast(by_id(*cells))
    for (task, name), one in zip(kinds, cells[: len(kinds)], strict=True):
        found.ended(one["id"], took[task, name])
        assert found.left({}, [other["id"] for other in cells[len(kinds) :]], 1) < DAY
    left = found.left({}, [one["id"] for one in cells[len(kinds) :]], 1)
    assert left == pytest.approx(2 * sum(took.values()))


def test_a_slow_first_step_is_not_the_pace() -> None:
    rows = [{"step": step, "seconds": 30.0 + step * 0.1, "tokens": step, "loss": 1.0} for step in (1, 2, 11)]
    assert state_of(rows[:1]).seconds_per_step is None
    assert state_of(rows).seconds_per_step == pytest.approx(0.1)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"training": None, "backbone": [], "evaluation": 3},
        {"training": {"steps": "x", "batch": -1, "stages": [3, {"steps": 2}]}, "length": float("nan")},
        {"training": {"steps": 10**400}, "evaluation": {"length_factors": ["x", 2], "tokens": True}},
        {"runtime": {"device": "tpu", "threads": 0}},
    ],
)
def test_whatever_a_manifest_says_there_is_a_number(config: dict[str, Any]) -> None:
    found = expected(config)
    assert 0 <= found.training <= found.whole < float("inf")
    assert Forecast({"x": {"config": config}}).seconds("x") == found.whole


def test_a_run_that_has_hardly_begun_tells_minutes(tmp_path: Path) -> None:
    """From its first line on."""
    cells = [cell("quick", name, seed) for name in ("rope", "none", "t5") for seed in range(3)]
    stream = io.StringIO()
    with Progress(Store(tmp_path), cells, Console(file=stream, force_terminal=True, width=80)) as shown:
        shown.started(cells[0]["id"])
        assert 10 < (alone := shown.time_left()) < DAY / 24
    assert "days" not in stream.getvalue() and "left: ?" not in stream.getvalue()
    with Progress(Store(tmp_path), cells, Console(file=stream, width=80), at_once=3) as shown:
        assert shown.time_left() == pytest.approx(alone / 3)


def test_speeds_are_those_of_the_plan() -> None:
    on_gpu = cell("a", steps=100_000)
    on_gpu["config"]["runtime"] = {"device": "cuda"}
    assert expected(on_gpu["config"]).training < expected(cell("a", steps=100_000)["config"]).training
    assert expected(on_gpu["config"]).training >= 100_000 * forecast.STEP_SECONDS
