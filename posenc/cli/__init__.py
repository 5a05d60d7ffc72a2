"""The command line."""

from posenc.cli.commands import main, run

__all__ = ["main", "run"]
