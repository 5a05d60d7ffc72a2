"""The objective `videos` and digits that move: time is an axis, and without the order of frames no way is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import tree

from posenc.backbone.config import BackboneConfig
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError
from posenc.config.task import task_at
from posenc.data import sources, ucf101
from posenc.data.made import videos as made
from posenc.data.pictures import Pictures, digits
from posenc.objectives import factory
from posenc.objectives.videos import Videos
from posenc.plan.cell import Cell
from posenc.plan.plan import Selection, find_suite, make
from posenc.records.store import Store
from posenc.training.cell import train
from posenc.training.cell_terms import CellTerms

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "backbone.layers": 1, "backbone.width": 32, "backbone.heads": 2, "backbone.feedforward": 16, "training.steps": 4,
    "training.warmup": 0, "training.batch": 8, "training.validate_every": 2, "evaluation.tokens": 5120,
}  # fmt: skip


def cells(*encodings: str, **changes: Any) -> list[Cell]:
    chosen = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return make(find_suite("video/moving-digits"), Selection(encodings=encodings, seeds=[0], changes=chosen)).cells


def of(**changes: Any) -> Videos:
    (cell,) = cells("none", **changes)
    found = factory.make(cell.settings, None)
    assert isinstance(found, Videos)
    return found


def model_of(encoding: str) -> Transformer:
    config = BackboneConfig(form="encoder", head="mean", outputs=8, vocabulary=1, layers=2, width=64, heads=2,
                            feedforward=16, patch=(1, 4, 4))  # fmt: skip
    return Transformer(config, encoding, 128).initialise(0).double().eval()


def data() -> Pictures:
    found = sources.load("video/moving-digits", None)
    assert isinstance(found, Pictures)
    return found


def where(video: Any, digit: Any) -> list[tuple[int, int]]:
    """Where a digit's corner is in each frame, by trying every place of the torus."""
    canvas = np.zeros((16, 16), np.uint8)
    canvas[:8, :8] = digit
    found = []
    for frame in video:
        places = [(r, c) for r in range(16) for c in range(16) if (np.roll(canvas, (r, c), (0, 1)) == frame).all()]
        assert len(places) == 1
        found += places
    return found


@pytest.mark.parametrize("label", range(8))
def test_a_digit_goes_the_way_of_its_label(label: int) -> None:
    digit = digits(None).splits["train"][0][5, ..., 0]
    path = where(made.video(digit, label, np.random.default_rng(label)), digit)
    moves = {((b[0] - a[0] + 8) % 16 - 8, (b[1] - a[1] + 8) % 16 - 8) for a, b in pairwise(path)}
    straight = {
        "right": (0, 2),
        "left": (0, -2),
        "down": (2, 0),
        "up": (-2, 0),
        "down and right": (2, 2),
        "up and left": (-2, -2),
    }
    name = made.PATHS[label]
    if name in straight:
        assert moves == {straight[name]}
        return
    # Around a middle: the same way round at every turn. Rows grow downwards.
    steps = [((b[0] - a[0] + 8) % 16 - 8, (b[1] - a[1] + 8) % 16 - 8) for a, b in pairwise(path)]
    turns = [down * after[1] - right * after[0] for (down, right), after in pairwise(steps)]
    way = 1 if name == "clockwise" else -1
    assert all(-way * turn >= 0 for turn in turns) and any(turns)


def test_splits_share_no_digit_and_are_the_same_each_time() -> None:
    found, again = data(), made.moving_digits()
    assert found.digest == again.digest and found.generated and found.classes == 8
    assert {split: len(labels) for split, (_, labels) in found.splits.items()} == made.COUNTS
    assert found.sides == (8, 16, 16)
    for split, (pixels, labels) in found.splits.items():
        assert np.bincount(labels).min() >= made.COUNTS[split] // 8
        shapes = {np.sort(video, axis=None).tobytes() for video in pixels[:50]}
        own = {
            np.sort(np.tile(np.pad(d[..., 0], ((0, 8), (0, 8))), (8, 1, 1)), axis=None).tobytes()
            for d in digits(None).splits[split][0]
        }
        assert shapes <= own


def test_patches_of_a_video_stand_at_time_row_and_column() -> None:
    objective = of(backbone__patch=[2, 4, 4], length=64, evaluation__length_factors=[1])
    pixels = data().splits["test"][0][:2, ..., 0].astype(float)
    pixels = (pixels - float(objective.mean)) / float(objective.deviation)
    found = objective.patches("test", np.arange(2), 64).view(2, 4, 4, 4, 2, 4, 4)
    for time, row, column in ((0, 0, 0), (3, 1, 2), (1, 3, 3)):
        cut = pixels[:, 2 * time : 2 * time + 2, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert np.allclose(found[:, time, row, column].numpy(), cut, atol=1e-5)
    at = objective.places(64, CPU)[0]
    assert at.tolist() == [[t, r, c] for t in range(4) for r in range(4) for c in range(4)]


def test_time_is_not_scaled_and_another_resolution_has_as_many_frames() -> None:
    objective = of()
    larger = objective.places(288, CPU)[0]
    assert larger[-1].tolist() == [7, 5, 5]
    assert objective.places(288, CPU, scaled=True)[0, -1].tolist() == pytest.approx([7, 3, 3])
    assert objective.patches("test", np.arange(2), 288).shape == (2, 288, 16)


def backwards(patches: torch.Tensor) -> torch.Tensor:
    return patches.unflatten(1, (8, 16)).flip(1).flatten(1, 2)


def test_without_an_encoding_a_video_is_itself_backwards() -> None:
    objective = of()
    patches = objective.patches("test", np.arange(16), 128)
    for encoding in ("none", "rope", "m_rope", "liere"):
        model = model_of(encoding)
        apart = (objective.logits(model, backwards(patches)) - objective.logits(model, patches)).abs().max()
        assert (apart < 1e-12) == (encoding == "none"), encoding
        assert model.axes == (1 if encoding == "rope" else 3)


def test_videos_are_trained_and_scored(tmp_path: Path) -> None:
    (cell,) = cells("m_rope")
    train(cell, CellTerms(suite="s", store=tmp_path))
    record = Store(tmp_path).read_record(cell.id)
    assert record and record["status"] == "done", record and record["traceback"]
    scored = {(row["split"], row["length"]) for row in record["scores"] if row["split"].startswith("test")}
    assert scored == {("test", 72), ("test", 128), ("test", 288), ("test_scaled", 72), ("test_scaled", 288)}
    assert record["data"]["generated"] and record["baselines"]["majority"] < 0.2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone.patch": [4, 4]}, "wants three sides"),
        ({"backbone.patch": [1, 2, 4]}, "then two equal ones"),
    ],
)
def test_what_is_no_patch_of_a_video_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        task_at("video/moving-digits", "smoke", {key: (value, "--set") for key, value in changes.items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backbone__patch": [3, 4, 4]}, "8 frames are no multiple"),
        ({"length": 100, "evaluation__length_factors": [1]}, "must be a multiple of 8"),
        ({"length": 64, "evaluation__length_factors": [1]}, "8 patches make no square"),
    ],
)
def test_what_does_not_fit_the_frames_is_refused_when_planned(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cells("none", **changes)


def test_clips_are_decoded_and_trained_on(tmp_path: Path) -> None:
    folder = tree(tmp_path / "data")
    changes = {**TINY, "backbone.outputs": 2, "training.batch": 4, "evaluation.tokens": 0, "training.flip": True}
    chosen = Selection(encodings=["m_rope"], seeds=[0], changes=changes, data=folder)
    (cell,) = make(replace(find_suite("video/ucf101"), scale="small"), chosen).cells
    train(cell, CellTerms(suite="s", store=tmp_path / "here", data=folder))
    record = Store(tmp_path / "here").read_record(cell.id)
    assert record and record["status"] == "done", record and record["traceback"]
    assert {row["length"] for row in record["scores"] if row["split"] == "test"} == {196, 784}
    found = factory.make(cell.settings, folder)
    assert isinstance(found, Videos)
    assert found.patches("test", np.arange(2), 784).shape == (2, 784, 2 * 16 * 16 * 3)  # 224 pixels a side
    ucf101.ucf101.cache_clear()


@pytest.mark.slow
def test_time_is_told_by_an_encoding_alone(tmp_path: Path) -> None:
    """Without one, a path and itself backwards are one: at most half are right, but for luck."""
    fewer = {"training.steps": 250}
    chosen = Selection(encodings=["none", "liere"], seeds=[0], changes=fewer)
    whole = make(find_suite("video/moving-digits"), chosen).cells
    found = {}
    for cell in whole:
        train(cell, CellTerms(suite="s", store=tmp_path))
        record = Store(tmp_path).read_record(cell.id)
        assert record and record["status"] == "done"
        rows = [row for row in record["scores"] if (row["split"], row["length"]) == ("test", 128)]
        found[record["config"]["encoding"]["name"]] = {row["metric"]: row["value"] for row in rows}["accuracy"]
    assert found["none"] < 0.5 + 3 * (0.25 / 600) ** 0.5
    assert found["liere"] > 0.6
