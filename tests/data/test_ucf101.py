"""UCF101 in its authors' layout, written here small: lists, groups, frames, and which files are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clips import CLASSES, tree

from posenc.common.errors import ConfigError, DataError, MissingDataError
from posenc.data import ucf101


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    ucf101.ucf101.cache_clear()


def test_lists_say_what_trains_and_no_video_is_cut_over_two_splits(tmp_path: Path) -> None:
    found = ucf101.ucf101(tree(tmp_path))
    assert {split: len(labels) for split, (_, labels) in found.splits.items()} == {
        "train": 4, "validation": 4, "test": 4,
    }  # fmt: skip
    for split, group in (("train", "_g09_"), ("validation", "_g08_"), ("test", "_g01_")):
        numbers, labels = found.splits[split]
        assert all(group in found.files[number] for number in numbers)
        assert [CLASSES[label] for label in labels] == [found.files[number].partition("/")[0] for number in numbers]
    assert "8 train images where the release has 9,537" in found.note
    assert (found.sides, found.channels, found.classes) == ((8,), 3, 2)


def test_frames_are_spread_evenly_over_a_clip(tmp_path: Path) -> None:
    found = ucf101.ucf101(tree(tmp_path))
    clips = found.pixels("test", np.array([0, 1]), (8, 32, 32))
    assert clips.shape == (2, 8, 32, 32, 3)
    for one, frames in zip(clips, (16, 20), strict=True):
        shades = one.reshape(8, -1).mean(1)
        wanted = [5 + 10 * int((index + 0.5) * frames / 8) for index in range(8)]
        assert np.abs(shades - wanted).max() < 4  # the codec loses a little


def test_a_damaged_clip_is_named(tmp_path: Path) -> None:
    found = ucf101.ucf101(tree(tmp_path))
    path = tmp_path / "ucf101" / "UCF-101" / found.files[found.splits["test"][0][1]]
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no video", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{path.name} is no whole video"):
            found.pixels("test", np.arange(4), (8, 16, 16))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("classInd.txt", "1 ApplyEyeMakeup\n3 Archery\n", r"classInd.txt, line 2: '2 CLASS' must stand there"),
        ("trainlist01.txt", "Archery/v_Archery_g08_c01.avi 1\n", "line 1: .* is of class 2, and 1 stands there"),
        ("trainlist01.txt", "Bowling/v_Bowling_g08_c01.avi 3\n", "its folder is no class of classInd.txt"),
        (
            "testlist01.txt",
            "Archery/v_Archery_g07_c01.avi\n",
            "names Archery/v_Archery_g07_c01.avi, and .* is not there",
        ),
        ("testlist01.txt", "Archery/other.avi\n", "does not say its group|is not there"),
    ],
)
def test_wrong_lists_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    tree(tmp_path)
    (tmp_path / "ucf101" / "ucfTrainTestlist" / name).write_text(content)
    with pytest.raises(DataError, match=words):
        ucf101.ucf101(tmp_path)


def test_what_is_not_at_hand_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="give --data DIR"):
        ucf101.ucf101(None)
    with pytest.raises(MissingDataError, match="has no ucf101/UCF-101/CLASS"):
        ucf101.ucf101(tmp_path)
    tree(tmp_path)
    (tmp_path / "ucf101" / "ucfTrainTestlist" / "testlist01.txt").unlink()
    with pytest.raises(DataError, match=r"not the testlist01\.txt that belongs to it"):
        ucf101.ucf101(tmp_path)


def test_without_the_library_that_decodes_it_is_refused_when_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ucf101, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"av decodes its clips, and is not installed: pip install 'posenc\[video\]'"):
        ucf101.ucf101(tree(tmp_path))
