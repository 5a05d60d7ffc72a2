"""Classes of images read as patches on a grid (Dosovitskiy et al. 2021, arXiv:2010.11929), at several resolutions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from posenc.api.objective import Batch, Objective, Scored
from posenc.backbone.transformer import Transformer
from posenc.common.errors import ConfigError, DataError, NotPossibleError
from posenc.common.seeds import derive
from posenc.config.settings import Settings
from posenc.config.task import Task
from posenc.data.pictures import Pictures
from posenc.objectives.epochs import Epochs
from posenc.objectives.metrics import ACCURACY, CROSS_ENTROPY

Ids = NDArray[np.int64]
SCALED = "test_scaled"


class Images(Objective):
    """Each image is cut into squares, which an encoder reads in place of tokens; its class is read from their mean, or
    from a vector of its own that stands before them (`backbone.head`: mean or class).

    A length is a number of patches, which stand in a square: an image is brought to so many pixels a side as they have
    together (bilinear, with antialiasing where it becomes smaller). So a multiple of the length is another resolution
    of the same images: 4 times the patches are twice the pixels a side. Pixels are standardised by channel, with the
    mean and the deviation of the training images.

    Patches stand at (row, column), counted from 0. At another resolution than the trained one they are counted on, as
    in RoPE-ViT (Heo et al. 2024): that is the split "test". "test_scaled" has the same images with coordinates scaled,
    so that the last patch stands where the last one stood in training. An encoding that reads one coordinate is given
    none: it counts patches, row by row, and nothing can be scaled.

    In training images may be moved and mirrored (`training.shift`, `training.flip`): by seed and step, the same for
    every encoding.

    Args:
        settings: of the cell. data: the images.

    Raises:
        ConfigError: channels or classes that the backbone does not have.
    """

    name = "images"
    form = "encoder"
    head = "mean"
    heads = ("mean", "class")
    tokenisers = ("patches",)
    metrics = (ACCURACY, CROSS_ENTROPY)

    @classmethod
    def vocabulary_of(cls, data: Mapping[str, Any]) -> int:
        """There are no tokens, and so no kinds of them."""
        return 1

    @classmethod
    def require(cls, task: Task) -> None:
        patch = task.backbone.patch
        if len(patch) != 2 or patch[0] != patch[1]:
            raise ConfigError(f"backbone.patch = {list(patch)}: objective 'images' wants two equal sides, in pixels")
        for length in task.evaluation.lengths(task.length):
            cls.grid(length, patch, ())

    @classmethod
    def require_data(cls, data: Pictures, task: Task, length: int) -> None:
        if len(data.splits["train"][1]) < task.training.batch:
            raise DataError(
                f"{data.name}: {len(data.splits['train'][1]):,} training rows, and training.batch ="
                f" {task.training.batch}"
            )
        for longer in task.evaluation.lengths(length):
            cls.grid(longer, task.backbone.patch, data.sides)

    @classmethod
    def grid(cls, length: int, patch: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...]:
        """How many patches stand along each axis of a row of so many.

        Args:
            patch: its sides. sides: of what is cut, in pixels.

        Raises:
            ConfigError: they make no square.
        """
        side = side_of(length)
        return side, side

    @classmethod
    def make(cls, settings: Settings, data: Pictures, tokens: None) -> Images:
        return cls(settings, data)

    def __init__(self, settings: Settings, data: Pictures) -> None:
        backbone = settings.backbone
        for key, ours, theirs in (
            ("channels", backbone.channels, data.channels),
            ("outputs", backbone.outputs, data.classes),
        ):
            if ours != theirs:
                raise ConfigError(f"backbone.{key} = {ours}: {data.name} has {theirs}")
        self.pictures, self.length, self.evaluation = data, settings.length, settings.evaluation
        self.patch, self.training = backbone.patch, settings.training
        self.epochs = Epochs(np.full(len(data.splits["train"][1]), self.length), settings.training.batch)
        lengths = self.evaluation.lengths(self.length)
        self.tests = [("test", length) for length in lengths]
        self.tests += [(SCALED, length) for length in lengths if length != self.length]
        self.mean, self.deviation = (torch.from_numpy(moment).float() for moment in data.moments)
        shown = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
        self.data = {**data.describe(), **shown}
        self._places: dict[tuple[int, bool, torch.device], Tensor] = {}

    def patches(self, split: str, rows: Ids, length: int, moved: np.random.Generator | None = None) -> Tensor:
        """Patches (B,L,P) float32 of some rows of a split: L in reading order, P by a patch's axes, then channel."""
        grid = self.grid_at(length)
        wanted = tuple(count * side for count, side in zip(grid, self.patch, strict=True))
        read = self.pictures.pixels(split, rows, wanted)
        if moved is not None:
            read = self._moved(read, moved)
        pixels = torch.from_numpy(read).float()
        whole = ((pixels - self.mean) / self.deviation).movedim(-1, 1)  # (B,C,sides...)
        if whole.shape[-2:] != wanted[-2:]:
            flat = whole.flatten(1, -3)  # frames are resized one by one
            resized = functional.interpolate(
                flat, wanted[-2:], mode="bilinear", align_corners=False, antialias=True
            )  # fmt: skip
            whole = resized.unflatten(1, whole.shape[1:-2])
        axes = len(grid)
        for axis in reversed(range(axes)):  # (B,C,n_1,p_1,n_2,p_2,...)
            whole = whole.unflatten(2 + axis, (grid[axis], self.patch[axis]))
        counts, inside = ([2 + part + 2 * axis for axis in range(axes)] for part in (0, 1))
        return whole.permute(0, *counts, *inside, 1).flatten(1 + axes).flatten(1, axes).contiguous()

    def _moved(self, pixels: NDArray[np.uint8], dice: np.random.Generator) -> NDArray[np.uint8]:
        """The same (N,sides...,C), each moved and mirrored as `training.shift` and `flip` say."""
        most, (height, width) = self.training.shift, pixels.shape[-3:-1]
        space = [(0, 0)] * (pixels.ndim - 3) + [(most, most)] * 2 + [(0, 0)]
        padded, moved = np.pad(pixels, space), np.empty_like(pixels)
        places = dice.integers(2 * most + 1, size=(len(pixels), 2))
        mirrored = dice.random(len(pixels)) < (0.5 if self.training.flip else 0.0)
        for index, ((row, column), turned) in enumerate(zip(places, mirrored, strict=True)):
            one = padded[index, ..., row : row + height, column : column + width, :]
            moved[index] = one[..., ::-1, :] if turned else one
        return moved

    def grid_at(self, length: int) -> tuple[int, ...]:
        return self.grid(length, self.patch, self.pictures.sides)

    def places(self, length: int, device: torch.device, scaled: bool = False) -> Tensor:
        """Coordinates (1,L,A) of patches: whole numbers, or where they are scaled float64."""
        key = (length, scaled, device)
        if key not in self._places:
            here, trained = self.grid_at(length), self.grid_at(self.length)
            axes = [torch.arange(count, device=device) for count in here]
            if scaled:
                last = [(own - 1) / max(1, count - 1) for own, count in zip(trained, here, strict=True)]
                axes = [axis.double() * by for axis, by in zip(axes, last, strict=True)]
            self._places[key] = torch.cartesian_prod(*axes)[None]
        return self._places[key]

    def batch(self, seed: int, step: int, rows: int) -> Batch:
        """Patches (B,L,P) and classes (B,)."""
        if rows != self.epochs.batch:
            raise ValueError(f"{rows} rows a batch, and the epochs were laid out for {self.epochs.batch}")
        moves = self.training.shift or self.training.flip
        dice = np.random.default_rng(derive(seed, "moved", step)) if moves else None
        return self._batch("train", self.epochs.rows(seed, step), self.length, dice)

    def _batch(self, split: str, rows: Ids, length: int, moved: np.random.Generator | None = None) -> Batch:
        return self.patches(split, rows, length, moved), torch.from_numpy(self.pictures.splits[split][1][rows])

    def targets(self, batch: Batch) -> int:
        return len(batch[1])

    def seen(self, batch: Batch) -> int:
        return batch[0].shape[0] * batch[0].shape[1]

    def logits(self, model: Transformer, patches: Tensor, scaled: bool = False) -> Tensor:
        """What the model says of patches (B,L,P): (B,classes), at least in float32."""
        hidden = model.hidden(patches, coordinates=self.places(patches.shape[1], patches.device, scaled))
        logits = model.summarise(hidden)
        return logits if logits.dtype == torch.float64 else logits.float()

    def loss(self, model: Transformer, batch: Batch) -> Tensor:
        patches, labels = batch
        return functional.cross_entropy(self.logits(model, patches), labels)

    def scored(self, split: str) -> Ids:
        """The images of a split that are scored: all, or so many as have evaluation.tokens patches in training.

        Which ones hangs on the split alone: the same at every resolution.
        """
        count = len(self.pictures.splits[split][1])
        if not self.evaluation.tokens:
            return np.arange(count)
        order = np.random.default_rng(derive(0, "evaluation", split)).permutation(count)
        return np.sort(order[: max(1, self.evaluation.tokens // self.length)])

    def _batches(self, split: str, length: int) -> Iterator[Batch]:
        rows, most = self.scored(split), max(1, self.evaluation.batch_tokens // length)
        for first in range(0, len(rows), most):
            yield self._batch(split, rows[first : first + most], length)

    @torch.no_grad()
    def score(self, model: Transformer, split: str, length: int) -> Scored:
        device, scaled = next(model.parameters()).device, split == SCALED
        if scaled and model.axes == 1:
            raise NotPossibleError("not possible: it counts patches row by row, and no count is scaled")
        right, losses = [], []
        for patches, labels in self._batches("test" if scaled else split, length):
            logits = self.logits(model, patches.to(device), scaled).double().cpu()
            # What is no number is no answer.
            right.append(((logits.argmax(-1) == labels) & logits.isfinite().all(-1)).double().numpy())
            losses.append(functional.cross_entropy(logits, labels, reduction="none").numpy())
        hits, nats = np.concatenate(right), np.concatenate(losses)
        each = {"accuracy": hits, "cross_entropy": nats, "weight": np.ones(len(hits))}
        sides = (str(count * side) for count, side in zip(self.grid_at(length), self.patch, strict=True))
        details = {"resolution": f"{' x '.join(sides)} pixels"}
        values = {"accuracy": float(hits.mean()), "cross_entropy": float(nats.mean())}
        return Scored(values, len(hits), details, each)

    def baselines(self) -> dict[str, float]:
        """The accuracy on test of the commonest class of train."""
        common = int(np.bincount(self.pictures.splits["train"][1]).argmax())
        truth = self.pictures.splits["test"][1][self.scored("test")]
        return {"majority": float((truth == common).mean())}


def side_of(length: int) -> int:
    """Patches along each side of a square of so many.

    Raises:
        ConfigError: they make no square.
    """
    side = math.isqrt(length)
    if side * side != length:
        raise ConfigError(f"{length} patches make no square: length and its multiples must be 1, 4, 9, 16, ...")
    return side
