"""ImageNet as its users lay it out, written here small: what is read, in which order, and which files are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posenc.common.errors import DataError, MissingDataError
from posenc.data import photographs

RANDOM = np.random.default_rng(3)
CLASSES = ("n01440764", "n02102040", "n03000684")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    photographs.imagenet.cache_clear()


def picture(path: Path, height: int, width: int, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = RANDOM.integers(256, size=shape, dtype=np.uint8)
    Image.fromarray(pixels, mode=mode).save(path)
    return pixels


def tree(folder: Path, train: int = 6, test: int = 2) -> Path:
    for place, count in (("train", train), ("val", test)):
        for name in CLASSES:
            for index in range(count):
                picture(folder / "imagenet" / place / name / f"{name}_{index}.png", 24 + index, 20)
            (folder / "imagenet" / place / name / "notes.txt").write_text("no image")
    return folder


def test_it_is_read_by_class_and_in_the_order_asked_for(tmp_path: Path) -> None:
    found = photographs.imagenet(tree(tmp_path))
    assert (found.classes, found.channels) == (3, 3)
    sizes = {split: len(labels) for split, (_, labels) in found.splits.items()}
    assert sizes == {"train": 17, "validation": 1, "test": 6}
    assert "18 train images where the release has 1,281,167" in found.note and "names and sizes" in found.note
    numbers, labels = found.splits["test"]
    for number, label in zip(numbers, labels, strict=True):
        assert found.files[number].startswith(f"val/{CLASSES[label]}/")
    rows = np.array([5, 0, 3, 3, 1])
    together = found.pixels("test", rows, (8, 8))
    assert together.shape == (5, 8, 8, 3) and together.dtype == np.uint8
    for row, one in zip(rows, together, strict=True):
        assert (found.pixels("test", np.array([row]), (8, 8))[0] == one).all()
    every = [*found.splits["train"][0], *found.splits["validation"][0], *numbers]
    assert sorted(every) == list(range(24))


def test_the_middle_is_cut_out_at_the_size_that_is_asked_for(tmp_path: Path) -> None:
    tree(tmp_path)
    path = tmp_path / "imagenet" / "val" / CLASSES[0] / f"{CLASSES[0]}_0.png"
    wide = picture(path, 16, 40)
    found = photographs.imagenet(tmp_path)
    (same,) = found.pixels("test", np.array([0]), (16, 16))
    assert (same == wide[:, 12:28]).all()
    small = found.pixels("test", np.array([0]), (8, 8))[0].astype(float)
    blocks = wide[:, 12:28].reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), blocks.ravel())[0, 1] > 0.9
    picture(path, 12, 20, mode="L")
    grey = found.pixels("test", np.array([0]), (12, 12))[0]
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    tree(tmp_path)
    path = tmp_path / "imagenet" / "val" / CLASSES[1] / f"{CLASSES[1]}_1.png"
    path.write_bytes(path.read_bytes()[:200])
    found = photographs.imagenet(tmp_path)
    with pytest.raises(DataError, match=rf"{CLASSES[1]}_1\.png is no whole image"):
        found.pixels("test", np.arange(6), (8, 8))
    path.write_bytes(b"\x80\x04 no image")
    with pytest.raises(DataError, match=rf"{CLASSES[1]}_1\.png is no whole image"):
        found.pixels("test", np.arange(6), (8, 8))


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="give --data DIR, or POSENC_DATA"):
        photographs.imagenet(None)
    with pytest.raises(MissingDataError, match="has no imagenet/train/CLASS"):
        photographs.imagenet(tmp_path)
    tree(tmp_path)
    picture(tmp_path / "imagenet" / "val" / "n09999999" / "a.png", 8, 8)
    with pytest.raises(DataError, match=r"val/n09999999: a class that .*train has not"):
        photographs.imagenet(tmp_path)


def test_another_file_is_another_digest(tmp_path: Path) -> None:
    first = photographs.imagenet(tree(tmp_path)).digest
    photographs.imagenet.cache_clear()
    assert photographs.imagenet(tmp_path).digest == first
    photographs.imagenet.cache_clear()
    picture(tmp_path / "imagenet" / "train" / CLASSES[0] / "more.png", 9, 9)
    assert photographs.imagenet(tmp_path).digest != first
