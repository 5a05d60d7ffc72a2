"""What lm-evaluation-harness finds of a model: its own tasks, as it defines them, on rows that lie here.

A row is the name of one of the harness's definitions (its file under `lm_eval/tasks`, without the ending) and a
document in the form that this definition reads. Prompts, choices, shots and metrics are the harness's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import lm_eval.tasks
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from posenc.common.errors import DataError

Sample = dict[str, Any]
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
"""How a definition calls the splits that it reads; here all rows are its test. Shots that it has are written in it."""


def evaluate(model: LM, tasks: Sequence[str], include: Path | None = None, **more: Any) -> dict[str, Any]:
    """What the harness finds of a model: `simple_evaluate`, offline, of the tasks in a folder of YAML files.

    Args:
        tasks: their names. include: the folder; None for the harness's own tasks, which fetch their data.
        more: of `simple_evaluate`, such as `limit` or `num_fewshot`. bootstrap_iters is 0 where it does not say.
    """
    manager = TaskManager(include_path=None if include is None else str(include), include_defaults=include is None)
    with _no_commit():
        found: dict[str, Any] = simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, **{"bootstrap_iters": 0, **more}
        )
    return found


def samples(model: LM, rows: Sequence[tuple[str, str]]) -> list[Sample]:
    """What the harness finds of each row (definition, document as JSON), in their order.

    A sample has the harness's metrics by their names, and in `resps` what the model said of each choice.

    Raises:
        DataError: the harness has no such definition.
    """
    by_task: dict[str, list[int]] = {}
    for index, (task, _) in enumerate(rows):
        by_task.setdefault(task, []).append(index)
    names = {task: f"posenc_{number}" for number, task in enumerate(by_task)}
    with TemporaryDirectory() as made, _quiet():
        folder = Path(made)
        for task, places in by_task.items():
            file = folder / f"{names[task]}.jsonl"
            file.write_text("".join(f"{rows[place][1]}\n" for place in places), encoding="utf-8")
            (folder / f"{names[task]}.yaml").write_text(_definition(task, names[task], file), encoding="utf-8")
        found = evaluate(model, list(names.values()), include=folder, log_samples=True)["samples"]
    ordered: list[Sample] = [{} for _ in rows]
    for task, places in by_task.items():
        for sample in found[names[task]]:
            ordered[places[sample["doc_id"]]] = sample
    return ordered


def _definition(task: str, name: str, file: Path) -> str:
    """The harness's definition with the data exchanged, as YAML (which JSON is)."""
    path = Path(lm_eval.tasks.__file__).parent / f"{task}.yaml"
    if not path.is_file():
        raise DataError(f"lm-evaluation-harness has no definition {task!r}")
    own = {
        "include": str(path), "task": name, "dataset_path": "json", "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(file.parent)},
        **dict.fromkeys(SPLITS), "test_split": "test",
    }  # fmt: skip
    return json.dumps(own)


@contextmanager
def _no_commit() -> Iterator[None]:
    """The harness asks git for the commit of wherever it runs, which is none of the model's."""
    with patch("lm_eval.evaluator.get_git_commit_hash", return_value=None):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither the harness nor the library of data sets draws bars or tells what it does: a cell's output is its own."""
    from datasets.utils import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    logger, drawn = logging.getLogger("lm_eval"), is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        with patch("lm_eval.api.task.tqdm", lambda given, **more: given):
            yield
    finally:
        logger.setLevel(level)
        if drawn:
            enable_progress_bars()
