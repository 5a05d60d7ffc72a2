"""Videos made from a seed: real digits that move along a path, each path beside the same one backwards in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from posenc.common.seeds import derive
from posenc.data.pictures import Pictures, digits, pictures

FRAMES, SIDE = 8, 16
PATHS = ("right", "left", "down", "up", "down and right", "up and left", "clockwise", "counterclockwise")
"""The classes. One of each two is the other backwards: the same frames, in the contrary order."""
STEP = 2
"""Pixels that a digit moves along each axis from frame to frame."""
COUNTS = {"train": 3000, "validation": 300, "test": 600}
_WAYS = {"right": (0, 1), "down": (1, 0), "down and right": (1, 1)}
# Eight places around a middle, as a clock's hand goes.
_CIRCLE = ((-2, 0), (-2, 2), (0, 2), (2, 2), (2, 0), (2, -2), (0, -2), (-2, -2))


def moving_digits(folder: object = None) -> Pictures:
    """Digits of scikit-learn that move over 16 x 16 pixels in 8 frames; their class is the path, not the digit.

    What leaves at one edge enters at the other, and a digit starts anywhere: no frame alone tells a path. The digits of
    a split are those of that split in `images/digits`.
    """
    found = digits(None)
    splits = {}
    for split, count in COUNTS.items():
        dice = np.random.default_rng(derive(0, "moving digits", split))
        shapes = found.splits[split][0][..., 0]
        labels = np.arange(count) % len(PATHS)
        videos = np.stack([video(shapes[dice.integers(len(shapes))], int(label), dice) for label in labels])
        splits[split] = (videos[..., None], labels.astype(np.int64))
    return pictures("video/moving-digits", splits, len(PATHS), notes=["made by posenc's code"], generated=True)


def video(digit: NDArray[np.uint8], label: int, dice: np.random.Generator) -> NDArray[np.uint8]:
    """A digit (8,8) on the path of a label: (FRAMES, SIDE, SIDE)."""
    row, column = dice.integers(SIDE, size=2)
    start = int(dice.integers(FRAMES))
    name = PATHS[label - label % 2]
    if name in _WAYS:
        places = [(row + STEP * n * _WAYS[name][0], column + STEP * n * _WAYS[name][1]) for n in range(FRAMES)]
    else:
        turned = [_CIRCLE[(start + n) % FRAMES] for n in range(FRAMES)]
        places = [(row + STEP * down, column + STEP * right) for down, right in turned]
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    canvas[: digit.shape[0], : digit.shape[1]] = digit
    frames = np.stack([np.roll(canvas, place, axis=(0, 1)) for place in places])
    return frames[::-1] if label % 2 else frames
