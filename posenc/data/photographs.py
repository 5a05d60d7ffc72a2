"""Images in folders of classes, read as they are asked for: ImageNet as its users lay it out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posenc.common.errors import DataError, MissingDataError
from posenc.data.corpus import check_folder, missing
from posenc.data.pictures import Labels, Pictures, Pixels, held_out_rows, shortfall

SUFFIXES = (".jpeg", ".jpg", ".png")
IMAGENET_ROWS = {"train": 1_281_167, "test": 50_000}
IMAGENET_VALIDATION = 10_000
"""Of the training images, for choices: ImageNet's own validation images are the test, as papers have it."""
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""By channel, of 1: as everybody's code has them (torchvision's)."""


@dataclass(frozen=True)
class Photographs(Pictures):
    """Images that stay in their files. Their digest is of their names and sizes: their content is never read whole.

    Attributes:
        splits: of each image which file it is, and its class. files: all of them. root: the folder they lie in.
    """

    files: tuple[str, ...] = ()
    root: Path = field(default=Path(), repr=False)

    @property
    def channels(self) -> int:
        return 3

    @property
    def sides(self) -> tuple[int, ...]:
        return ()

    @property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_DEVIATION)

    def pixels(self, split: str, rows: NDArray[np.int64], sides: tuple[int, ...]) -> Pixels:
        """Images (N, sides..., 3): the shorter side brought to its length (bicubic), the middle cut out.

        Several are decoded at once, and come in the order asked for whatever their number.

        Raises:
            DataError: one is damaged: its file.
        """
        wanted = [self.root / self.files[int(index)] for index in self.splits[split][0][rows]]
        return np.stack(list(_pool().map(lambda path: self.decoded(path, sides), wanted)))

    def decoded(self, path: Path, sides: tuple[int, ...]) -> Pixels:
        """One of them, (sides..., 3)."""
        from PIL import Image

        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except Exception as error:  # the library has one for each way in which a file may be damaged
            raise DataError(f"{path} is no whole image: {type(error).__name__}: {error}") from None
        return fitted(image, sides)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that decode: the library lets others run meanwhile."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="images")


def fitted(image: Any, sides: tuple[int, ...]) -> Pixels:
    """The middle of a picture of the library PIL, at so many rows and columns (rows, columns, 3)."""
    from PIL import Image

    height, width = sides
    scale = max(height / image.height, width / image.width)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + width, top + height)))


@lru_cache(maxsize=1)
def imagenet(folder: Path | None) -> Photographs:
    """ImageNet-1K (Russakovsky et al. 2015): DIR/imagenet/train/CLASS/*.JPEG and DIR/imagenet/val/CLASS/*.JPEG."""
    check_folder(folder)
    if folder is None or not (folder / "imagenet" / "train").is_dir():
        raise MissingDataError(missing("ImageNet", folder, "imagenet/train/CLASS/*.JPEG and imagenet/val"))
    root = folder / "imagenet"
    if not (root / "val").is_dir():
        raise DataError(f"{root / 'train'} is there, but not the val that belongs to it")
    names = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    classes = {name: number for number, name in enumerate(names)}
    files: list[str] = []
    found: dict[str, tuple[list[int], list[int]]] = {}
    digest = hashlib.sha256()
    for split, place in (("train", "train"), ("test", "val")):
        numbers, labels = found.setdefault(split, ([], []))
        for name, file, size in _listed(root / place):
            if name not in classes:
                raise DataError(f"{root / place / name}: a class that {root / 'train'} has not")
            numbers.append(len(files))
            labels.append(classes[name])
            files.append(f"{place}/{name}/{file}")
            digest.update(f"{files[-1]} {size}\n".encode())
        if not labels:
            raise DataError(f"{root / place}: no images in it")
    arrays = {split: (np.array(rows), np.array(labels)) for split, (rows, labels) in found.items()}
    total = len(arrays["train"][1])
    share = max(1, IMAGENET_VALIDATION * total // IMAGENET_ROWS["train"])
    kept, out = held_out_rows("images/imagenet", total, share)
    splits: Mapping[str, tuple[NDArray[np.int64], Labels]] = {
        "train": (arrays["train"][0][kept], arrays["train"][1][kept]),
        "validation": (arrays["train"][0][out], arrays["train"][1][out]),
        "test": arrays["test"],
    }
    counts = {"train": total, "test": len(arrays["test"][1])}
    notes = [*shortfall(counts, IMAGENET_ROWS), "the digest is of files' names and sizes"]
    return Photographs(
        "images/imagenet", splits, len(classes), digest.hexdigest(), IMAGENET_ROWS, note="; ".join(notes),
        files=tuple(files), root=root,
    )  # fmt: skip


def _listed(place: Path) -> Iterator[tuple[str, str, int]]:
    """Class, name and bytes of each image, in the order of their names."""
    for folder in sorted(path for path in place.iterdir() if path.is_dir()):
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
        for name, size in found:
            if name.lower().endswith(SUFFIXES):
                yield folder.name, name, size
