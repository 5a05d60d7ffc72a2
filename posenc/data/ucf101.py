"""UCF101: clips of people who do something, in their authors' files and split lists; read as they are asked for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from posenc.common.errors import ConfigError, DataError, MissingDataError
from posenc.data.corpus import File, check_folder, lines, missing
from posenc.data.photographs import Photographs, fitted
from posenc.data.pictures import Pixels, shortfall

FRAMES = 8
"""Of each clip so many are read, evenly over it."""
ROWS = {"train": 9_537, "test": 3_783}
LISTS = {"train": "trainlist01.txt", "test": "testlist01.txt"}
GROUP = re.compile(r"_g(\d+)_c\d+\.avi$")
"""Clips of one group are parts of one video: they stand in one split."""


@dataclass(frozen=True)
class Clips(Photographs):
    """Videos that stay in their files; of each FRAMES frames are read. All else is as photographs have it."""

    @property
    def sides(self) -> tuple[int, ...]:
        return (FRAMES,)

    def decoded(self, path: Path, sides: tuple[int, ...]) -> Pixels:
        """One of them, (frames, rows, columns, 3), each frame as a photograph."""
        import av

        try:
            with av.open(str(path)) as container:
                frames = list(container.decode(video=0))
        except Exception as error:  # the library has one for each way in which a file may be damaged
            raise DataError(f"{path} is no whole video: {type(error).__name__}: {error}") from None
        if not frames:
            raise DataError(f"{path} is no whole video: no frame in it")
        places = ((np.arange(sides[0]) + 0.5) * len(frames) / sides[0]).astype(int)
        return np.stack([fitted(frames[place].to_image(), sides[1:]) for place in places])


@lru_cache(maxsize=1)
def ucf101(folder: Path | None) -> Clips:
    """UCF101, split 1 (Soomro et al. 2012): DIR/ucf101/UCF-101/CLASS/*.avi and DIR/ucf101/ucfTrainTestlist/*.txt.

    Of each class the first group of the training list is validation's: no video is cut over two splits.
    """
    check_folder(folder)
    if folder is None or not (folder / "ucf101" / "ucfTrainTestlist").is_dir():
        raise MissingDataError(missing("UCF101", folder, "ucf101/UCF-101/CLASS/*.avi and ucf101/ucfTrainTestlist"))
    if find_spec("av") is None:
        raise ConfigError(
            "video/ucf101: the library av decodes its clips, and is not installed: pip install 'posenc[video]'"
        )
    root, told = folder / "ucf101" / "UCF-101", folder / "ucf101" / "ucfTrainTestlist"
    classes = _classes(told / "classInd.txt")
    digest = hashlib.sha256()
    files: list[str] = []
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "validation": [], "test": []}
    for split, name in LISTS.items():
        listed = _listed(told / name, classes)
        first: dict[int, str] = {}
        for file, label in listed:
            first[label] = min(first.get(label, "~"), _group(told / name, file))
        for file, label in listed:
            if not (root / file).is_file():
                raise DataError(f"{told / name} names {file}, and {root / file} is not there")
            digest.update(f"{split} {file} {(root / file).stat().st_size}\n".encode())
            held = split == "train" and _group(told / name, file) == first[label]
            rows["validation" if held else split].append((len(files), label))
            files.append(file)
    for split, found in rows.items():
        if not found:
            raise DataError(f"video/ucf101: no clips for its {split} split")
    arrays = {split: np.array(found).T for split, found in rows.items()}
    counts = {"train": len(rows["train"]) + len(rows["validation"]), "test": len(rows["test"])}
    return Clips(
        "video/ucf101", {split: (array[0], array[1]) for split, array in arrays.items()}, len(classes),
        digest.hexdigest(), ROWS, note="; ".join([*shortfall(counts, ROWS), "the digest is of files' names and sizes"]),
        files=tuple(files), root=root,
    )  # fmt: skip


def _classes(path: Path) -> dict[str, int]:
    """The classes by name, counted from 0; the file counts them from 1."""
    if not path.is_file():
        raise DataError(f"{path.parent} is there, but not the {path.name} that belongs to it")
    found: dict[str, int] = {}
    for number, line in enumerate(lines(File(path)), 1):
        parts = line.split()
        if len(parts) != 2 or parts[0] != str(number):
            raise DataError(f"{path}, line {number}: '{number} CLASS' must stand there, not {line!r}")
        found[parts[1]] = number - 1
    return found


def _listed(path: Path, classes: dict[str, int]) -> list[tuple[str, int]]:
    """The clips of a list with their classes; a list of training says the class's number too."""
    if not path.is_file():
        raise DataError(f"{path.parent} is there, but not the {path.name} that belongs to it")
    found = []
    for number, line in enumerate(lines(File(path)), 1):
        file, *said = line.split()
        label = classes.get(file.partition("/")[0])
        if label is None:
            raise DataError(f"{path}, line {number}: {file}: its folder is no class of classInd.txt")
        if said and said != [str(label + 1)]:
            raise DataError(f"{path}, line {number}: {file} is of class {label + 1}, and {' '.join(said)} stands there")
        found.append((file, label))
    return found


def _group(path: Path, file: str) -> str:
    match = GROUP.search(file)
    if match is None:
        raise DataError(f"{path}: {file} does not say its group (v_CLASS_g01_c01.avi)")
    return match[1]
