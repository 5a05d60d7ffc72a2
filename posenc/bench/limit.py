"""A limit on the time of what cannot be asked to stop: compiling a model."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class OutOfTime(BaseException):
    """Raised where a limit is reached; no Exception, since compilers catch those and go on another way."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """OutOfTime is raised inside once so many seconds have passed; 0: never. In the main thread alone, by an alarm.

    What runs then is left as it is between two steps of Python: one call of a library is not interrupted.
    """
    if not seconds or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
