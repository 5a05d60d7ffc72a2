"""What each cell of a plan will read, and how much work that is: as its record will have it, or an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from posenc.api.objective import Objective
from posenc.common.errors import DataError, PosencError
from posenc.common.files import digest
from posenc.config.objectives import objective
from posenc.config.settings import Settings
from posenc.data.cache import NotMadeError, nothing_made
from posenc.data.corpus import Corpus, Row
from posenc.data.tokens import Kind, trial
from posenc.objectives import factory
from posenc.objectives.work import ROWS_A_PLAN, Work, fixed, of_run, of_sample
from posenc.plan.cell import Cell

NOT_AT_HAND = "not at hand"
"""What stands for the digest of data that are not there."""
SMALL = 50_000
"""Training rows that a plan tokenises, for the run to find them so; of more it looks at a sample."""
SAMPLE = 4_000


@dataclass
class Costs:
    """The work of cells; what several have in common is looked up once.

    Attributes:
        folder: where official data lie.
    """

    folder: Path | None
    _works: dict[str, Work] = field(default_factory=dict)
    _objectives: dict[str, Objective | str] = field(default_factory=dict)

    def work(self, cell: Cell) -> Work:
        """What a cell's training reads.

        Raises:
            PosencError: its data cannot be used as it asks.
        """
        settings = cell.settings
        kind = objective(settings.objective)
        if not (kind.packs or kind.varies):
            return fixed(settings)
        shared = [cell.config[key] for key in ("data", "objective", "length", "training", "evaluation")]
        shared += [settings.backbone.vocabulary, settings.backbone.form, settings.backbone.outputs]
        key = digest([shared, settings.seed])
        if key not in self._works:
            self._works[key] = self._work(cell, digest(shared))
        return self._works[key]

    def _work(self, cell: Cell, key: str) -> Work:
        settings, beside = cell.settings, Path(cell.folder)
        if settings.data.digest == NOT_AT_HAND:
            return fixed(
                settings, "its data are not at hand: every row counts at its full length, the most it can have"
            )
        if key not in self._objectives:
            self._objectives[key] = _objective(settings, self.folder, beside)
        found = self._objectives[key]
        if not isinstance(found, str):
            return of_run(found, settings, ROWS_A_PLAN)
        corpus, _ = factory.data(settings.data, settings.objective, self.folder, beside)
        assert isinstance(corpus, Corpus)
        sizes = _sampled(corpus, settings, self.folder).sizes
        assert sizes is not None
        return of_sample(sizes, settings, found)


def _objective(settings: Settings, folder: Path | None, beside: Path) -> Objective | str:
    """A cell's objective where its data are tokenised, or soon can be; else why only a sample of them is looked at."""
    try:
        with nothing_made():
            return factory.make(settings, folder, beside)
    except NotMadeError:
        corpus, _ = factory.data(settings.data, settings.objective, folder, beside)
        assert isinstance(corpus, Corpus)
        if len(corpus.rows["train"]) <= SMALL:
            return factory.make(settings, folder, beside)
        return f"{corpus.name} is not tokenised yet: by a sample of its rows"


def _sampled(corpus: Corpus, settings: Settings, folder: Path | None) -> Objective:
    """The objective of some of a corpus' rows, evenly taken, by a tokeniser trained on these."""
    least = max(SAMPLE, 4 * settings.training.batch)
    rows: dict[str, Sequence[Row]] = {}
    for split, given in corpus.rows.items():
        step = max(1, len(given) // (least if split == "train" else 100))
        rows[split] = [given[index] for index in range(0, len(given), step)]
    texts = [str(row[i]) for row in rows["train"] for i, name in enumerate(corpus.fields) if name != "label"]
    source = settings.data
    kind = Kind(source.tokeniser, settings.backbone.vocabulary, source.released, source.revision)
    named = sha256(f"{corpus.digest} every {least}".encode()).hexdigest()
    return factory.of(settings, replace(corpus, rows=rows, digest=named), trial(kind, texts, folder))


def failure(error: PosencError) -> str:
    """What the plan's table says of a cell whose data cannot be used."""
    return f"its data: {error}" if isinstance(error, DataError) else str(error)
