"""Where MLflow keeps what is mirrored: its URI, its database and files, the first creation of both, a moved folder."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from posenc.common import telemetry
from posenc.common.errors import StoreError
from posenc.common.text import masked

FILES = "mlartifacts"
"""The folder beside a database in which its files lie."""
CREATION_SECONDS = 600
"""How long the first creation of a database by another process is waited for; it takes seconds."""
SETTINGS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own 7 would hold the driver for minutes when a server is gone
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # `posenc ui` only shows: no job workers beside it
}


def default_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database in the results folder, under its absolute path."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(results).absolute() / 'mlflow.db'}"


def database_of(uri: str) -> Path | None:
    """The file of an SQLite URI, None for any other."""
    match = re.match(r"sqlite(?:\+\w+)?:///([^?]*)(?:\?(.*))?$", uri)
    if match is None:
        return None
    if "%" in match[1] or "/" in (match[2] or ""):  # MLflow and SQLAlchemy would take it for different files
        raise StoreError(f"MLflow cannot use {masked(uri)}: a folder's name holds '%' or '?'; set MLFLOW_TRACKING_URI")
    return Path(match[1]).absolute()


def artifacts_of(uri: str) -> str | None:
    """Where files go: beside the database, as an absolute file: URI. A server chooses its own place (None)."""
    database = database_of(uri)
    return (database.parent / FILES).as_uri() if database else None


def is_there(uri: str, place: str) -> bool:
    """Whether a run's folder of files exists, as far as this can be seen: of an SQLite database, on this machine."""
    if database_of(uri) is None or not place.startswith("file:"):
        return True
    return Path(unquote(urlsplit(place).path)).is_dir()


def send(client: Any, run_id: str, place: str, path: Path, under: str | None = None) -> None:
    """A file, or a folder's content, to the files of a run, which lie at `place`, there in the folder `under`."""
    target = client
    first: tuple[str, ...] = (run_id,)
    if place.startswith("file:"):  # MLflow's client remembers where a run's files went, in a folder since copied too
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        target, first = get_artifact_repository(place), ()
    (target.log_artifacts if path.is_dir() else target.log_artifact)(*first, str(path), under)


def prepare_environment() -> None:
    """Telemetry off and MLflow quiet, unless the user set otherwise. Must come before MLflow is imported."""
    telemetry.off()
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back the chatter of MLflow and of what it uses; errors are raised, not logged."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3", "sqlalchemy")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


@contextmanager
def creation_locked(uri: str) -> Iterator[None]:
    """Be the one process that makes the tables, or an experiment, of an SQLite database: MLflow itself does not
    look whether another makes them too. A server or a database server sees to that for itself.

    Raises:
        StoreError: another process has held it for ten minutes.
    """
    database = database_of(uri)
    if database is None:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(database.with_name(f"{database.name}.lock"))
    try:
        lock.acquire(timeout=CREATION_SECONDS)
    except Timeout:
        raise StoreError(f"another process has held {lock.lock_file} for {CREATION_SECONDS} s: end it") from None
    except OSError:
        if not database.is_file():
            raise
        yield  # a folder that takes no files: nobody makes a database in it
        return
    try:
        yield
    finally:
        lock.release()


def open_client(uri: str) -> Any:
    """MLflow's client; the caller holds `creation_locked`. Fails soon where MLflow is missing or its database is
    damaged or locked.
    """
    prepare_environment()
    try:
        import mlflow  # its import sets its logger's level
    except ImportError as error:
        raise StoreError(f"MLflow cannot be imported ({error}): install it to mirror results there") from error
    logging.getLogger("mlflow").setLevel(logging.CRITICAL + 1)
    database = database_of(uri)
    if database is not None and database.exists():
        # MLflow would try a damaged or locked database again for a hundred seconds; SQLite says it at once.
        with closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("ROLLBACK")
        settle(database)
    return mlflow.MlflowClient(tracking_uri=uri)


def settle(database: Path) -> int:
    """Let a database whose folder was copied or moved say that its files are beside it, where they are now.

    MLflow keeps absolute addresses: what a copied folder wrote would go into the folder that it was copied from.
    Only experiments of this program are looked at, or without runs, and only files that lay beside their database.

    Returns:
        How many addresses were another folder's.
    """
    here = database.parent / FILES
    ours = (
        "experiment_id NOT IN (SELECT experiment_id FROM runs) OR experiment_id IN (SELECT runs.experiment_id"
        " FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid WHERE tags.key LIKE 'posenc.%')"
    )
    columns = (("experiments", "experiment_id", "artifact_location"), ("runs", "run_uuid", "artifact_uri"))
    moved = []
    with closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables >= {"experiments", "runs", "tags"}:
            return 0
        for table, key, column in columns:
            query = f"SELECT {key}, {column} FROM {table} WHERE {ours}"
            for which, place in connection.execute(query).fetchall():
                match = re.fullmatch(rf"(file://.*/{FILES})((?:/\d+)?(?:/[0-9a-f]{{32}}/artifacts)?)", place or "")
                if match and not _same(Path(unquote(urlsplit(match[1]).path)), here):
                    moved.append(
                        (f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (here.as_uri() + match[2], which))
                    )
        if moved:
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in moved:
                connection.execute(statement, values)
            connection.execute("COMMIT")
    return len(moved)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one folder, under whatever names."""
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False
