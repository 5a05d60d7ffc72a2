"""Images in their authors' files, written here as they lay them out: what is read, and which files are refused."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posenc.common.errors import DataError, MissingDataError
from posenc.data import pictures
from posenc.data.pictures import Pictures

RANDOM = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    for reader in (pictures.mnist, pictures.cifar10, pictures.cifar100):
        reader.cache_clear()


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_files(folder: Path, train: int = 24, test: int = 10) -> dict[str, NDArray[np.uint8]]:
    (folder / "mnist").mkdir(parents=True)
    written = {}
    for stem, count in (("train", train), ("t10k", test)):
        written[f"{stem}-images-idx3-ubyte"] = RANDOM.integers(256, size=(count, 28, 28), dtype=np.uint8)
        written[f"{stem}-labels-idx1-ubyte"] = np.arange(count).astype(np.uint8) % 10
    for name, array in written.items():
        (folder / "mnist" / name).write_bytes(idx(array))
    return written


def records(count: int, labels: int, classes: int) -> tuple[bytes, NDArray[np.uint8], list[int]]:
    """Records of CIFAR's binary version, one byte after another as its page describes them."""
    images = RANDOM.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
    classed = [index % classes for index in range(count)]
    raw = bytearray()
    for image, label in zip(images, classed, strict=True):
        raw += bytes([*([19] if labels == 2 else []), label])
        for channel in range(3):
            for row in range(32):
                raw += bytes(image[row, :, channel].tolist())
    return bytes(raw), images, classed


def test_digits_are_all_there_and_in_one_split_each() -> None:
    found = pictures.digits(None)
    assert {split: len(labels) for split, (_, labels) in found.splits.items()} == {
        "train": 1197, "validation": 200, "test": 400,
    }  # fmt: skip
    assert (found.sides, found.channels, found.classes, found.generated) == ((8, 8), 1, 10, False)
    from sklearn.datasets import load_digits

    theirs = sorted(
        (image.astype(np.uint8).tobytes(), label)
        for image, label in zip(load_digits().images, load_digits().target, strict=True)
    )
    ours = sorted(
        (image.tobytes(), label)
        for pixels, labels in found.splits.values()
        for image, label in zip(pixels, labels, strict=True)
    )
    assert ours == theirs
    assert found.digest == pictures.digits.__wrapped__(None).digest


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_as_its_authors_lay_it_out(tmp_path: Path, packed: bool) -> None:
    written = mnist_files(tmp_path)
    if packed:
        for path in list((tmp_path / "mnist").iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    found = pictures.mnist(tmp_path)
    test, labels = found.splits["test"]
    assert (test[..., 0] == written["t10k-images-idx3-ubyte"]).all()
    assert (labels == written["t10k-labels-idx1-ubyte"]).all()
    parts = [found.splits[split][0] for split in ("train", "validation")]
    assert sorted(image.tobytes() for part in parts for image in part) == sorted(
        image.tobytes() for image in written["train-images-idx3-ubyte"]
    )
    assert len(parts[1]) == 2  # 5,000 of 60,000, and of 24
    assert "24 train images where the release has 60,000, 10 test images where" in found.note
    assert "not comparable" in found.note


@pytest.mark.parametrize(
    ("name", "place", "names", "test", "labels", "classes"),
    [
        ("cifar10", "cifar-10-batches-bin", [f"data_batch_{n}.bin" for n in range(1, 6)], "test_batch.bin", 1, 10),
        ("cifar100", "cifar-100-binary", ["train.bin"], "test.bin", 2, 100),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_cifar_as_its_authors_lay_it_out(
    tmp_path: Path, packed: bool, name: str, place: str, names: list[str], test: str, labels: int, classes: int
) -> None:
    files = {member: records(2 * classes, labels, classes) for member in [*names, test]}
    if packed:
        archive = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}[name]
        with tarfile.open(tmp_path / archive, "w:gz") as opened:
            for member, (raw, _, _) in files.items():
                entry = tarfile.TarInfo(f"{place}/{member}")
                entry.size = len(raw)
                opened.addfile(entry, io.BytesIO(raw))
    else:
        (tmp_path / place).mkdir()
        for member, (raw, _, _) in files.items():
            (tmp_path / place / member).write_bytes(raw)
    found: Pictures = getattr(pictures, name)(tmp_path)
    pixels, classed = found.splits["test"]
    assert (pixels == files[test][1]).all()
    assert classed.tolist() == files[test][2]
    assert (found.classes, found.channels, found.sides) == (classes, 3, (32, 32))
    assert len(found.splits["train"][1]) + len(found.splits["validation"][1]) == 2 * classes * len(names)


BAD: dict[str, Any] = {
    "truncated": (lambda raw: raw[:-5], "train-images-idx3-ubyte: it says 24 x 28 x 28 bytes and holds 18,811"),
    "empty": (lambda raw: b"", "train-images-idx3-ubyte: no IDX file of bytes with 3 axes: it begins with nothing"),
    "labels": (lambda raw: idx(np.zeros(24, np.uint8)), "it begins with 00 00 08 01"),
    "a pickle": (lambda raw: pickle.dumps({"data": raw}), "train-images-idx3-ubyte: a Python pickle"),
    "fewer": (lambda raw: idx(np.zeros((23, 28, 28), np.uint8)), "has 23 images, and "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_idx_files_are_named(tmp_path: Path, case: str) -> None:
    mnist_files(tmp_path)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte"
    change, words = BAD[case]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        pictures.mnist(tmp_path)
    assert words in str(caught.value)


def test_a_label_that_is_no_digit_and_a_file_that_is_missing(tmp_path: Path) -> None:
    mnist_files(tmp_path)
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.full(10, 10, np.uint8)))
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: labels are from 0 to 9, and it has 10"):
        pictures.mnist(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is there, but not the t10k-labels-idx1-ubyte"):
        pictures.mnist(tmp_path)
    with pytest.raises(MissingDataError, match="no mnist/train-images-idx3-ubyte"):
        pictures.mnist(tmp_path / "mnist")
    with pytest.raises(MissingDataError, match="give --data DIR, or POSENC_DATA"):
        pictures.mnist(None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x04data", "test.bin: a Python pickle"),
        (records(3, 2, 100)[0][:-1], "test.bin: 9,221 bytes, no multiple of the 3,074 of a record"),
        (b"", "test.bin: 0 bytes"),
        (bytes([0, 100]) + bytes(3072), "test.bin: record 0: labels are from 0 to 99, and it has 100"),
    ],
)
def test_bad_cifar_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "cifar-100-binary").mkdir()
    (tmp_path / "cifar-100-binary" / "train.bin").write_bytes(records(200, 2, 100)[0])
    (tmp_path / "cifar-100-binary" / "test.bin").write_bytes(content)
    with pytest.raises(DataError) as caught:
        pictures.cifar100(tmp_path)
    assert words in str(caught.value)


def test_pickles_and_damaged_archives_of_cifar_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"cifar-10-batches-py: Python pickles, and these are never read"):
        pictures.cifar10(tmp_path)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        pictures.cifar10(tmp_path)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"no member cifar-10-batches-bin/data_batch_1.bin in it"):
        pictures.cifar10(tmp_path)
    with pytest.raises(MissingDataError, match=r"has no cifar-100-binary/train\.bin, or cifar-100-binary\.tar\.gz"):
        pictures.cifar100(tmp_path)
