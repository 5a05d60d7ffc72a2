"""`posenc` in processes of their own, forked off one that has torch, MLflow and matplotlib already.

A start costs a fork, not ten seconds of imports on a busy machine. What a process loads, or reads from its environment
while it loads, is for a process that starts cold.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIBRARIES = (
    "posenc.cli", "posenc.running.driver", "posenc.running.local", "posenc.training.cell", "posenc.report.write",
    "posenc.tracking.mirror", "mlflow.store.tracking.sqlalchemy_store", "mlflow.tracking",
)  # fmt: skip
PIECE = 1 << 16


class Process:
    """What tests use of `subprocess.Popen`, of a process that the server forked.

    Args:
        pid: the process, the first of its group.
        outputs: standard output's reading end; standard error's too where it does not go with it.
        ended: says the exit status, once.
    """

    def __init__(self, pid: int, outputs: list[int], ended: socket.socket) -> None:
        self.pid, self.returncode = pid, None
        self._outputs = [open(output, encoding="utf-8", errors="replace") for output in outputs]  # noqa: SIM115
        self.stdout = self._outputs[0]
        self._ended = ended

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("posenc", timeout or 0.0)
            told = self._ended.recv(PIECE)
            self.returncode = int(told) if told else -signal.SIGKILL  # its keeper is gone
            self._ended.close()
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that the process and its children say until the last of them ends."""
        end = None if timeout is None else time.monotonic() + timeout
        said: dict[Any, bytes] = dict.fromkeys(self._outputs, b"")
        left = set(self._outputs)
        while left:
            ready, _, _ = select.select(list(left), [], [], None if end is None else max(0.0, end - time.monotonic()))
            if not ready:
                raise subprocess.TimeoutExpired("posenc", timeout or 0.0, said[self.stdout])
            for output in ready:
                piece = os.read(output.fileno(), PIECE)
                said[output] += piece
                if not piece:
                    left.remove(output)
        self.wait(None if end is None else max(1.0, end - time.monotonic()))
        for output in self._outputs:
            output.close()
        texts = [text.decode("utf-8", "replace") for text in said.values()]
        return texts[0], texts[-1] if len(texts) > 1 else ""


class Server:
    """The process that forks; it ends with the one that started it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=(theirs.fileno(),), start_new_session=True,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def start(
        self, arguments: tuple[str, ...], folder: Path, environment: dict[str, str], *, apart: bool = False
    ) -> Process:
        """`posenc ...` in a process group of its own; `apart`: standard error does not go into standard output."""
        request = {"arguments": arguments, "folder": str(folder), "environment": environment}
        pipes = [os.pipe() for _ in range(2 if apart else 1)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            writing = [write for _, write in pipes]
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno(), *writing])
        for write in writing:
            os.close(write)
        return Process(int(ours.recv(PIECE)), [read for read, _ in pipes], ours)


def _next_command(server: socket.socket) -> dict[str, Any]:
    """In a process of its own, the next command that is asked for; the server itself never returns."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, PIECE, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:  # keeps its child: says who it is, and how it ended
            break
        for descriptor in descriptors:
            os.close(descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may ignore it
    server.close()
    ended, outputs = socket.socket(fileno=descriptors[0]), descriptors[1:]
    started, go = os.pipe()
    child = os.fork()
    if child:
        for descriptor in (*outputs, go):
            os.close(descriptor)
        os.read(started, 1)  # nothing comes: it is closed once the child has its process group
        ended.send(str(child).encode())
        _, status = os.waitpid(child, 0)
        ended.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    ended.close()
    os.setsid()
    os.dup2(outputs[0], 1)
    os.dup2(outputs[-1], 2)
    for descriptor in (*outputs, started, go):
        os.close(descriptor)
    return json.loads(message)


def _serve(descriptor: int) -> dict[str, Any]:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy all that it shares with this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers' ends
    return _next_command(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    command = _serve(int(sys.argv[1]))
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    sys.argv = ["posenc", *command["arguments"]]
    runpy.run_module("posenc", run_name="__main__", alter_sys=True)
