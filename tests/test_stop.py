"""Ctrl-C before anything trains and after: status 130, and how to go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from runs import options, start, stop, wait_until

from posenc import cli

WAITS = '''
import time
from pathlib import Path
from posenc.api.encoding import Encoding

class Waits(Encoding):
    """Takes its time before it can be said whether it can run."""
    title = "waits"

    def why_not(self, backbone, stack=None):
        Path("asked").touch()
        time.sleep(10_000)
'''


@pytest.mark.parametrize("command", ["plan", "run"])
def test_ctrl_c_while_planning(tmp_path: Path, command: str) -> None:
    (tmp_path / "mine.py").write_text(WAITS)
    arguments = [command, "enwik8", "--encodings", "./mine.py:Waits", "--lengths", "16", *options()]
    process = start(tmp_path, *arguments)
    try:
        wait_until(lambda: (tmp_path / "asked").exists())
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
    finally:
        stop(process)
    assert process.returncode == 130, output
    assert "Aborted" not in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()
    how = output.strip().splitlines()[-1]
    assert how.startswith("posenc: stopped; `posenc run enwik8 " if command == "run" else "posenc: stopped")
    assert how.endswith("` again goes on where it stopped" if command == "run" else "posenc: stopped")


def interrupted(*arguments: object, **more: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_while_reporting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posenc.report
    from posenc.running import driver

    monkeypatch.setattr("sys.argv", ["posenc", "report", "quick", "--results", "a folder"])
    monkeypatch.setattr(posenc.report, "write_report", interrupted)
    (tmp_path / "suite.json").touch()
    done = CliRunner().invoke(cli.main, ["report", str(tmp_path)])
    assert done.exit_code == 130
    assert done.output == "\nposenc: stopped; `posenc report quick --results 'a folder'` makes it again\n"
    monkeypatch.setattr("sys.argv", ["posenc", "run", "quick"])
    monkeypatch.setattr(driver, "write_report", interrupted)
    monkeypatch.setattr(driver, "_run_cells", lambda *given: True)
    arguments = ["run", "quick", "--encodings", "none", "--tasks", "enwik8", "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 130, done.output
    assert done.output.endswith("\nposenc: stopped; `posenc run quick` again goes on where it stopped\n")
