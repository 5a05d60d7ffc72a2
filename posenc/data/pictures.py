"""Labelled images in their authors' files: MNIST, CIFAR-10, CIFAR-100; and scikit-learn's digits, without files."""

from __future__ import annotations

import hashlib
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posenc.common.errors import DataError, MissingDataError
from posenc.common.seeds import derive
from posenc.data.corpus import File, check_folder, find, missing, need

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Split = tuple[NDArray[np.int64] | Pixels, Labels]

IDX_BYTES = 0x08  # the kind of numbers of an IDX file: unsigned bytes
MNIST_ROWS = {"train": 60_000, "test": 10_000}
CIFAR_ROWS = {"train": 50_000, "test": 10_000}
CIFAR_SHAPE = (3, 32, 32)
VALIDATION = {"digits": 200, "mnist": 5_000, "cifar": 5_000}
"""Training images that are kept out of training, for choices: the data sets have no validation split."""
DIGITS_TEST = 400


@dataclass(frozen=True)
class Pictures:
    """Images, or videos, with labels, and what a reader must know of them.

    Attributes:
        splits: pixels (N, sides..., C) as bytes, and the classes (N,) counted from 0: train, validation, test.
        classes: how many.
        digest: SHA-256 over all splits.
        expected: images of the official release by file split, where there is one.
        note: said beside every result made from it.
    """

    name: str
    splits: Mapping[str, Split]
    classes: int
    digest: str
    expected: Mapping[str, int] | None = None
    generated: bool = False
    note: str = ""

    @property
    def sides(self) -> tuple[int, ...]:
        """Of an image, in pixels: (rows, columns); of a video (frames, rows, columns)."""
        return self.splits["train"][0].shape[1:-1]

    @property
    def channels(self) -> int:
        return int(self.splits["train"][0].shape[-1])

    @property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation (C,) of the training pixels by channel; of what never changes 1."""
        flat = self.splits["train"][0].reshape(-1, self.channels)
        counts = np.stack([np.bincount(channel, minlength=256) for channel in flat.T]).astype(np.float64)  # exact sums
        shades = np.arange(256)
        mean = counts @ shades / len(flat)
        deviation = np.sqrt(np.maximum(counts @ shades**2 / len(flat) - mean**2, 0.0))
        deviation[deviation == 0] = 1.0
        return mean, deviation

    def pixels(self, split: str, rows: NDArray[np.int64], sides: tuple[int, ...]) -> Pixels:
        """Some rows of a split, (N, sides..., C) as bytes: at their own size, whatever is wanted of it."""
        return np.asarray(self.splits[split][0][rows], dtype=np.uint8)

    def describe(self) -> dict[str, object]:
        """Its part in a record."""
        return {
            "name": self.name,
            "digest": self.digest,
            "rows": {split: len(labels) for split, (_, labels) in self.splits.items()},
            "expected_rows": None if self.expected is None else dict(self.expected),
            "pixels": [*self.sides, self.channels] if self.sides else None,
            "generated": self.generated,
            "note": self.note,
        }


def pictures(
    name: str,
    splits: Mapping[str, Split],
    classes: int,
    expected: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
    *,
    generated: bool = False,
) -> Pictures:
    """Splits with their digest, and with a note where they are not the whole release.

    Args:
        expected: rows of the release: "train" with validation, and "test".

    Raises:
        DataError: a split is empty.
    """
    digest = hashlib.sha256()
    for split, (pixels, labels) in splits.items():
        if not len(labels):
            raise DataError(f"{name}: no images for its {split} split")
        digest.update(f"{split} {pixels.shape}\n".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        digest.update(labels.astype("<i8").tobytes())
    if expected is not None:
        found = {
            "train": sum(len(splits[split][1]) for split in splits if split != "test"),
            "test": len(splits["test"][1]),
        }
        notes = [*shortfall(found, expected), *notes]
    return Pictures(name, splits, classes, digest.hexdigest(), expected, generated, "; ".join(filter(None, notes)))


def shortfall(found: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """Where images are not as many as a release has."""
    short = [f"{found[split]:,} {split} images where the release has {expected[split]:,}" for split in expected
             if found[split] != expected[split]]  # fmt: skip
    return [", ".join(short) + ": not comparable with published figures"] if short else []


def held_out_rows(name: str, total: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of so many rows train, and which some are drawn for validation by a fixed seed; each in their order."""
    if total <= count:
        raise DataError(f"{name}: {total:,} training images, of which {count:,} are validation's")
    order = np.random.default_rng(derive(0, "validation", name)).permutation(total)
    return np.sort(order[count:]), np.sort(order[:count])


def held_out(name: str, train: Split, count: int) -> dict[str, Split]:
    """Training images in two: some drawn by a fixed seed for validation, the rest in their order."""
    pixels, labels = train
    kept, out = held_out_rows(name, len(labels), count)
    return {"train": (pixels[kept], labels[kept]), "validation": (pixels[out], labels[out])}


@lru_cache(maxsize=1)
def digits(folder: Path | None) -> Pictures:
    """1,797 handwritten digits of 8 x 8 pixels with 17 shades, which come with scikit-learn: the test part of Alpaydin
    and Kaynak's "Optical recognition of handwritten digits" (UCI 1998). Splits are drawn by a fixed seed.
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = found.images.astype(np.uint8)[..., None]
    rest = held_out("images/digits test", (pixels, found.target.astype(np.int64)), DIGITS_TEST)
    splits = held_out("images/digits", rest["train"], VALIDATION["digits"])
    return pictures("images/digits", {**splits, "test": rest["validation"]}, 10, notes=["splits drawn by a fixed seed"])


@lru_cache(maxsize=1)
def mnist(folder: Path | None) -> Pictures:
    """MNIST's four IDX files (LeCun et al. 1998), as they are or gzipped, in DIR/mnist."""
    check_folder(folder)
    stems = {"train": "train", "test": "t10k"}
    files = {}
    first = None
    for split, stem in stems.items():
        # Both spellings are about: "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
        names = [
            [f"{stem}-{kind}{dot}{form}-ubyte" for dot in "-."]
            for kind, form in (("images", "idx3"), ("labels", "idx1"))
        ]
        if first is None and (first := find(folder, ["mnist"], names[0])) is None:
            raise MissingDataError(missing("MNIST", folder, f"mnist/{names[0][0]}"))
        files[split] = [need(folder, ["mnist"], options, first) for options in names]
    found: dict[str, Split] = {}
    for split, (of_images, of_labels) in files.items():
        pixels, labels = idx(of_images, 3), idx(of_labels, 1)
        if len(pixels) != len(labels):
            raise DataError(f"{of_images} has {len(pixels):,} images, and {of_labels} {len(labels):,} labels")
        if not len(labels) or labels.max() > 9:
            raise DataError(f"{of_labels}: labels are from 0 to 9, and it has {labels.max(initial=0)}")
        found[split] = (pixels[..., None], labels.astype(np.int64))
    splits = held_out("images/mnist", found["train"], _share("mnist", found["train"], MNIST_ROWS))
    return pictures("images/mnist", {**splits, "test": found["test"]}, 10, MNIST_ROWS)


def idx(file: File, axes: int) -> Pixels:
    """The array of an IDX file (http://yann.lecun.com/exdb/mnist): its header says how many bytes along each axis.

    Raises:
        DataError: it is no such file, or has more or fewer bytes than it says.
    """
    raw = file.read()
    start = 4 + 4 * axes
    if raw[:1] == b"\x80":
        raise DataError(
            f"{file}: a Python pickle, and these are never read: the data set's own IDX files must be there"
        )
    if len(raw) < start or raw[:4] != bytes([0, 0, IDX_BYTES, axes]):
        raise DataError(
            f"{file}: no IDX file of bytes with {axes} axes: it begins with {raw[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{axes}I", raw[4:start])
    if len(raw) - start != prod(shape):
        said = " x ".join(f"{side:,}" for side in shape)
        raise DataError(f"{file}: it says {said} bytes and holds {len(raw) - start:,}: truncated, or not whole")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


@lru_cache(maxsize=1)
def cifar10(folder: Path | None) -> Pictures:
    """CIFAR-10, binary version (Krizhevsky 2009), in DIR/cifar-10-batches-bin or DIR/cifar-10-binary.tar.gz."""
    train = [f"data_batch_{number}.bin" for number in range(1, 6)]
    return _cifar(folder, "cifar10", "cifar-10-batches-bin", "cifar-10-binary.tar.gz", train, "test_batch.bin", 1, 10)


@lru_cache(maxsize=1)
def cifar100(folder: Path | None) -> Pictures:
    """CIFAR-100, binary version (Krizhevsky 2009), its fine labels; DIR/cifar-100-binary or that name with .tar.gz."""
    return _cifar(folder, "cifar100", "cifar-100-binary", "cifar-100-binary.tar.gz", ["train.bin"], "test.bin", 2, 100)


def _cifar(
    folder: Path | None, name: str, place: str, archive: str, train: Sequence[str], test: str, labels: int, classes: int
) -> Pictures:
    """labels: bytes before each image, of which the last is read."""
    check_folder(folder)
    found: dict[str, Split] = {}
    for split, names in (("train", train), ("test", [test])):
        read = [_records(*_bytes(folder, place, archive, member), labels, classes) for member in names]
        found[split] = (np.concatenate([pixels for pixels, _ in read]), np.concatenate([of for _, of in read]))
    splits = held_out(f"images/{name}", found["train"], _share("cifar", found["train"], CIFAR_ROWS))
    return pictures(f"images/{name}", {**splits, "test": found["test"]}, classes, CIFAR_ROWS)


def _bytes(folder: Path | None, place: str, archive: str, member: str) -> tuple[str, bytes]:
    """A file of the data set, in its folder or in the archive that its authors publish; and where it stands."""
    if folder is not None and (folder / place / member).is_file():
        return str(folder / place / member), File(folder / place / member).read()
    if folder is not None and (packed := folder / archive).is_file():
        try:
            with tarfile.open(packed) as opened:
                content = opened.extractfile(f"{place}/{member}")
                if content is not None:
                    return f"{packed}/{place}/{member}", content.read()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise DataError(f"{packed} is damaged: {error}") from None
        except KeyError:
            pass
        raise DataError(f"{packed}: no member {place}/{member} in it")
    if folder is not None and (pickled := folder / place.replace("-bin", "-py")).is_dir():
        raise DataError(
            f"{pickled}: Python pickles, and these are never read: {archive} must be there (binary version)"
        )
    raise MissingDataError(missing(place, folder, f"{place}/{member}, or {archive}"))


def _records(where: str, raw: bytes, labels: int, classes: int) -> Split:
    """Images (N,32,32,3) and their labels: each record has its labels, then 1,024 bytes of red, green and blue each."""
    size = labels + prod(CIFAR_SHAPE)
    if raw[:1] == b"\x80" and len(raw) % size:
        raise DataError(f"{where}: a Python pickle, and these are never read: the binary version must be there")
    if not raw or len(raw) % size:
        raise DataError(
            f"{where}: {len(raw):,} bytes, no multiple of the {size:,} of a record: truncated, or not whole"
        )
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, size)
    found = records[:, labels - 1].astype(np.int64)
    if found.max() >= classes:
        record = int((found >= classes).argmax())
        raise DataError(f"{where}: record {record}: labels are from 0 to {classes - 1}, and it has {found[record]}")
    pixels = records[:, labels:].reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), found


def _share(kind: str, train: Split, expected: Mapping[str, int]) -> int:
    """Images that are validation's: as many of the whole release as VALIDATION says, and of a part the same share."""
    return max(1, VALIDATION[kind] * len(train[1]) // expected["train"])
