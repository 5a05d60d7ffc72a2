"""UCF101's files as its authors lay them out, small: two classes, three groups of two clips each."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CLASSES = ("ApplyEyeMakeup", "Archery")


def clip(path: Path, frames: int, height: int = 48, width: int = 64) -> None:
    """Frames that brighten from one to the next: 5, 15, 25 ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            shade = np.full((height, width, 3), 5 + 10 * index, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def tree(folder: Path) -> Path:
    root, told = folder / "ucf101" / "UCF-101", folder / "ucf101" / "ucfTrainTestlist"
    told.mkdir(parents=True)
    (told / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(CLASSES, 1)))
    train, test = [], []
    for number, name in enumerate(CLASSES, 1):
        for group in ("01", "08", "09"):
            for part in ("01", "02"):
                file = f"{name}/v_{name}_g{group}_c{part}.avi"
                clip(root / file, 16 if part == "01" else 20)
                (test if group == "01" else train).append(file if group == "01" else f"{file} {number}")
    (told / "trainlist01.txt").write_text("\r\n".join(train) + "\r\n")
    (told / "testlist01.txt").write_text("\n".join(test) + "\n")
    return folder
