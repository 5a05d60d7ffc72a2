"""What the code of other packages is known by, that a cell runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posenc.api import registry
from posenc.config.objectives import OBJECTIVES
from posenc.data.sources import SOURCES


def code_of(config: Mapping[str, Any]) -> dict[str, str]:
    """By name a digest of all files of each package that brings a cell's encoding, objective or source of data.

    Nothing is imported. It stands in records beside the versions: code changed at an unchanged version is told.
    """
    found = registry.code_of(config["encoding"]["name"])
    found |= OBJECTIVES.code(str(config.get("objective")))
    return found | SOURCES.code(str((config.get("data") or {}).get("source")))
