"""The end of a command whose output nobody reads any more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLOSED_PIPE = 141
"""What a shell says of a program that wrote to a pipe nobody reads any more (128 + SIGPIPE)."""


@contextmanager
def silent_when_closed() -> Iterator[None]:
    """End as usual tools do where nobody reads what is said, `posenc status | head -1`: no word, status 141."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as error:  # rich exits by itself
        if not isinstance(error if isinstance(error, BrokenPipeError) else error.__context__, BrokenPipeError):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # what is still held back would fail at the end of the process
        sys.exit(CLOSED_PIPE)
