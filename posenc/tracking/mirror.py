"""Records and curves to MLflow: a mirror that only the driver writes, and that may be missing or broken.

Records are the truth, so nothing here is ever read back into a result: a run that MLflow refuses goes
on without it, and `sync` makes the mirror again. Every cell has one run, found by its tag. What was sent
is told by three tags of that run, so that neither a second call nor a restart writes anything twice:

    posenc.points          how many points of the curve are there
    posenc.points_digest   of those points: another curve under the same cell starts a new run
    posenc.record_digest   written last: the run is whole, and mirrors that record

A fourth, posenc.form, says in which form a run was told: one of another form is sent anew.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from posenc.api.looks import colours
from posenc.common.errors import PosencError, StoreError
from posenc.common.files import digest, is_temporary
from posenc.common.text import harmless, masked
from posenc.records.record import FAILURES, STATUSES, TIMED_OUT, Record, dig
from posenc.records.store import KEPT, Store
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
from posenc.tracking.run import (
    CELL,
    COLOUR,
    CONTENT,
    ENCODING,
    FORM_TAG,
    NOTE,
    POINTS,
    POINTS_DIGEST,
    RECORD,
    SUMMARY,
    Run,
    input_of,
    log,
    milliseconds,
    user,
)
from posenc.tracking.told import (
    FORM,
    TEXT,
    VIEW_KEY,
    answer,
    dataset,
    diverged_at,
    final_metrics,
    final_tags,
    group_of,
    how_to_load,
    parameters,
    points_digest,
    run_names,
    source,
    summaries,
    thin,
    varied,
)

__all__ = ["Mirror", "default_uri", "sync"]

SHOWN = {
    "runsHiddenMode": "SHOW_ALL",
    "searchFilter": f"tags.`{SUMMARY}` = 'encoding'",
    "chartsSearchFilter": "/mean$",
}
VIEW = {f"mlflow.sharedViewState.{VIEW_KEY}": json.dumps(SHOWN)}
"""A view with a bar for the mean of each encoding, however many there are: of runs, MLflow shows but the ten newest."""
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


def encoding_of(cell: dict[str, Any]) -> str:
    """The name of a cell's encoding."""
    return str(dig(cell, ("config", "encoding", "name")))


def colours_of(cells: list[dict[str, Any]]) -> dict[str, str]:
    """The colour of each encoding, as in the suite's report."""
    return colours(map(encoding_of, cells))


def _text(path: Path) -> str:
    """A file's text; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file changed, without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class Mirror:
    """The cells of one suite in MLflow, as far as they have come.

    Never stops a run: the first failure is told once through `warn`, then nothing more is tried.
    """

    def __init__(self, store: Store, uri: str, warn: Callable[[str], None] = to_stderr) -> None:
        self.store, self.uri, self._warn = store, uri, warn
        self._client: Any = None
        self._off = False
        self._experiment = ""
        self._source: dict[str, str] = {}
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
        self._source = {FORM_TAG: FORM, **source(suite, user())}
        with creation_locked(self.uri):  # other suites may start in the same new folder
            client = open_client(self.uri)
            experiment = client.get_experiment_by_name(suite["name"])
            if experiment is None:
                note = "\n\n".join(str(suite[key]) for key in ("title", "description") if suite.get(key))
                tags = {**VIEW, **({NOTE: note[:TEXT]} if note else {})}
                self._experiment = client.create_experiment(suite["name"], artifacts_of(self.uri), tags)
            else:
                self._experiment = experiment.experiment_id
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(self._experiment)
                for key, value in VIEW.items():
                    if experiment.tags.get(key) != value:
                        client.set_experiment_tag(self._experiment, key, value)
        token, gone = None, []
        while True:
            page = client.search_runs([self._experiment], max_results=1000, page_token=token)
            for run in page:
                tags = run.data.tags
                ours = CELL in tags or SUMMARY in tags
                if RECORD in tags and not is_there(self.uri, run.info.artifact_uri):
                    gone.append(run)  # a database that came without its files: they are sent again
                elif ours and tags.get(FORM_TAG) != FORM:
                    gone.append(run)  # told by another version: MLflow cannot change a param
                elif CELL in tags:
                    self._runs.setdefault(tags[CELL], Run(run))
                elif SUMMARY in tags:
                    self._summaries[tags[SUMMARY], tags.get(ENCODING, "")] = run
            token = page.token
            if not token:
                break
        for run in gone:  # not before all pages are read: they are counted by their runs
            client.delete_run(run.info.run_id)
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
        first, hues, names = varied(cells), colours_of(cells), run_names(cells)
        for cell in cells:
            folder = self.store.cell_folder(cell["id"])
            now = stamp(folder / "record.json"), stamp(folder / "curve.jsonl")
            if now == (None, None) or self._seen.get(cell["id"]) == now:
                continue
            try:
                record = self.store.read_record(cell["id"])
                run, colour = self._runs.get(cell["id"]), hues[encoding_of(cell)]
                if run is None or record is None or run.record != record["digest"]:
                    rows = self.store.curve(cell["id"])
                    self._update_cell(cell, record, rows, names[cell["id"]], first, colour)
                elif run.colour != colour:  # an earlier version told another, or an encoding that comes before took it
                    log(self._client, run.id, [], {}, {COLOUR: colour})
                    run.colour = colour
            except StoreError as error:  # one damaged cell does not hide the others
                if strict:
                    raise
                if cell["id"] not in self._damaged:
                    self._damaged.add(cell["id"])
                    self._warn(f"not in MLflow: {brief(error)}")
            self._seen[cell["id"]] = now

    def _update_cell(
        self,
        cell: dict[str, Any],
        record: Record | None,
        rows: list[dict[str, Any]],
        name: str,
        first: list[str],
        colour: str,
    ) -> None:
        config = cell["config"]
        points = thin(rows, (config.get("training") or {}).get("steps"), ended=record is not None)
        run = self._runs.get(cell["id"])
        if run and run.record is None and record is None and len(points) < run.points:
            return  # resumed from a checkpoint: the curve has not come back to where it was
        if run and (run.record or (run.points and points_digest(points[: run.points]) != run.points_digest)):
            self._client.delete_run(run.id)  # the cell ran anew; MLflow cannot take metrics back from a run
            run = None
        tags: dict[str, str] = {}
        params: dict[str, str] = {}
        if run is None or run.name != name:
            tags["group"] = group_of(name)
        if run is None:
            begin = milliseconds(dig(record, ("times", "started")))
            own = {CELL: cell["id"], "status": "running", COLOUR: colour, **self._source}
            run = self._runs[cell["id"]] = Run(self._client.create_run(self._experiment, begin, own, name))
        elif run.name != name:
            self._client.update_run(run.id, name=name)
            run.name = name
        if not run.points:  # nothing has been told of it, or not to the end
            params = parameters(cell, first)
        metrics = [(p.key, p.value, run.start + int(p.seconds * 1000), p.step) for p in points[run.points :]]
        if (step := diverged_at(rows)) is not None:
            tags["diverged"] = f"at step {step}"
        if points:
            tags |= {POINTS: str(len(points)), POINTS_DIGEST: points_digest(points)}
        if record is not None:
            end = milliseconds(dig(record, ("times", "ended")))
            metrics += [(key, value, end, 0) for key, value in final_metrics(record).items()]
            tags |= {**final_tags(record), RECORD: record["digest"]}
            if (self.store.cell_folder(cell["id"]) / KEPT).is_file():  # it stays there: a copy might fill the disk
                tags["model"] = how_to_load(self.store.folder, cell["id"])
            send(self._client, run.id, run.place, self.store.cell_folder(cell["id"]) / "record.json")
            if data := dataset(record):
                self._client.log_inputs(run.id, [input_of(data)])
            self._client.set_terminated(run.id, RUN_STATUS[record["status"]], end)
        log(self._client, run.id, metrics, params, tags)
        run.points, run.points_digest = len(points), tags.get(POINTS_DIGEST)
        run.record = record["digest"] if record else None

    def _finish(self, report_folder: Path | None) -> None:
        manifest = self.store.read_manifest()
        self._connect(manifest)
        self._require_database()
        records = list(self.store.records())
        found, hues = summaries(manifest["cells"], records), colours_of(manifest["cells"])
        # MLflow shows the run that started last first: summaries are to come after all cells.
        first = min((run.start for run in self._runs.values()), default=milliseconds(None))
        end = max((milliseconds(dig(record, ("times", "ended"))) for record in records), default=first)
        for index, (encoding, metrics) in enumerate(found.items(), 2):
            self._summarise("encoding", encoding, metrics, {COLOUR: hues[encoding]}, times=(first, index, end))
        for kind, encoding in list(self._summaries):
            if kind == "encoding" and encoding not in found:  # its cells were removed, or fail now
                self._client.delete_run(self._summaries.pop((kind, encoding)).info.run_id)
        counts = Counter(record["status"] for record in records)
        counts["missing"] = len(manifest["cells"]) - len(records)
        tags = {f"cells.{status}": str(counts[status]) for status in (*STATUSES, "missing")}
        tags[NOTE] = answer(_text(report_folder / "report.md")) if report_folder else ""
        if manifest.get("command"):
            tags["command"] = masked(manifest["command"])[:TEXT]
        self._summarise("suite", "", {}, tags, report_folder, times=(first, 1, end))

    def _summarise(
        self,
        kind: str,
        encoding: str,
        metrics: dict[str, float],
        tags: dict[str, str],
        folder: Path | None = None,
        *,
        times: tuple[int, int, int],
    ) -> None:
        """One summary run, brought up to what is known now if that has changed.

        Args:
            times: when the first cell began, by how much this begins before it, and when the last cell ended.
        """
        files = (
            sorted(path for path in folder.rglob("*") if path.is_file() and not is_temporary(path)) if folder else []
        )
        hashes = [[str(path.relative_to(folder)), sha256(path.read_bytes()).hexdigest()] for path in files if folder]
        content = digest([metrics, tags, hashes])
        first, before, end = times
        run = self._summaries.get((kind, encoding))
        if run is not None and (run.data.metrics.keys() - metrics.keys() or run.info.start_time >= first):
            self._client.delete_run(run.info.run_id)  # MLflow can take back no score, and change no start
            run = None
        there = run is not None and (not files or is_there(self.uri, run.info.artifact_uri))
        if run is not None and run.data.tags.get(CONTENT) == content and there:
            return
        fixed = {ENCODING: encoding} if encoding else {}
        if run is None:
            name = f"summary {encoding}".strip()
            fixed |= {SUMMARY: kind, **self._source}
            run = self._client.create_run(self._experiment, first - before, fixed, name)
        for path in files:
            under = Path("report", path.relative_to(folder).parent) if folder else Path("report")
            send(self._client, run.info.run_id, run.info.artifact_uri, path, under.as_posix())
        self._client.set_terminated(run.info.run_id, end_time=end)
        values = [(key, value, end, 0) for key, value in metrics.items() if run.data.metrics.get(key) != value]
        params = {"encoding": encoding} if encoding else {}
        log(self._client, run.info.run_id, values, params, {**tags, CONTENT: content})
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
