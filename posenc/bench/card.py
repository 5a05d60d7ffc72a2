"""An encoding's card: what it is, what was measured of it, how its scores fall with distance, what a step costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from rich.text import Text

from posenc.api.blocks import Block, Facts, Figure, Note, Paragraph, Sources, Table
from posenc.bench import run
from posenc.common.colours import PALETTE
from posenc.common.errors import ConfigError, PosencError
from posenc.common.terminal import Terminal
from posenc.common.text import as_json
from posenc.plan import catalogue
from posenc.plan.table import HEAD, cells
from posenc.properties import check, facts
from posenc.properties.check import Finding, passed
from posenc.properties.decay import decay
from posenc.properties.subject import LENGTH, Subject
from posenc.report.figures.canvas import canvas, finish, svg_of
from posenc.report.figures.style import STYLE
from posenc.report.html import Drawn, Html, page

STANDARD_OUTPUT = Path("-")
MARKS = {True: "passed", False: "FAILED", None: "does not apply"}


@dataclass(frozen=True)
class Card:
    """One encoding as `posenc check` saw it.

    Attributes:
        facts: of each of its parts. decay: the score of equal contents by distance, less that at 0.
        cost: a training step over that of `none`: median, low and high of 95 %, and rounds; None where not timed.
    """

    encoding: str
    facts: list[dict[str, Any]]
    findings: Sequence[Finding]
    decay: list[float] | None
    cost: dict[str, Any] | None

    @property
    def passed(self) -> bool:
        return passed(self.findings)

    def data(self) -> str:
        """All of it, as JSON."""
        return as_json({**asdict(self), "passed": self.passed}) + "\n"

    def page(self) -> str:
        """All of it as one HTML file."""
        verdict = "does what it declares"
        if failed := [finding.name for finding in self.findings if finding.passed is False]:
            verdict = f"does not do what it declares: {', '.join(failed)}"
        html, head = _Html(lambda figure: figure.name), (Paragraph(verdict, look="headline"),)
        parts: dict[str, tuple[str, list[Block]]] = {
            "what": ("What it is", self._what()),
            "decay": ("Scores by distance", self._decay()),
            "measured": ("What was measured", self._measured()),
        }
        drawn = [Drawn(name, title, title, html.blocks(blocks)) for name, (title, blocks) in parts.items()]
        return page(self.encoding, html.blocks(head), drawn)

    def _what(self) -> list[Block]:
        blocks: list[Block] = []
        for fact in self.facts:
            texts = dict(zip(HEAD, cells(fact, self._cost()), strict=True))
            pairs = [("title", str(fact["title"])), ("package", str(fact["package"]))]
            pairs += [(name.replace("`", ""), text or "not timed") for name, text in texts.items()]
            blocks.append(Facts(tuple(pairs)))
        return blocks

    def write(self, data: Path | None, page: Path | None) -> None:
        """As JSON, as a page, or not where no file is named; as JSON on standard output where that is `-`."""
        for file, text in ((data, self.data), (page, self.page)):
            if file == STANDARD_OUTPUT:
                print(text(), end="")
            elif file is not None:
                file.write_text(text(), encoding="utf-8")

    def lines(self) -> list[str]:
        """What the findings do not say, for a terminal."""
        told = []
        for fact in self.facts:
            told += [f"{fact['encoding']}: {fact['formula']} ({fact['paper']})"]
            told += [f"learnt: {fact['parameters']:,} numbers; in linear attention: {fact['linear']}"]
        if self.decay is not None:
            at = [n for n in (1, 2, 4, 8, 16, 32, 64) if n < len(self.decay)]
            told.append("score by distance: " + ", ".join(f"{n}: {self.decay[n]:+.2f}" for n in at))
        return told + ([f"a step over none: {self._cost()}"] if self.cost else [])

    def _cost(self) -> str:
        if self.cost is None:
            return ""
        return "{median:.2f} [{low:.2f}, {high:.2f}] on {machine}".format(**self.cost)

    def _measured(self) -> list[Block]:
        rows = []
        for finding in self.findings:
            told = finding.measured if finding.passed is not None else finding.why
            if finding.passed is False and finding.why:
                told = f"{finding.why}; {told}" if told else finding.why
            rows.append((finding.name, MARKS[finding.passed], finding.what, finding.declared, told))
        return [Table(("property", "", "what", "declared", "measured"), tuple(rows))]

    def _decay(self) -> list[Block]:
        if self.decay is None:
            return [Paragraph("Position does not enter by scores of one axis in softmax attention: there is no curve.")]
        frame = pd.DataFrame({"distance": range(len(self.decay)), "score": self.decay})
        with mpl.rc_context(STYLE):
            figure, axes = canvas([])
            axes.plot(frame["distance"], frame["score"], color=PALETTE[0][0])
            finish(axes, "tokens between query and key", "score less that at distance 0")
            svg = svg_of(figure)
        drawn = Figure("decay", "The score of a query and a key of the same content", "a line", svg, frame)
        return [drawn, Note("The mean of 64 contents and all heads of the first layer, query behind key.")]


class _Html(Html):
    """One file alone: no figure has files of its own."""

    def _sources(self, figure: Figure) -> Any:
        return Sources(())


def measure(
    encoding: str, lengths: Sequence[int] | None, suite: str | None, rounds: int, *, silent: bool = False
) -> Card:
    """What `posenc check` does: measures, tells it on the terminal unless `silent`, and gives the card.

    Args:
        lengths, suite: where leaks are looked for too; those that the suite scores. rounds: as `make` has it.
    """
    for length in lengths or ():
        if not 2 <= length <= check.AFFORDABLE:
            raise ConfigError(f"--lengths {length}: must be from 2 to {check.AFFORDABLE:,} tokens")
    more = [*(lengths or []), *(catalogue.lengths_scored(suite, check.AFFORDABLE) if suite else [])]
    findings = check.measure(encoding, lengths=[*check.default_lengths(), *more])
    console = Terminal(quiet=silent)
    catalogue.print_findings(encoding, findings, console)
    card = make(encoding, findings, rounds)
    for line in card.lines():
        console.print(Text(line))
    return card


def make(encoding: str, findings: Sequence[Finding], rounds: int) -> Card:
    """The card of an encoding whose findings are at hand.

    Args:
        rounds: how often a step of it and of `none` is timed, in turns; 0 for not at all.
    """
    try:
        found = facts.facts(encoding)
        curve = decay(Subject(encoding, 0, LENGTH, ()))
    except Exception:
        if passed(findings):
            raise
        found, curve = [], None  # it fails where it is made or asked: the findings say how
    return Card(encoding, found, findings, curve, _timed(encoding, rounds) if rounds and passed(findings) else None)


def _timed(encoding: str, rounds: int) -> dict[str, Any] | None:
    try:
        options = run.Options(encodings=["none", encoding], attentions=("softmax",), rounds=rounds, peers=False,
                              memory=False)  # fmt: skip
        rows = run.measure(options)
    except PosencError:
        return None
    mine = [row for row in rows if row["encoding"] == encoding and row["pass"] == "step" and row["ratio_to_none"]]
    if not mine:
        return None
    row = mine[0]
    machine = f"{row['hardware']['cpu']}, {row['rows']} x {row['length']} tokens, {rounds} rounds"
    return {"median": row["ratio_to_none"], "low": row["ratio_low"], "high": row["ratio_high"], "machine": machine}
