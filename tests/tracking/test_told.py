"""What MLflow is told of cells, data and reports: plain functions, without MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import UNIGRAM, cell, make_store, pages, record
from mirrored import make_cell

from posenc.api.looks import colours, declared
from posenc.records.record import flat
from posenc.report.figures.style import looks
from posenc.tracking.told import (
    ANSWER,
    TEXT,
    answer,
    dataset,
    final_metrics,
    final_tags,
    how_to_load,
    parameters,
    source,
    varied,
)


def test_every_leaf_is_a_param_and_what_varies_comes_first() -> None:
    cells = [make_cell(), make_cell("none"), make_cell(rate=0.1)]
    first = varied(cells)
    assert first[:2] == ["encoding", "training.learning_rate"]
    assert set(first[2:]) == {"task", "length", "seed", "backbone", "scale"}
    for one in cells:
        told = parameters(one, first)
        assert list(told)[: len(first)] == first
        assert told["id"] == one["id"]
        assert told["training.learning_rate"] == str(one["config"]["training"]["learning_rate"])
        config = flat(one["config"])
        assert len(told) == len(config) + 1
        assert {str(value) for value in config.values()} <= set(told.values())
    assert varied([]) == []


def test_params_hold_whatever_a_configuration_holds() -> None:
    odd: dict[str, Any] = make_cell()
    odd["config"]["data"] = {"source": "https://me:s3cret@host/x", "a:b": 1, "a@b": 2, "": "", "long": "x" * 9000}
    odd["config"]["parent"] = None
    odd["config"]["stages"] = [{"length": 16}]
    told = parameters(odd, varied([odd]))
    assert told["data.source"] == "https://me:***@host/x"
    assert told["data.a_b"] in ("1", "2")  # MLflow takes a name once
    assert told["data."] == '""'
    assert len(told["data.long"]) == TEXT
    assert (told["parent"], told["stages"]) == ("null", '[{"length":16}]')


def test_a_colour_is_the_reports() -> None:
    names = ["mine", "rope", "alibi", "yours", *declared(), *(f"other{index}" for index in range(20))]
    assert colours(names) == {name: look.colour for name, look in looks(names).items()}
    assert colours(["mine", "rope"])["rope"] == colours(["rope"])["rope"]


def test_a_trivial_score_is_a_tag_and_no_metric() -> None:
    told = record(cell("rope", 0), 3.0)
    assert final_tags(told)["unigram"] == str(UNIGRAM)
    assert not [name for name in final_metrics(told) if "unigram" in name]
    told["baselines"] = {"status": 1.0, "mlflow.runName": 2.0, "none": None, "often": 1 / 3}
    tags = final_tags(told)
    assert tags["status"] == "done"
    assert "mlflow.runName" not in tags
    assert "none" not in tags
    assert (tags["baseline/mlflow.runName"], tags["often"]) == ("2", "0.333333")


def test_a_dataset_has_a_name_and_a_digest() -> None:
    told = record(cell("rope", 0), 3.0)
    data = dataset(told)
    assert data is not None
    assert (data.name, data.digest) == ("Python standard library", "d" * 36)
    assert '"bytes":12345' in data.profile
    assert '"source":"stdlib"' in data.source
    told["data"] = {"name": None, "digest": None}
    told["config"]["data"] = {"source": "https://me:s3cret@host/x", "digest": None}
    nameless = dataset(told)
    assert nameless is not None
    assert nameless.digest
    assert "s3cret" not in nameless.source
    assert dataset(record(cell("rope", 0), status="failed")) is None


def test_whose_a_run_is() -> None:
    told = source({"name": "http://me:s3cret@host"}, "somebody")
    assert told["mlflow.user"] == "somebody"
    assert told["mlflow.source.name"] == "posenc run http://me:***@host"
    assert how_to_load(Path("/a/results/quick"), "abc") == "posenc.load('results/quick', 'abc')"


def test_the_answer_is_the_reports(tmp_path: Path) -> None:
    cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in range(3)]
    values = [3.0, 3.1, 3.2, 2.5, 2.7, 2.6]
    store = make_store(tmp_path, cells, [record(*both) for both in zip(cells, values, strict=True)])
    _, markdown = pages(store)
    told = answer(markdown)
    assert told.startswith("rope against sinusoidal, the comparison that this suite names: ")
    assert "bits per character" in told
    assert "may not be concluded" in told
    assert "](" not in told.replace("\\]", ""), "no picture of it lies beside the note"
    assert "What was compared" not in told


@pytest.mark.parametrize("report", ["", "# Title\n\nwords\n", "# Title\n\n## The answers\n\nmany\n"])
def test_a_report_without_an_answer_gives_none(report: str) -> None:
    assert answer(report) == ""


def test_a_long_answer_ends_with_a_line() -> None:
    lines = "\n".join(f"- line {index} http://me:s3cret@host" for index in range(500))
    told = answer(f"# T\n\n{ANSWER}\n\n{lines}\n\n## Next\n\nmore\n")
    assert len(told) <= TEXT
    whole, _, last = told.rpartition("\n\n")
    assert last == "The rest stands in the report."
    assert whole.splitlines()[-1].endswith("http://me:***@host")
    assert "s3cret" not in told
