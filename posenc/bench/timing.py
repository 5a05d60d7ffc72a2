"""Times taken in turns, and the intervals of their medians.

Each subject is timed beside its base, one right after the other, and which of the two goes first changes from round
to round: whatever else a machine does meanwhile falls on both. A ratio is of such a pair.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb

Run = Callable[[], object]


@dataclass(frozen=True)
class Interval:
    """A median and a 95 % interval around it."""

    median: float
    low: float
    high: float


def synchroniser(device: str) -> Callable[[], object]:
    """What waits until a device has done all that was asked of it: nothing on a CPU."""
    if device == "cuda":
        import torch

        return torch.cuda.synchronize
    return lambda: None


def interval(values: Sequence[float]) -> Interval:
    """The median and its interval by order statistics (exact, free of any assumption on the distribution).

    From the k-th smallest to the k-th largest value, k the largest for which each side leaves out at most 2.5 %:
    of n values the number below the true median is binomial (n, 1/2). Below 6 values there is no such k: the whole
    range stands in, and covers less than 95 %.
    """
    ordered = sorted(values)
    count, below, k = len(ordered), 0, 0
    while k < count // 2 and (below := below + comb(count, k)) <= 0.025 * 2**count:
        k += 1
    first = max(k - 1, 0)
    return Interval(statistics.median(ordered), ordered[first], ordered[count - 1 - first])


@dataclass(frozen=True)
class Timed:
    """Seconds of a subject, and its ratios to its base; None where it had none."""

    seconds: Interval
    ratio: Interval | None


def in_turns(
    subjects: Mapping[str, Run],
    bases: Mapping[str, str],
    rounds: int,
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timed]:
    """Time every subject in every round, subject after subject.

    Args:
        bases: for each subject the name of the one that it is divided by; its own name where it is a base itself.
        synchronise: waits until a device has done all that was asked of it.
    """

    def timed(name: str) -> float:
        synchronise()
        start = clock()
        subjects[name]()
        synchronise()
        return clock() - start

    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    ratios: dict[str, list[float]] = {name: [] for name in subjects}
    for run in subjects.values():  # twice: what is made at a first call is not timed
        run()
        run()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            gc.collect()
            for name in subjects:
                pair = list(dict.fromkeys((name, bases[name])))
                taken = {each: timed(each) for each in (pair if number % 2 else reversed(pair))}
                seconds[name].append(taken[name])
                ratios[name].append(taken[name] / taken[bases[name]])
    finally:
        if collecting:
            gc.enable()
    return {name: Timed(interval(seconds[name]), interval(ratios[name])) for name in subjects}
