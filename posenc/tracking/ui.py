"""MLflow's pages on this machine: a server of our own, announced once it answers."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from types import FrameType

from posenc.common.errors import ConfigError, StoreError
from posenc.common.text import masked
from posenc.tracking import pages
from posenc.tracking.place import artifacts_of, creation_locked, database_of, prepare_environment, settle

MARK = "X-Posenc-Server"
POLL_SECONDS = 0.2
STOP_SECONDS = 20.0


def ui_command(uri: str, host: str = "127.0.0.1", port: int = 5000, mark: str = "") -> list[str]:
    """The command that serves MLflow's pages. Run it with this process's environment.

    Args:
        mark: what each of its answers carries, by which the server is known.

    Raises:
        ConfigError: the URI is a server's already.
    """
    database_of(uri)
    if re.match(r"https?:|databricks", uri):
        raise ConfigError(f"MLFLOW_TRACKING_URI is a server already: open {masked(uri)} in a browser")
    prepare_environment()
    command = [sys.executable, "-m", "mlflow", "server"]
    if artifacts := artifacts_of(uri):
        command += ["--backend-store-uri", uri, "--default-artifact-root", artifacts]
    else:  # it may hold a password, and every user of the machine sees a command
        os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
    if mark:
        # No line for each request: the addresses are to stay on the screen.
        command += ["--uvicorn-opts", f"--header {MARK}:{mark} --no-access-log"]
    return [*command, "--host", host, "--port", str(port), "--workers", "1"]


def serve(uri: str, host: str, port: int, say: Callable[[str], object], browse: bool = False) -> int:
    """Serve MLflow's pages until Ctrl-C, or SIGTERM, ends it; the exit status, 0 for those two.

    The address is said once the server that was started here answers there, not another that had the port; then the
    page of each suite, the one that ran last first.

    Args:
        browse: open the first of those pages in the user's browser.

    Raises:
        ConfigError: the address is in use, or cannot be listened on. StoreError: the server ended by itself.
    """
    mark = secrets.token_hex(16)
    port = _free(host, port)
    command = ui_command(uri, host, port, mark)
    database = database_of(uri)
    if database is not None:
        with creation_locked(uri):
            settle(database)
    before = signal.signal(signal.SIGTERM, _interrupt)
    server = subprocess.Popen(command)
    try:
        address = f"http://{_shown(host)}:{port}"
        while not _answers(host, port, mark):
            if server.poll() is not None:
                raise StoreError(f"MLflow's server at {address} ended with status {server.returncode} at its start")
            time.sleep(POLL_SECONDS)
        say(f"{address} shows {masked(uri)}; Ctrl-C ends it")
        found = _suites(host, port)
        for name, page in found:
            say(f"{masked(name)}: {address}/{page}")
        sys.stdout.flush()
        if browse:
            pages.show(f"http://{_near(host)}:{port}/{found[0][1] if found else ''}")
        raise StoreError(f"MLflow's server at {address} ended by itself, with status {server.wait()}")
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free(host: str, port: int) -> int:
    """The port, which must be free; another that is, for 0.

    Raises:
        ConfigError: it is in use, or the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            if os.name == "posix":  # as the server will: else a port just left would seem in use
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return int(trial.getsockname()[1])
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--port {port}: {_shown(host)}:{port} cannot be listened on ({why}); give another") from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _near(host: str) -> str:
    """Where this machine itself reaches what listens there."""
    return _shown({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))


def _suites(host: str, port: int) -> list[tuple[str, str]]:
    """The suites and their pages; none where the server does not tell them: its own front page has them too."""
    try:
        return pages.suites(f"http://{_near(host)}:{port}")
    except (OSError, HTTPException, ValueError, KeyError):
        return []


def _answers(host: str, port: int, mark: str) -> bool:
    """Whether the server with this mark answers: any answer of its own will do."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{_near(host)}:{port}/health", timeout=5) as answer:
            return bool(answer.headers.get(MARK) == mark)
    except urllib.error.HTTPError as error:
        return bool(error.headers.get(MARK) == mark)
    except (OSError, HTTPException):
        return False
