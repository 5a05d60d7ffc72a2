"""Records and curves to MLflow: a mirror that only the driver writes, and that may be missing or broken.

Records are the truth, so nothing here is ever read back into a result: a run that MLflow refuses goes
on without it, and `sync` makes the mirror again. Every cell has one run, found by its tag. What was sent
is told by three tags of that run, so that neither a second call nor a restart writes anything twice:

    posenc.points          how many points of the curve are there
    posenc.points_digest   of those points: another curve under the same cell starts a new run
    posenc.record_digest   written last: the run is whole, and mirrors that record
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from posenc.common.errors import PosencError, StoreError
from posenc.common.files import digest, is_temporary
from posenc.common.text import harmless, masked
from posenc.records.record import FAILURES, STATUSES, TIMED_OUT, Record, dig
from posenc.records.store import Store
from posenc.tracking.place import (
    artifacts_of,
    creation_locked,
    database_of,
    default_uri,
    is_there,
    open_client,
    quietly,
    send,
)
from posenc.tracking.told import (
    TEXT,
    diverged_at,
    extra_axes,
    final_metrics,
    final_tags,
    group_of,
    metric_name,
    origin,
    parameters,
    points_digest,
    run_name,
    summaries,
    thin,
)

__all__ = ["Mirror", "default_uri", "sync"]

BATCH = 900  # metrics a call; MLflow refuses more than 1000 metrics, params and tags together
CELL, POINTS, POINTS_DIGEST, RECORD = (
    f"posenc.{name}" for name in ("cell_id", "points", "points_digest", "record_digest")
)
SUMMARY, CONTENT = "posenc.summary", "posenc.content_digest"
RUN_STATUS = {
    status: "KILLED" if status == TIMED_OUT else "FAILED" if status in FAILURES else "FINISHED" for status in STATUSES
}


def brief(error: Exception) -> str:
    """An error in one line, without a password that stands in it."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return masked(first if isinstance(error, PosencError) else f"{type(error).__name__}: {first}")[:300]


def to_stderr(message: str) -> None:
    """Where warnings go unless the caller takes them."""
    print(harmless(message), file=sys.stderr)


def milliseconds(moment: str | None) -> int:
    """An ISO time of a record as MLflow's milliseconds; now, where there is none."""
    try:
        return int(datetime.fromisoformat(moment or "").timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return int(time.time() * 1000)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file changed, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


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


class Mirror:
    """The cells of one suite in MLflow, as far as they have come.

    Never stops a run: the first failure is told once through `warn`, then nothing more is tried.
    """

    def __init__(self, store: Store, uri: str, warn: Callable[[str], None] = to_stderr) -> None:
        self.store, self.uri, self._warn = store, uri, warn
        self._client: Any = None
        self._off = False
        self._experiment = ""
        self._runs: dict[str, Run] = {}
        self._summaries: dict[tuple[str, str], Any] = {}
        self._seen: dict[str, Any] = {}
        self._damaged: set[str] = set()
        self._database: tuple[int, int] | None = None

    @property
    def off(self) -> bool:
        """Whether it has failed, and nothing more is sent."""
        return self._off

    def update(self) -> None:
        """Send what is new of every cell: new points of running ones, the record of those that ended."""
        self._try(lambda: self._update(strict=False))

    def finish(self, report_folder: Path | None) -> None:
        """Write the summary runs: the report of the suite, and mean and spread of each encoding."""
        self._try(lambda: self._finish(report_folder))

    def _try(self, action: Callable[[], object]) -> None:
        if self._off:
            return
        try:
            with quietly():
                action()
        except Exception as error:  # whatever fails in a mirror, the cells that train go on
            self._off = True
            self._warn(
                f"MLflow is not written any more ({brief(error)}). "
                "The run goes on and keeps its records; `posenc sync` mirrors them later."
            )

    def _connect(self, manifest: dict[str, Any]) -> None:
        if self._client is not None:
            return
        suite = manifest["suite"]
        with creation_locked(self.uri):  # other suites may start in the same new folder
            client = open_client(self.uri)
            experiment = client.get_experiment_by_name(suite["name"])
            if experiment is None:
                note = "\n\n".join(str(suite[key]) for key in ("title", "description") if suite.get(key))
                tags = {"mlflow.note.content": note[:TEXT]} if note else {}
                self._experiment = client.create_experiment(suite["name"], artifacts_of(self.uri), tags)
            else:
                self._experiment = experiment.experiment_id
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(self._experiment)
        token = None
        while True:
            page = client.search_runs([self._experiment], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                if RECORD in tags and not is_there(self.uri, run.info.artifact_uri):
                    client.delete_run(run.info.run_id)  # a database that came without its files: they are sent again
                elif CELL in tags:
                    self._runs.setdefault(tags[CELL], Run(run))
                elif SUMMARY in tags:
                    self._summaries[tags[SUMMARY], tags.get("posenc.encoding", "")] = run
            token = page.token
            if not token:
                break
        self._client = client

    def _require_database(self) -> None:
        """SQLite goes on writing into a file that was deleted under it: what is sent then would be lost unsaid."""
        database = database_of(self.uri)
        if database is None:
            return
        try:
            found = os.stat(database)
        except OSError:
            raise StoreError(f"{database} was deleted while it was in use") from None
        now = found.st_dev, found.st_ino
        self._database = self._database or now
        if now != self._database:
            raise StoreError(f"{database} was replaced while it was in use")

    def _update(self, strict: bool) -> None:
        manifest = self.store.read_manifest()
        self._connect(manifest)
        self._require_database()
        cells = manifest["cells"]
        extra = extra_axes(cells)
        for cell in cells:
            folder = self.store.cell_folder(cell["id"])
            now = stamp(folder / "record.json"), stamp(folder / "curve.jsonl")
            if now == (None, None) or self._seen.get(cell["id"]) == now:
                continue
            try:
                record = self.store.read_record(cell["id"])
                ahead = record is not None and self._runs.get(cell["id"])
                if not ahead or ahead.record != record["digest"]:  # type: ignore[index]
                    self._update_cell(cell, record, self.store.curve(cell["id"]), run_name(cell, cells), extra)
            except StoreError as error:  # one damaged cell does not hide the others
                if strict:
                    raise
                if cell["id"] not in self._damaged:
                    self._damaged.add(cell["id"])
                    self._warn(f"not in MLflow: {brief(error)}")
            self._seen[cell["id"]] = now

    def _update_cell(
        self, cell: dict[str, Any], record: Record | None, rows: list[dict[str, Any]], name: str, extra: list[str]
    ) -> None:
        config = cell["config"]
        points = thin(rows, (config.get("training") or {}).get("steps"), ended=record is not None)
        run = self._runs.get(cell["id"])
        if run and run.record is None and record is None and len(points) < run.points:
            return  # resumed from a checkpoint: the curve has not come back to where it was
        if run and (run.record or (run.points and points_digest(points[: run.points]) != run.points_digest)):
            self._client.delete_run(run.id)  # the cell ran anew; MLflow cannot take metrics back from a run
            run = None
        tags, params = {}, {}
        if run is None or run.name != name:
            tags["group"] = group_of(name)
        if run is None:
            begin = milliseconds(dig(record, ("times", "started")))
            made = self._client.create_run(self._experiment, begin, {CELL: cell["id"], "status": "running"}, name)
            run = self._runs[cell["id"]] = Run(made)
            params = {"id": cell["id"], **origin(config), **parameters(config, extra)}
        elif run.name != name:
            self._client.update_run(run.id, name=name)
            run.name = name
        metrics = [(p.key, p.value, run.start + int(p.seconds * 1000), p.step) for p in points[run.points :]]
        if (step := diverged_at(rows)) is not None:
            tags["diverged"] = f"at step {step}"
        if points:
            tags |= {POINTS: str(len(points)), POINTS_DIGEST: points_digest(points)}
        if record is not None:
            end = milliseconds(dig(record, ("times", "ended")))
            metrics += [(key, value, end, 0) for key, value in final_metrics(record).items()]
            tags |= {**final_tags(record), RECORD: record["digest"]}
            send(self._client, run.id, run.place, self.store.cell_folder(cell["id"]) / "record.json")
            self._client.set_terminated(run.id, RUN_STATUS[record["status"]], end)
        self._log(run.id, metrics, params, tags)
        run.points, run.points_digest = len(points), tags.get(POINTS_DIGEST)
        run.record = record["digest"] if record else None

    def _log(
        self, run_id: str, metrics: list[tuple[str, float, int, int]], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        """Params first, tags last: they say that everything before them has arrived."""
        from mlflow.entities import Metric, Param, RunTag

        entities = [Metric(*metric) for metric in metrics]
        given = [Param(metric_name(key), value[:TEXT]) for key, value in params.items()]
        marks = [RunTag(key, value) for key, value in tags.items()]
        for start in range(0, max(len(entities), 1), BATCH):
            last = start + BATCH >= len(entities)
            some, first = entities[start : start + BATCH], start == 0
            self._client.log_batch(run_id, some, given if first else [], marks if last else [], synchronous=True)

    def _finish(self, report_folder: Path | None) -> None:
        manifest = self.store.read_manifest()
        self._connect(manifest)
        self._require_database()
        records = list(self.store.records())
        found = summaries(manifest["cells"], records)
        for encoding, metrics in found.items():
            self._summarise("encoding", encoding, metrics)
        for kind, encoding in list(self._summaries):
            if kind == "encoding" and encoding not in found:  # its cells were removed, or fail now
                self._client.delete_run(self._summaries.pop((kind, encoding)).info.run_id)
        counts = Counter(record["status"] for record in records)
        counts["missing"] = len(manifest["cells"]) - len(records)
        tags = {f"cells.{status}": str(counts[status]) for status in (*STATUSES, "missing")}
        self._summarise("suite", "", {}, tags, report_folder)

    def _summarise(
        self,
        kind: str,
        encoding: str,
        metrics: dict[str, float],
        tags: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """One summary run, brought up to what is known now if that has changed."""
        files = (
            sorted(path for path in folder.rglob("*") if path.is_file() and not is_temporary(path)) if folder else []
        )
        hashes = [[str(path.relative_to(folder)), sha256(path.read_bytes()).hexdigest()] for path in files if folder]
        content = digest([metrics, tags, hashes])
        run = self._summaries.get((kind, encoding))
        there = run is not None and (not files or is_there(self.uri, run.info.artifact_uri))
        if run is not None and run.data.tags.get(CONTENT) == content and there:
            return
        if run is not None and run.data.metrics.keys() - metrics.keys():
            self._client.delete_run(run.info.run_id)  # a score is gone, and MLflow cannot take it back
            run = None
        fixed = {"posenc.encoding": encoding} if encoding else {}
        if run is None:
            name = f"summary {encoding}".strip()
            run = self._client.create_run(self._experiment, tags={SUMMARY: kind, **fixed}, run_name=name)
        for path in files:
            under = Path("report", path.relative_to(folder).parent) if folder else Path("report")
            send(self._client, run.info.run_id, run.info.artifact_uri, path, under.as_posix())
        self._client.set_terminated(run.info.run_id)
        now = int(time.time() * 1000)
        values = [(key, value, now, 0) for key, value in metrics.items() if run.data.metrics.get(key) != value]
        params = {"encoding": encoding} if encoding else {}
        self._log(run.info.run_id, values, params, {**(tags or {}), CONTENT: content})
        self._summaries[kind, encoding] = self._client.get_run(run.info.run_id)


def sync(store: Store, uri: str) -> int:
    """Make the mirror of a suite again from its records; how many cells are in it.

    Raises:
        StoreError: a record is damaged, or MLflow is missing, gone, or has a database that it cannot use.
    """
    mirror = Mirror(store, uri)
    try:
        with quietly():
            mirror._update(strict=True)
            mirror._finish(store.folder / "report")
    except PosencError:
        raise
    except Exception as error:
        # What a URI asks for may not be installed: a database's driver.
        expected, theirs = (OSError, ImportError, sqlite3.Error), ("mlflow", "sqlalchemy", "alembic")
        if not isinstance(error, expected) and type(error).__module__.partition(".")[0] not in theirs:
            raise  # a fault of this program: its traceback is wanted
        database = database_of(uri)
        hint = f"move {database} away and sync again" if database else "is the server there?"
        raise StoreError(f"MLflow at {masked(uri)} cannot be written ({brief(error)}): {hint}") from None
    return sum(cell["id"] in mirror._runs for cell in store.read_manifest()["cells"])
