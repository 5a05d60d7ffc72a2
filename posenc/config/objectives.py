"""The objectives by name: posenc's own, and those that other packages bring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from posenc.api.entry_points import Registry, in_folder
from posenc.common.errors import PluginError

if TYPE_CHECKING:
    from posenc.api.objective import Objective

GROUP = "posenc.objectives"
OBJECTIVES = Registry("objective", GROUP, in_folder(Path(__file__).parent.parent / "objectives", "posenc.objectives"))


def objective(name: str, where: str = "") -> type[Objective]:
    """The class of an objective.

    Raises:
        UnknownNameError: no such objective. PluginError: a package's cannot be loaded, or is none.
    """
    found = OBJECTIVES.load(name, where)
    from posenc.api.objective import Objective

    if not (isinstance(found, type) and issubclass(found, Objective)):
        entry = OBJECTIVES.entry(name)
        raise PluginError(
            f"objective {name!r} of {entry.package}: {entry.target} is no subclass of posenc.api.objective.Objective"
        )
    missing = [fact for fact in ("form", "tokenisers") if not hasattr(found, fact)]
    if missing:
        raise PluginError(f"objective {name!r}: {found.__qualname__} must say its {' and its '.join(missing)}")
    return found
