"""Classes of videos read as patches of several frames (as LieRE has them, Ostmeier et al. 2025, arXiv:2406.10322)."""

from __future__ import annotations

from posenc.common.errors import ConfigError
from posenc.config.task import Task
from posenc.objectives.images import Images, side_of


class Videos(Images):
    """As images, with time before rows and columns: a patch has frames, and stands at (time, row, column).

    A length is the number of patches of a whole video. A multiple of it has as many frames and another resolution.
    Scaled coordinates leave time as it is. An encoding that reads one coordinate counts patches frame by frame.
    """

    name = "videos"

    @classmethod
    def require(cls, task: Task) -> None:
        patch = task.backbone.patch
        if len(patch) != 3 or patch[1] != patch[2]:
            wanted = "three sides, frames first, then two equal ones in pixels"
            raise ConfigError(f"backbone.patch = {list(patch)}: objective 'videos' wants {wanted}")

    @classmethod
    def grid(cls, length: int, patch: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...]:
        if sides[0] % patch[0]:
            raise ConfigError(
                f"backbone.patch = {list(patch)}: videos of {sides[0]} frames are no multiple of its first"
            )
        times = sides[0] // patch[0]
        if length % times:
            raise ConfigError(f"{length} patches: must be a multiple of {times}, as so many follow each other in time")
        side = side_of(length // times)
        return times, side, side
