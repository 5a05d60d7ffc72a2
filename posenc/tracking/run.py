"""A run of MLflow: what it has of a cell, and how more is written to it."""

from __future__ import annotations

import getpass
import time
from datetime import datetime
from typing import Any

from posenc.tracking.told import Data

BATCH = 800  # metrics a call; MLflow refuses more than 1000 metrics, params and tags together
PARAMS = 100  # MLflow refuses more a call
CELL, POINTS, POINTS_DIGEST, RECORD = (
    f"posenc.{name}" for name in ("cell_id", "points", "points_digest", "record_digest")
)
SUMMARY, CONTENT, FORM_TAG, ENCODING = (f"posenc.{name}" for name in ("summary", "content_digest", "form", "encoding"))
COLOUR, NOTE = "mlflow.runColor", "mlflow.note.content"


def milliseconds(moment: str | None) -> int:
    """An ISO time of a record as MLflow's milliseconds; now, where there is none."""
    try:
        return int(datetime.fromisoformat(moment or "").timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return int(time.time() * 1000)


def user() -> str:
    """Who writes the mirror, by the name on this machine."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container has users without a name
        return "unknown"


class Run:
    """What MLflow has of one cell."""

    def __init__(self, run: Any) -> None:
        tags = run.data.tags
        self.id: str = run.info.run_id
        self.place: str = run.info.artifact_uri
        self.name: str | None = run.info.run_name
        self.start: int = run.info.start_time
        self.points = int(tags.get(POINTS, 0))
        self.points_digest: str | None = tags.get(POINTS_DIGEST)
        self.record: str | None = tags.get(RECORD)
        self.colour: str | None = tags.get(COLOUR)


def input_of(data: Data) -> Any:
    """A dataset as MLflow's input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    made = Dataset(data.name, data.digest, data.source_type, data.source, profile=data.profile)
    return DatasetInput(made, [InputTag("mlflow.data.context", "training")])


def log(
    client: Any, run_id: str, metrics: list[tuple[str, float, int, int]], params: dict[str, str], tags: dict[str, str]
) -> None:
    """Params first, tags last: those say that everything before them has arrived."""
    from mlflow.entities import Metric, Param, RunTag

    entities = [Metric(*metric) for metric in metrics]
    given = [Param(key, value) for key, value in params.items()]
    while len(given) > PARAMS:
        client.log_batch(run_id, [], given[:PARAMS], [], synchronous=True)
        given = given[PARAMS:]
    marks = [RunTag(key, value) for key, value in tags.items()]
    for start in range(0, max(len(entities), 1), BATCH):
        last = start + BATCH >= len(entities)
        some, few = entities[start : start + BATCH], given if start == 0 else []
        client.log_batch(run_id, some, few, marks if last else [], synchronous=True)
