"""A plan's cells and what they cost, for people (a table in which the seeds of a cell are one row) and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from posenc.backbone import cost
from posenc.common.errors import PosencError
from posenc.common.terminal import fitted, natural_width, not_shown, of_width
from posenc.common.text import duration
from posenc.plan.cell import Cell
from posenc.plan.cost import NOT_AT_HAND, Costs, failure
from posenc.plan.plan import Plan
from posenc.plan.selection import ranges

DEFAULT_SPEED = {"cpu": 0.02, "cuda": 100.0}
"""Round figures: TFLOP/s that small models reach in training on one core, and large ones in bf16 on a GPU."""
COLUMNS = ("cell", "seeds", "backend", "parameters", "positional", "tokens", "padding", "FLOPs", "time")
SPARE = ("padding", "positional", "backend", "parameters", "tokens")
"""Columns that a narrow terminal does not show, the first to go first."""
NAME_WIDTH = 36
"""A longer name is folded, so that it drives out no column."""


@dataclass(frozen=True)
class Planned:
    """A cell of a plan and what it costs; the figures are None where it cannot run.

    Attributes:
        parameters, positional: all, and those of the encoding. tokens, padding, flops: of its training.
        seconds: `flops` at `tflops` TFLOP/s. estimate: what `tokens` and `flops` are taken from, where they are no
            count. why_not: why it cannot run. parent: the id of the cell that it starts from.
    """

    id: str
    name: str
    task: str
    attention: str
    encoding: str
    length: int
    seed: int
    parent: str | None
    backend: str | None = None
    why_not: str | None = None
    parameters: int | None = None
    positional: int | None = None
    tokens: float | None = None
    padding: float | None = None
    flops: float | None = None
    seconds: float | None = None
    tflops: float | None = None
    estimate: str = ""

    @property
    def without_seed(self) -> str:
        return self.name.removesuffix(f"/s{self.seed}")


def planned(plan: Plan, speed: float | None, folder: Path | None = None) -> list[Planned]:
    """What each cell costs.

    Args:
        speed: TFLOP/s that training reaches. folder: where official data lie.
    """
    costs = Costs(folder)
    return [_planned(cell, costs, speed) for cell in plan.cells]


def _planned(cell: Cell, costs: Costs, speed: float | None) -> Planned:
    settings = cell.settings
    place: dict[str, Any] = {
        "id": cell.id,
        "name": cell.name,
        "task": settings.task,
        "attention": settings.backbone.attention,
        "encoding": settings.encoding_name,
        "length": settings.length,
        "seed": settings.seed,
        "parent": cell.parent,
    }
    if cell.why_not:
        return Planned(**place, why_not=cell.why_not)
    try:
        parameters = cost.parameters(settings.backbone, settings.encoding_name, settings.max_length)
        work = costs.work(cell)
        flops = 3 * work.flops(settings)
    except PosencError as error:
        return Planned(**place, why_not=failure(error))
    device = "cuda" if settings.scale == "paper" else settings.runtime.device  # nobody trains those on a CPU
    rate = speed or DEFAULT_SPEED[device]
    return Planned(
        **place,
        backend=cell.backend,
        parameters=parameters["total"],
        positional=parameters["positional"],
        tokens=work.tokens,
        padding=work.padding,
        flops=flops,
        seconds=flops / rate / 1e12,
        tflops=rate,
        estimate=work.estimate,
    )


def not_at_hand(plan: Plan) -> list[str]:
    """The sources whose data are not there."""
    return sorted({cell.settings.data.source for cell in plan.cells if cell.settings.data.digest == NOT_AT_HAND})


def data(plan: Plan, cells: Sequence[Planned]) -> dict[str, Any]:
    """A plan for programs."""
    return {
        "suite": plan.suite.name,
        "scale": plan.suite.scale,
        "cells": [asdict(cell) for cell in cells],
        "flops": sum(cell.flops or 0.0 for cell in cells),
        "seconds": sum(cell.seconds or 0.0 for cell in cells),
        "not_at_hand": not_at_hand(plan),
    }


def print_plan(plan: Plan, cells: Sequence[Planned], speed: float | None) -> None:
    """A row for each cell whatever its seed, then what cannot run and why, and totals."""
    console = of_width(160)
    groups = _groups(cells)
    possible = [group for group in groups if not group[0].why_not]
    names = {cell.id: cell.without_seed for cell in cells}
    title = f"{plan.suite.name} at scale {plan.suite.scale}: {len(cells)} cells"

    def table_of(columns: Sequence[str], name_width: int = NAME_WIDTH) -> Table:
        table = Table(title=title)
        for column in columns:
            if column == "cell":
                table.add_column(column, overflow="fold", max_width=name_width)
            else:
                text = column in ("seeds", "backend")
                table.add_column(column, justify="left" if text else "right", overflow="fold")
        for group in possible:
            row = _row(group, names)
            table.add_row(*(row[column] for column in columns))
        return table

    table, left_out = fitted(table_of, COLUMNS, SPARE, console)
    room = console.width - natural_width(table, console)
    shown = [column for column in COLUMNS if column not in left_out]
    console.print(table_of(shown, NAME_WIDTH + max(0, room)) if possible else Text(title))
    for group in groups:
        if why_not := group[0].why_not:
            seeds = ranges(cell.seed for cell in group)
            which = f"{group[0].without_seed}, {'seed' if len(group) == 1 else 'seeds'} {seeds}"
            console.print(Text(f"cannot run: {which}: {why_not}"))
    if any(len(group) > 1 for group in possible):
        console.print(Text("Each row shows what one seed takes; where seeds differ, their mean."))
    if left_out:
        console.print(Text(not_shown(left_out)))
    _print_totals(plan, cells, speed)


def _groups(cells: Sequence[Planned]) -> list[list[Planned]]:
    """Cells that differ by their seeds alone."""
    groups: dict[tuple[str, ...], list[Planned]] = {}
    for cell in cells:
        why_not = (cell.why_not or "").replace(f"/s{cell.seed}", "")  # it may name the parent
        groups.setdefault((cell.without_seed, cell.backend or "", why_not), []).append(cell)
    return list(groups.values())


def _row(group: Sequence[Planned], names: dict[str, str]) -> dict[str, Text]:
    """A row's texts by column."""
    first = group[0]
    about = "~" if any(cell.estimate for cell in group) else ""

    def mean(key: str) -> float:
        return float(sum(getattr(cell, key) for cell in group) / len(group))

    texts = {
        "cell": first.without_seed + (f"\n  after {names[first.parent]}" if first.parent else ""),
        "seeds": ranges(cell.seed for cell in group),
        "backend": first.backend or "",
        "parameters": f"{first.parameters:,}",
        "positional": f"{first.positional:,}",
        "tokens": f"{about}{mean('tokens'):,.0f}",
        "padding": f"{mean('padding'):.1%}",
        "FLOPs": f"{about}{mean('flops'):.2e}",
        "time": f"{about}{duration(mean('seconds'))}",
    }
    return {column: Text(text) for column, text in texts.items()}


def _print_totals(plan: Plan, cells: Sequence[Planned], speed: float | None) -> None:
    console = of_width(160)
    whole = data(plan, cells)
    reached = " or ".join(f"{rate:g}" for rate in sorted({cell.tflops for cell in cells if cell.tflops}))
    about = "about " if any(cell.estimate for cell in cells) else ""
    text = f"together {about}{whole['flops']:.2e} FLOPs, {duration(whole['seconds'])} one after another"
    text += f" at {reached} TFLOP/s" if reached else ""
    text += "" if speed or not reached else " (0.02: one core; 100: a GPU in bf16; --speed sets it)"
    console.print(Text(text))
    for estimate in dict.fromkeys(f"{cell.task}: {cell.estimate}" for cell in cells if cell.estimate):
        console.print(Text(f"~ an estimate, {estimate}"))
    for source in whole["not_at_hand"]:
        console.print(Text(f"data {source!r} is not at hand: running needs --data DIR"))
