"""Any field of a task can be an axis of a suite, of any type: each makes its cells, which the report tells apart."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import pytest

from posenc.common.errors import ConfigError
from posenc.config.task import CHANGED, Task
from posenc.plan.cell import Cell
from posenc.plan.plan import make
from posenc.plan.selection import Selection, find_suite
from posenc.records.record import variants

HEAD = 'name = "axes"\ntitle = "Axes"\nbaseline = "none"\nseeds = [0]\n'
OTHER: dict[str, list[Any]] = {
    # Of text, lists and tables: two values each; of some, what must be set with them. Numbers and truth are found.
    "start": [],  # the suite glue varies it
    "data.source": ["enwik8", "stdlib"],
    "data.splits": [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1]],
    "data.tokeniser": ["bytes", "bpe"],
    "data.vocabulary_of": ["", "enwik8"],
    "data.released": [],
    "data.revision": ["", "main"],
    "data.files": [{"all": "./a.txt"}, {"all": ["./a.txt", "./b.txt"]}],
    "data.format": [],
    "data.header": [],
    "data.columns": [],
    "data.labels": [],
    "data.options": [],
    "backbone.form": [],
    "backbone.head": [],
    "backbone.outputs": [],
    "backbone.patch": [],
    "backbone.channels": [],
    "backbone.vocabulary": [300, 310],
    "backbone.heads": [2, 4],
    "backbone.convolution": [0, 3],
    "training.stages": [],
    "training.shift": [],
    "training.flip": [],
    "training.packed": [],
    "training.batch": [32, 16],
    "training.betas": [[0.9, 0.999], [0.9, 0.95]],
    "evaluation.length_factors": [[1], [1, 2, 4]],
    "evaluation.metrics": [["bits_per_character"], ["perplexity", "bits_per_character"]],
    "runtime.device": ["cpu", "cuda"],
    "runtime.compile": ["none", "inductor"],
    "runtime.backend": ["reference", "blocks"],
    "runtime.processes": [1, 2],
}
"""[]: refused by name below, with the reason."""
SET = {
    "data.files": {"data.source": "text"},
    "data.tokeniser": {"data.source": "text", "data.files": {"all": "./a.txt"}},
    "backbone.vocabulary": {"data.source": "text", "data.files": {"all": "./a.txt"}, "data.tokeniser": "bpe"},
}
REFUSED = {
    "data.format": ("csv", "of 'table'"),
    "data.header": (False, "of 'table'"),
    "data.columns": ({"text": 1}, "of 'table'"),
    "data.labels": (["a", "b"], "of 'table'"),
    "data.options": ({"a": 1}, "generators have some"),
    "backbone.form": ("encoder", "wants 'decoder'"),
    "backbone.head": ("class", "wants 'tokens'|head class"),
    "backbone.outputs": (3, "head class"),
    "backbone.patch": ([4, 4], "head class or mean"),
    "backbone.channels": (3, "only pixels have channels"),
    "training.shift": (4, "no pixels to move"),
    "training.flip": (True, "no pixels to move"),
    "training.packed": (True, "one length"),
    "training.stages": ([{"length": 32, "batch": 32, "steps": 350}], "has none"),
}
"""What this task cannot have, whatever a suite says: the task refuses it, and the axis does not."""


def fields() -> dict[str, Any]:
    """Every dotted key of a task that may be changed, with its type."""
    found: dict[str, Any] = {}

    def walk(kind: Any, prefix: str) -> None:
        hints = typing.get_type_hints(kind)
        for one in dataclasses.fields(kind):
            if dataclasses.is_dataclass(hints[one.name]):
                walk(hints[one.name], f"{prefix}{one.name}.")
            else:
                found[f"{prefix}{one.name}"] = hints[one.name]

    walk(Task, "")
    return {key: kind for key, kind in found.items() if key.split(".")[0] in CHANGED}


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    return "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def cells(folder: Path, vary: str, more: str = "", fixed: dict[str, Any] | None = None, **choice: Any) -> list[Cell]:
    path = folder / "axes.toml"
    settings = {**({} if '"backbone.attention"' in vary else {"backbone.attention": "softmax"}), **(fixed or {})}
    grid = f'[[grid]]\ntasks = ["enwik8"]\nencodings = ["none"]\nset = {toml(settings)}\nvary = {{ {vary} }}\n'
    path.write_text(HEAD + grid + more)
    return make(find_suite(str(path)), Selection(**choice), need_data=False).cells


def two_values(key: str, kind: Any, task: Task) -> list[Any]:
    if key in OTHER:
        return OTHER[key]
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind)[:2])
    own: Any = task
    for part in key.split("."):
        own = getattr(own, part)
    if isinstance(own, bool):
        return [own, not own]
    if isinstance(own, float):
        return [own, own / 2 if own else 0.1]
    assert isinstance(own, int), f"{key}: of {kind}: two values must be named in OTHER"
    return [own, 2 * own if own else 1]


def test_every_field_of_a_task_is_an_axis(tmp_path: Path) -> None:
    from posenc.config.task import task_at

    task = task_at("enwik8", "smoke", {"backbone.attention": ("softmax", "here")})
    seen = 0
    for key, kind in fields().items():
        values = two_values(key, kind, task)
        if not values:
            continue
        made = cells(tmp_path, f"{json.dumps(key)} = {toml(values)}", fixed=SET.get(key))
        assert len(made) == len({one.id for one in made}) == len({one.name for one in made}) == 2, key
        apart = variants([one.manifest() for one in made])
        if key not in ("length", "backbone.attention"):  # which have columns of their own
            assert len(set(apart.values())) == 2, (key, apart)
        seen += 1
    assert seen > 45


@pytest.mark.parametrize(("key", "value", "why"), [(key, *told) for key, told in REFUSED.items()])
def test_what_the_task_cannot_have_is_refused_by_the_task(tmp_path: Path, key: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        cells(tmp_path, f"{json.dumps(key)} = [{toml(value)}]")
    assert OTHER[key] == []


def test_a_table_varies_keys_together_and_times_multiply_the_tasks_own(tmp_path: Path) -> None:
    made = cells(tmp_path, "training = [{ steps = 10, batch = 4 }, { steps = 5, batch = 8 }]")
    assert [(one.config["training"]["steps"], one.config["training"]["batch"]) for one in made] == [(10, 4), (5, 8)]
    made = cells(tmp_path, '"backbone.layers" = { times = [0.5, 1] }, length = { times = [1, 2] }')
    assert [(one.config["backbone"]["layers"], one.config["length"]) for one in made] == [
        (1, 64),
        (1, 128),
        (2, 64),
        (2, 128),
    ]
    for text, why in (
        ('"backbone.layers" = { times = [0.3] }', "layers = 0.6 of task enwik8 is no whole number"),
        ('"backbone.norm" = { times = [0.5] }', "norm = 'pre' of task enwik8 has no multiples"),
        ("version = [1, 2]", "version cannot be set"),
    ):
        with pytest.raises(ConfigError, match=why):
            cells(tmp_path, text)
    with pytest.raises(ConfigError, match=r"grid\.lengths names the trained lengths as well"):
        cells(tmp_path, "length = [64]", "lengths = [32]\n")
    with pytest.raises(ConfigError, match="--lengths: grid 1 of suite axes varies length"):
        cells(tmp_path, "length = [64]", lengths=[32])
