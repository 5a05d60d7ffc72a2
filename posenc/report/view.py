"""What sections ask of the records: each table is made when it is first asked for, and once.

What cannot be read costs itself alone: it is named in `unread`, and the rest is as if it were not there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from posenc.api.blocks import Figure, Link
from posenc.common.errors import StoreError
from posenc.records.record import MEASURED, Record, coordinates, is_number, labels, variants
from posenc.records.store import Store
from posenc.report import facts
from posenc.report.facts import Dataset
from posenc.report.figures.canvas import Picture
from posenc.report.figures.style import Look, looks
from posenc.report.places import Key, key_of, slugs
from posenc.report.reading import manifest_of, records_of
from posenc.report.statistics import floors, ledger, resampling, tables, tuning
from posenc.report.statistics.equal_cost import ran_alone, timed


class View:
    """The results of a suite.

    Attributes:
        manifest: what was asked for. records: of the cells that ended, but for values that were tried and not taken.
        tried: what was tuned, a row a value. unread: what could not be read or drawn, a line each.
        undrawn: the letters of figures that no font here has.
        suite: name, title, description, baseline, scale: texts, "" where there is none.
    """

    def __init__(self, store: Store, output: Path | None = None) -> None:
        """Raises StoreError where there are no results, or the manifest is damaged.

        Args:
            output: where the pages will lie; links to records need it.
        """
        self.store, self._output = store, output
        self.unread: list[str] = []
        self.undrawn: list[str] = []
        whole = manifest_of(store)
        self.manifest, self.records, self.tried = tuning.choose(whole, records_of(store, whole, self.unread))
        keys = ("name", "title", "description", "baseline", "scale")
        self.suite = {key: str(self.manifest["suite"].get(key) or "") for key in keys}
        self._figures: dict[Picture, Figure] = {}

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row a score, those too of what was measured (MEASURED)."""
        return tables.scores_frame(self.records, self.manifest)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each encoding, group of cells, metric and length: mean, difference from the baseline (`tables`),
        and what it is beside a score without a model (`floors`).
        """
        return self.measured[~self.measured["split"].isin(MEASURED)]

    @cached_property
    def measured(self) -> pd.DataFrame:
        """As `summary`, with what was measured of encodings and models too."""
        whole = tables.summary(self.scores, self.manifest)
        return floors.mark(whole, self.references, self._item_tables.scores)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """A row for each comparison of the suite's claims, where it has any (`statistics.ledger`)."""
        return ledger.ledger(self.manifest, self.records, self.scores, self.summary)

    @cached_property
    def theory(self) -> pd.DataFrame:
        """The scores of what was measured of the encodings themselves, nothing trained."""
        return self.scores[self.scores["split"] == "theory"]

    @cached_property
    def cost(self) -> pd.DataFrame:
        """A row for each encoding and group of cells: means over its finished cells."""
        return tables.cost_table(self.scores[~self.scores["split"].isin(MEASURED)])

    @cached_property
    def items(self) -> pd.DataFrame:
        """A row for each encoding and group: the interval of its difference over the test items."""
        return self._item_tables.differences

    @property
    def positions(self) -> pd.DataFrame:
        """A row for each encoding, group, evaluated length and bin of places in the window: the loss there."""
        return self._item_tables.positions

    @cached_property
    def _item_tables(self) -> resampling.ItemTables:
        return resampling.item_tables(self.store, self.records, self.manifest, self.unread)

    @cached_property
    def alone(self) -> bool:
        """Whether no two cells ran at once, so that their times tell of them."""
        return ran_alone(self.records)

    @cached_property
    def references(self) -> pd.DataFrame:
        """Trivial scores that cells recorded, such as a unigram model's."""
        return tables.references(self.records, self.manifest)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The validation rows of the cells that finished, in the metric that chose the model, at the trained length."""
        by_id, named = variants(self.manifest["cells"]), labels(self.manifest["cells"])
        rows = []
        for record in self.records:
            if record["status"] != "done":
                continue
            metric = _curve_metric(record)
            try:
                curve = self.store.curve(record["id"])
            except StoreError as error:
                self.unread.append(f"{error}: its cell is not among the learning curves")
                continue
            place = {**coordinates(record["config"]), "variant": by_id.get(record["id"], "")}
            place |= {"label": named[record["id"]], "id": record["id"]}
            rows += [
                {**place, "tokens": row["tokens"], "flops_per_token": record.get("flops_per_token"),
                 "value": float(row["value"]),
                 "seconds": row["seconds"] if is_number(row.get("seconds")) else None,
                 **{key: metric.get(key) for key in ("title", "better")}}
                for row in curve
                if row.get("split") == "validation"
                and row.get("metric") == metric.get("name")
                and row.get("length") in (None, place["length"])
                and is_number(row.get("value"))
                and is_number(row.get("tokens"))
            ]  # fmt: skip
        numbers = ("tokens", "flops_per_token", "seconds", "value")
        columns = (*tables.GROUP, "encoding", "label", "id", "seed", *numbers, "title", "better")
        return pd.DataFrame(rows, columns=list(columns))

    @cached_property
    def timed(self) -> pd.DataFrame:
        """The curves with what each of their points cost: in time, or in FLOPs (`equal_cost`)."""
        return timed(self.curves, self.alone)

    @cached_property
    def data(self) -> list[Dataset]:
        """What the cells read."""
        return facts.datasets(self.manifest, self.records)

    @cached_property
    def captions(self) -> dict[Any, str]:
        """By (task, scale) what a table's caption says of its data."""
        return facts.data_labels(self.data)

    @cached_property
    def counts(self) -> str:
        """How many cells ended how."""
        return facts.counts(self.manifest, self.records)

    @cached_property
    def ended(self) -> dict[str, Record]:
        """Records by their cells' ids."""
        return {record["id"]: record for record in self.records}

    @cached_property
    def places(self) -> list[dict[str, Any]]:
        """For each cell its coordinates and variant, and under "cell" itself."""
        by_id = variants(self.manifest["cells"])
        return [
            {**coordinates(cell["config"]), "variant": by_id[cell["id"]], "cell": cell}
            for cell in self.manifest["cells"]
        ]

    @cached_property
    def slugs(self) -> dict[Key, str]:
        """A name for each group of cells that an address can hold."""
        return slugs(self.places)

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each encoding is drawn."""
        return looks(self.encodings)

    @property
    def encodings(self) -> list[str]:
        """The suite's encodings, one a cell."""
        return [cell["config"]["encoding"]["name"] for cell in self.manifest["cells"]]

    @property
    def reported(self) -> bool:
        """Whether a task's card tells what a paper reported."""
        return any((told.get("card") or {}).get("reported") for told in (self.manifest.get("tasks") or {}).values())

    @cached_property
    def curve_pictures(self) -> list[Picture]:
        """Learning curves, one a group of cells."""
        from posenc.report.figures import lines

        return lines.learning_curves(self.curves, self.looks)

    @cached_property
    def decay_pictures(self) -> list[Picture]:
        """Decay by distance, one an encoding that was measured."""
        from posenc.report.figures import lines

        return lines.decay_by_distance(tables.decays(self.records, self.manifest), self.looks)

    def figure(self, picture: Picture) -> Figure:
        """A picture as a block: the same one wherever it stands."""
        if picture not in self._figures:
            anchor = self.anchor(picture.place) if picture.place else ""
            self._figures[picture] = Figure(
                picture.name, picture.title, picture.alt, picture.svg, picture.data, picture.notes, anchor
            )
        return self._figures[picture]

    def anchor(self, place: Mapping[str, Any]) -> str:
        """Where the records of a group of cells are listed; "" for what is no group."""
        slug = self.slugs.get(key_of(place))
        return f"records-{slug}" if slug else ""

    def sources(self, file: str, place: Mapping[str, Any] | None = None) -> tuple[Link, ...]:
        """Links to a file of numbers, and to the records behind it."""
        anchor = self.anchor(place) if place else ""
        return (Link("CSV", file), *([Link("records", f"#{anchor}")] if anchor else []))

    @property
    def cells_folder(self) -> str:
        """The way from the pages to the cells, where they lie among them; else no links can be trusted."""
        folder = self._output.absolute() if self._output else None
        inside = folder is not None and folder.is_relative_to(self.store.folder) and len(self.store.manifest_paths) == 1
        return os.path.relpath(self.store.folder / "cells", folder) if inside else ""


def _curve_metric(record: Record) -> dict[str, Any]:
    """The metric by which validation chose the cell's model."""
    metrics: dict[Any, dict[str, Any]] = {metric["name"]: metric for metric in record.get("metrics") or []}
    return metrics.get(record.get("choice")) or record.get("metric") or {}
