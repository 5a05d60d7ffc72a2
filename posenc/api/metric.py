"""What a score is: its name, which way is better, how it is made from the items of a test, and which test fits it."""

from __future__ import annotations

from dataclasses import dataclass

OVER = ("", "mean", "exp_mean", "f1", "matthews", "pearson", "spearman", "bleu")
"""How a metric may be made from items: see Metric."""


@dataclass(frozen=True)
class Metric:
    """A score of a split, and how the report tells its sampling error.

    Attributes:
        name: as records and tasks have it. title: as people read it.
        better: "lower", "higher", or "neither" of what describes a model and is no merit.
        over: how it is made from arrays over the items (`items` names them, in `Scored.each`, each (N,)):
            "mean": the sum of the first over the sum of the second; "exp_mean": e to the power of that;
            "f1" and "matthews": of the class answered and the true one, 1 being the class that F1 is of;
            "pearson" and "spearman": of the score answered and the true one;
            "bleu": of translation and reference, over the whole corpus;
            "": it is not made from items, and has no interval over them.
        test: "mcnemar" where the first of `items` says of each item whether it was answered rightly (1, 0, or a half
            for a tie) and the second is 1: two models are then also compared by the items that one alone has right.
            "" where the interval over the items, and the paired t-test over the seeds, are all that fits.
        running: items follow each other in one text, so that neighbours are alike: they are resampled in blocks.
    """

    name: str
    title: str
    better: str
    over: str = ""
    items: tuple[str, ...] = ()
    test: str = ""
    running: bool = False

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher", "neither"):
            raise ValueError(f"metric {self.name!r}: better = {self.better!r}: must be 'lower', 'higher' or 'neither'")
        if self.over not in OVER:
            raise ValueError(f"metric {self.name!r}: over = {self.over!r}: must be one of {', '.join(map(repr, OVER))}")
        if len(self.items) != (2 if self.over else 0):
            raise ValueError(f"metric {self.name!r}: items = {self.items}: must name two arrays where `over` is given")
        if self.test not in ("", "mcnemar") or (self.test and self.over != "mean"):
            raise ValueError(f"metric {self.name!r}: test = {self.test!r}: must be '', or 'mcnemar' of a mean")

    def beats(self, value: float, other: float) -> bool:
        """Whether one score is better than another."""
        if self.better == "neither":
            return False
        return value < other if self.better == "lower" else value > other


def mean(name: str, title: str, better: str, weight: str = "weight", test: str = "") -> Metric:
    """A metric that is a mean over targets: `Scored.each` has under its name the sum over each item's targets."""
    return Metric(name, title, better, "mean", (name, weight), test)
