"""One cell, from its configuration to its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from traceback import format_exc

import torch

from posenc.api import registry
from posenc.api.blame import blamed
from posenc.attention.softmax import flex_options
from posenc.common.errors import DataError, PosencError, StorageError
from posenc.common.files import write_atomically
from posenc.objectives.work import of_run
from posenc.plan.cell import Cell
from posenc.plan.plugin_code import code_of
from posenc.properties.facts import facts
from posenc.records import provenance
from posenc.records.record import DATA, MACHINE, SCHEMA, Record
from posenc.records.store import Store
from posenc.training import card, checkpoint, kept
from posenc.training.cell_terms import CellTerms, StoppedError, TimedOutError
from posenc.training.group import Group
from posenc.training.loop import Loop
from posenc.training.runtime import without_subnormals


def train(
    cell: Cell,
    terms: CellTerms,
    stopped: Callable[[], bool] = lambda: False,
    group: Group = Group(),  # noqa: B008
) -> Record | None:
    """Run one cell and write its record. Whatever goes wrong in it is a failed record, with cause and traceback.

    Args:
        stopped: asked after every step.
        group: the processes that train it together; all but the first return None.

    Raises:
        StoppedError: it was asked to stop; there is no record, and a checkpoint to go on from.
        StorageError: nothing can be written any more; there is no record, and the checkpoint before is whole.
    """
    if not group.first:
        group.decide(0)
        return _train(cell, terms, stopped, group)
    store = Store(terms.store)
    with store.cell_locked(cell.id, stopped) as held:
        if not held:
            raise StoppedError
        group.decide(0)  # the others wait here until the cell's files are ours
        ended = store.read_record(cell.id)  # by a worker of a driver that was killed, while we waited
        return ended or _train(cell, terms, stopped, group)


def _train(cell: Cell, terms: CellTerms, stopped: Callable[[], bool], group: Group) -> Record | None:
    started, clock = datetime.now(UTC), time.perf_counter()
    device, store = cell.settings.runtime.device, Store(terms.store)
    record = _frame(cell, terms.suite)
    provenance.reset_peak_memory(device)
    try:
        record["hardware"] = provenance.hardware(device)
        registry.require_unchanged(cell.config["encoding"])
        with without_subnormals():
            loop = Loop(cell, terms, stopped, group)
            loop.run()
        if not group.first:
            return None
        record |= _finished(cell, loop, device)
        record["items"] = store.write_items(cell.id, loop.items)
        if cell.id in terms.keep:
            checkpoint.save_weights(store.weights_path(cell.id), loop.chosen.state)
            if terms.for_owner:
                tokens = getattr(loop.objective, "tokens", None)  # bytes have none
                kept.write(store, cell, loop.chosen.state, loop.chosen.step, tokens)
    except (StoppedError, StorageError, KeyboardInterrupt):
        raise
    except TimedOutError as error:
        record |= {"status": "timed_out", "reason": str(error), "cause": MACHINE}
    except Exception as error:  # one cell's failure never stops the others
        reason = str(error) if isinstance(error, PosencError) else blamed(error) or f"{type(error).__name__}: {error}"
        record |= {
            "status": "failed",
            "reason": reason.strip() or type(error).__name__,
            "cause": _cause(error),
            "traceback": format_exc(),
        }
    seconds = round(time.perf_counter() - clock, 3)
    times = {"started": started.isoformat(timespec="seconds"), "ended": datetime.now(UTC).isoformat(timespec="seconds")}
    record["times"] = {**times, "seconds": seconds, **record.get("times", {})}
    if group.size > 1 and record["status"] == "failed" and store.read_record(cell.id) is not None:
        return record  # another process of the group failed first: its record has the cause, ours the consequence
    store.write_record(record)
    if record["status"] == "done" and cell.id in terms.keep and terms.for_owner:
        folder = store.cell_folder(cell.id)
        write_atomically(folder / kept.CARD, card.written(kept.read(folder), record))
    if record["status"] == "done":
        checkpoint.remove(loop.path)  # only now: a process killed before it goes on from there
    return record


def _cause(error: Exception) -> str | None:
    """As a record has it."""
    if isinstance(error, DataError):
        return DATA
    return MACHINE if isinstance(error, MemoryError | torch.OutOfMemoryError) else None


def not_run(
    cell: Cell, suite: str, store: Store, status: str, reason: str, traceback: str | None = None,
    cause: str | None = None,
) -> Record:  # fmt: skip
    """Write the record of a cell that did not come to its own: not possible, its worker dead, out of time.

    Args:
        cause: as a record has it.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    times = {"started": now, "ended": now, "seconds": 0.0}
    record = {**_frame(cell, suite), "status": status, "reason": reason, "cause": cause, "traceback": traceback}
    record["times"] = times
    store.write_record(record)
    return record


def _frame(cell: Cell, suite: str) -> Record:
    return {
        "schema": SCHEMA,
        "id": cell.id,
        "name": cell.name,
        "suite": suite,
        "status": "done",
        "reason": None,
        "cause": None,
        "traceback": None,
        "config": cell.config,
        "scores": [],
        "backend": cell.backend,
        "code": provenance.code(),
        "plugins": code_of(cell.config),
        "versions": provenance.versions(),
    }


def _finished(cell: Cell, loop: Loop, device: str) -> Record:
    work = of_run(loop.objective, cell.settings)
    return {
        "metric": asdict(loop.objective.metrics[0]),
        "choice": loop.objective.choice.name,
        "metrics": [asdict(metric) for metric in loop.objective.metrics],
        "scores": loop.scores,
        "stages": loop.stages,
        "remarks": loop.remarks,
        "baselines": loop.objective.baselines(),
        "best_step": loop.chosen.step,
        "parameters": loop.parameters,
        "encodings": facts(cell.settings.encoding_name, cell.settings.backbone.stacks(cell.settings.max_length)[-1]),
        "flops_per_token": work.flops(cell.settings) / work.tokens if work.tokens else None,
        "padding": work.padding,
        "tokens_seen": loop.seen,
        "tokens_per_second": loop.seen / loop.training_seconds if loop.seen else None,
        "data": loop.objective.data,
        "checkpoint": {"digest": checkpoint.digest(loop.chosen.state)},
        "peak_memory_bytes": provenance.peak_memory(device),
        **({"kernel_options": options} if (options := flex_options.taken()) else {}),
        "times": {
            "training_seconds": round(loop.training_seconds, 3),
            "evaluation_seconds": round(loop.evaluation_seconds, 3),
            "compile_seconds": round(loop.compile_seconds, 3),
        },
    }
