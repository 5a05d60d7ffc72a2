"""An encoding's card and the table of all of them: what they say is what the classes and measurements say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from posenc.api import registry
from posenc.attention.linear import kernel as linear
from posenc.bench import card
from posenc.cli import main
from posenc.common.errors import StoreError
from posenc.plan import table
from posenc.properties import check, facts
from posenc.properties.declared import attention, loads
from posenc.properties.hooks import positions
from posenc.properties.leaks import causality
from posenc.properties.subject import Subject

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_encoding_says_what_it_is() -> None:
    """The table has a row for each; none may leave its formula, its paper or its title out."""
    rows = {row["encoding"]: row for row in facts.rows()}
    assert rows.keys() >= registry.BUILT_IN.keys()
    for name in registry.BUILT_IN:
        row = rows[name]
        assert row["formula"] and row["title"] and row["paper"], name
        assert row["linear"] in linear.FORMS or row["linear"].startswith("not "), name


def test_the_table_in_the_documentation_is_that_of_the_registry() -> None:
    """Made again by `posenc list encodings --long > posenc/encodings/TABLE.md`."""
    built_in = [row for row in facts.rows() if row["encoding"] in registry.BUILT_IN]
    assert (ROOT / "posenc/encodings/TABLE.md").read_text(encoding="utf-8") == table.markdown(built_in)


def test_facts_of_a_composition_are_those_of_its_parts() -> None:
    first, second = facts.facts("sinusoidal+rope(base=500)")
    assert first["hooks"] == ["embed"] and second["hooks"] == ["rotate_query", "rotate_key"]
    assert second["encoding"] == "rope(base=500)" and second["linear"] == "inside"
    assert facts.facts("shaw")[0]["parameters"] == 4 * 2 * 33 * 64  # layers, keys and values, distances, channels
    assert facts.facts("fox")[0]["directions"] == ["causal"]


def test_costs_are_read_from_what_bench_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"pass": "step", "subject": "posenc", "encoding": "alibi", "attention": "softmax"}
    figures = {"ratio_to_none": 1.0349, "ratio_low": 1.0, "ratio_high": 1.09}
    monkeypatch.setattr(table, "content", lambda kind: tmp_path)
    assert table.costs() == {}
    others = [{**row, **figures, "pass": "forward"}, {**row, **figures, "attention": "performer"}]
    (tmp_path / "bench.json").write_text(json.dumps([*others, {**row, **figures}]))
    assert table.costs() == {"alibi": "1.03 [1.00, 1.09]"}
    (tmp_path / "bench.json").write_text('{"no": "list"}')
    with pytest.raises(StoreError, match=r"bench\.json is not what posenc bench --json writes"):
        table.costs()


def test_a_card_holds_findings_facts_and_the_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that is measured, which is little here: what each finding is has tests of its own."""
    monkeypatch.setattr(check, "MEASUREMENTS", (loads, attention, causality, positions))
    files = [str(tmp_path / name) for name in ("card.json", "card.html")]
    asked = ["check", "alibi", "--lengths", "24", "--rounds", "0", "--json", files[0], "--html", files[1]]
    found = CliRunner().invoke(main, asked)
    assert found.exit_code == 0, found.output
    data = json.loads(Path(files[0]).read_text())
    assert data["passed"]
    assert [finding["name"] for finding in data["findings"]] == ["loads", "attention", "causality", "positions"]
    # Of four heads, the mean of slopes 2^-2, 2^-4, 2^-6, 2^-8.
    assert data["decay"][:3] == pytest.approx([0.0, -85 / 1024, -170 / 1024])
    assert data["cost"] is None
    page = Path(files[1]).read_text()
    assert "<svg" in page and "s - m_h |n|" in page and "does what it declares" in page


@pytest.mark.slow
def test_a_card_tells_what_a_step_costs() -> None:
    found = CliRunner().invoke(main, ["check", "alibi", "--lengths", "24", "--rounds", "1"])
    assert found.exit_code == 0, found.output
    assert re.search(r"a step over none: \d\.\d\d \[", found.output)


def test_a_place_that_is_not_there_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    for option in ("--json", "--html"):
        found = CliRunner().invoke(main, ["check", "rope", option, str(tmp_path / "no" / "file")])
        assert found.exit_code == 2 and "no such folder" in found.output


def test_one_that_enters_embeddings_has_no_curve() -> None:
    made = card.make("sinusoidal", check.measure("sinusoidal", lengths=(), names=("loads", "order")), 0)
    assert made.decay is None and made.cost is None and "there is no curve" in made.page()
    assert made.passed and Subject("sinusoidal", 0, 24, ()).served


def test_a_table_of_tasks_is_refused() -> None:
    found = CliRunner().invoke(main, ["list", "tasks", "--long"])
    assert found.exit_code == 2 and "--long" in found.output
