"""An environment of its own, for packages as their users install them; it sees this one's packages, and this posenc."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


class Scratch:
    """An environment in a folder: packages are installed into it, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "bin/python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        where = [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        found = subprocess.run(where, check=True, capture_output=True, text=True)
        own = [sysconfig.get_path("purelib"), str(Path(__file__).resolve().parent.parent)]
        (Path(found.stdout.strip()) / "these.pth").write_text("\n".join(own) + "\n")
        left_out = ("PYTHONPATH", "PYTEST_ADDOPTS", "POSENC_DATA", "MLFLOW_TRACKING_URI")
        self.environment = {key: value for key, value in os.environ.items() if key not in left_out}

    def install(self, *packages: Path) -> None:
        self.run(packages[0], "pip", "install", "--quiet", "--no-deps", *packages)

    def run(self, folder: Path, *arguments: object) -> str:
        """What `python -m` says of these arguments, in a folder."""
        done = subprocess.run(
            [self.python, "-m", *map(str, arguments)], cwd=folder, env=self.environment,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
