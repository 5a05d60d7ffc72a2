"""What each encoding cost, and what differs between cells beside the encoding."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from posenc.api.blocks import Block, Heading, List, Note, Paragraph, Sources, Table, keyed, titled
from posenc.api.sections import ReportSection, Section
from posenc.report import words
from posenc.report.places import group_title
from posenc.report.statistics.tables import GROUP, configuration_differences
from posenc.report.view import View

SAID = (
    "Means over finished cells; memory is the largest. Speeds were taken while training, perhaps beside other cells:"
    " they are no benchmark."
)


class Cost(ReportSection):
    name = "cost"
    order = 80

    def make(self, view: View) -> Section:
        """Costs by group of cells; then whether the comparison was fair."""
        differences = configuration_differences(view.manifest["cells"], view.suite["baseline"])
        blocks: list[Block] = [Paragraph("No cell has finished.")]
        if len(view.cost):
            blocks = [Note(SAID), *titled(_tables(view.cost)), Sources(view.sources("tables/cost.csv"))]
        blocks.append(Heading("Configuration beside the encoding"))
        if len(differences):
            blocks.append(List(tuple(f"{text}: {names}" for text, names in different_configurations(differences))))
        elif view.suite["baseline"]:
            blocks.append(
                Paragraph("No cell's configuration differs from its baseline's in anything but the encoding.")
            )
        else:
            blocks.append(Paragraph("The suite names no baseline to hold configurations against."))
        return Section("Cost", tuple(blocks), files={"cost": view.cost, "configuration": differences})


def _tables(cost: pd.DataFrame) -> Iterable[tuple[str, Table]]:
    """A table of costs for each group of cells."""
    head = ("encoding", "parameters", "of these positional", "FLOPs a token", "tokens seen", "tokens/s", "time a cell",
            "peak memory", "cells")  # fmt: skip
    for values, group in cost.groupby(GROUP, dropna=False, sort=False):
        rows = [
            (
                str(row["label"]),
                words.count(row["parameters"]),
                words.count(row["positional_parameters"]),
                words.short_count(row["flops_per_token"]),
                words.short_count(row["tokens_seen"]),
                words.short_count(row["tokens_per_second"]),
                words.duration(row["seconds"]),
                words.size_in_bytes(row["peak_memory_bytes"]),
                str(row["cells"]),
            )
            for row in group.to_dict("records")
        ]
        fields = ("label", "parameters", "positional_parameters", "flops_per_token", "tokens_seen", "tokens_per_second",
                  "seconds", "peak_memory_bytes", "cells")  # fmt: skip
        keys = [tuple(row[field] for field in fields) for row in group.to_dict("records")]
        yield group_title(dict(zip(GROUP, values, strict=True))), Table(head, tuple(map(keyed, rows, keys)))


def different_configurations(differences: pd.DataFrame) -> list[tuple[str, str]]:
    """What differs beside the encoding, and in which cells."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in differences.to_dict("records"):
        text = f"{row['key']} is {row['value']}, the baseline's {row['baseline_value']}"
        text = text if row["key"] else "no baseline cell to hold it against"
        where = f"{row['encoding']} ({group_title(row)}"
        found.setdefault(text, {}).setdefault(where, []).append(str(row["seed"]))
    return [
        (text, "; ".join(f"{where}, seed {words.listed(seeds)})" for where, seeds in places.items()))
        for text, places in found.items()
    ]
