"""Suites and tasks to cells: identities, errors that name file and key, what is not possible and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import KINDS

from posenc.backbone import cost
from posenc.common.errors import ConfigError, DataError, MissingDataError, PosencError, UnknownNameError
from posenc.common.toml import parse_value
from posenc.config.task import available, task_at
from posenc.plan import plan as planning
from posenc.plan.plan import Selection, find_suite, make

GRID = """
[[grid]]
tasks = ["enwik8"]
encodings = ["none", "rope"]
"""
SUITE = 'name = "mine"\ntitle = "Mine"\nbaseline = "none"\nseeds = [0, 1]\n'


def write(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def cells(text: str, tmp_path: Path, **choice: object) -> list[planning.Cell]:
    return make(find_suite(write(tmp_path, text)), Selection(**choice)).cells  # type: ignore[arg-type]


def test_quick_is_six_encodings_on_softmax_and_three_on_the_performer_with_three_seeds() -> None:
    made = make(find_suite("quick"), Selection()).cells
    assert len(made) == 27
    assert len({cell.id for cell in made}) == 27
    assert not any(cell.why_not for cell in made)
    assert {cell.config["length"] for cell in made} == {64}


def test_the_same_plan_has_the_same_ids(tmp_path: Path) -> None:
    assert [cell.id for cell in cells(SUITE + GRID, tmp_path)] == [cell.id for cell in cells(SUITE + GRID, tmp_path)]


@pytest.mark.parametrize(
    "changes",
    [
        {"training.steps": 7},
        {"runtime.threads": 2},
        {"runtime.precision": "bfloat16"},
        {"runtime.backend": "reference"},
        {"evaluation.tokens": 1024},
        {"backbone.dropout": 0.1},
        {"data.splits": [0.8, 0.1, 0.1]},
    ],
)
def test_whatever_changes_numbers_changes_the_id(tmp_path: Path, changes: dict[str, object]) -> None:
    plain = {cell.id for cell in cells(SUITE + GRID, tmp_path)}
    changed = {cell.id for cell in cells(SUITE + GRID, tmp_path, changes=changes)}
    assert len(plain) == len(changed) == 4
    assert not plain & changed


def test_seed_length_encoding_and_data_are_in_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {cell.id for cell in cells(SUITE + GRID, tmp_path, lengths=[16, 32], seeds=[0, 1, 2])}
    assert len(ids) == 12
    monkeypatch.setattr(planning, "_data_digest", lambda *arguments: "other")
    assert not ids & {cell.id for cell in cells(SUITE + GRID, tmp_path, lengths=[16, 32], seeds=[0, 1, 2])}


def test_an_option_at_its_default_is_the_same_cell(tmp_path: Path) -> None:
    first = cells(SUITE + GRID, tmp_path, encodings=["rope"], seeds=[0])
    same = cells(SUITE + GRID, tmp_path, encodings=["rope(base=10000)"], seeds=[0])
    other = cells(SUITE + GRID, tmp_path, encodings=["rope(base=500000)"], seeds=[0])
    assert first[0].id == same[0].id != other[0].id
    assert other[0].name == "enwik8/performer/rope(base=500000.0)/L64/s0"


def test_vary_makes_an_axis_and_set_fixes_a_key(tmp_path: Path) -> None:
    text = SUITE + GRID + 'set = { "training.steps" = 5 }\nvary = { "training.learning_rate" = [1e-3, 2e-3] }\n'
    made = cells(text, tmp_path)
    assert len(made) == 8
    assert {cell.config["training"]["learning_rate"] for cell in made} == {1e-3, 2e-3}
    assert {cell.config["training"]["steps"] for cell in made} == {5}
    assert "enwik8/performer/rope/L64/learning_rate=0.001/s0" in {cell.name for cell in made}


def test_what_is_not_possible_is_known_before_any_training(tmp_path: Path) -> None:
    made = cells(SUITE + GRID, tmp_path, encodings=["nezha", "kerple", "rope"], seeds=[0])
    reasons = {cell.config["encoding"]["name"]: cell.why_not for cell in made}
    assert "not built: cost" in str(reasons["nezha"])
    assert "not built" in str(reasons["kerple"])
    assert reasons["rope"] is None
    softmax = cells(
        SUITE + GRID, tmp_path, encodings=["rope_outside", "shaw"], seeds=[0], changes={"backbone.attention": "softmax"}
    )
    assert "not possible" in str(softmax[0].why_not)
    assert softmax[1].backend == "blocks"
    odd = cells(SUITE + GRID, tmp_path, encodings=["rope_outside"], seeds=[0], changes={"backbone.features": 31})
    assert "31 channels (1 of 31): must be an even number" in str(odd[0].why_not)
    asked = {"backbone.attention": "softmax", "runtime.backend": "sdpa"}
    fused = cells(SUITE + GRID, tmp_path, encodings=["shaw"], seeds=[0], changes=asked)
    assert "never shows attention weights" in str(fused[0].why_not)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = [", "is no TOML"),
        (SUITE.replace("seeds = [0, 1]", 'seeds = ["a"]') + GRID, r"seeds\.0 = 'a'.*integer"),
        (SUITE.replace("seeds", "sedes") + GRID, r"unknown key sedes; did you mean 'seeds'"),
        (SUITE + GRID + "encodngs = []\n", r"unknown key grid\.0\.encodngs; did you mean 'encodings'"),
        (SUITE + GRID + "lengths = 5\n", r"grid\.0\.lengths.* = 5"),
        (SUITE, "grid"),
        (SUITE.replace("[0, 1]", "[]") + GRID, "seeds is empty"),
        (SUITE.replace('"mine"', '"../escape"') + GRID, "name = '../escape'"),
    ],
)
def test_a_bad_suite_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        cells(text, tmp_path)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"encodings": ["ropee"]}, r"--encodings.*did you mean 'rope'"),
        ({"encodings": ["rope(bas=3)"]}, r"option.*'bas'.*did you mean 'base'"),
        ({"encodings": ["rope(base='x')"]}, "must be float"),
        ({"encodings": ["rope(base=0.5)"]}, "must be more than 1"),
        ({"encodings": ["rope("]}, "cannot be read"),
        ({"tasks": ["enwik9"]}, "did you mean 'enwik8'"),
        ({"scale": "tiny"}, "unknown scale 'tiny'.*known: paper, small, smoke"),
        ({"lengths": [0]}, "length 0"),
        ({"changes": {"training.stesp": 3}}, r"--set training\.stesp: unknown key.*did you mean 'steps'"),
        ({"changes": {"training.steps": "many"}}, r"--set training\.steps: training\.steps = 'many'.*integer"),
        ({"changes": {"training.steps": 0}}, r"training\.steps = 0: .*wants at least 1"),
        ({"changes": {"backbone.heads": 5}}, r"backbone\.width = 64 is no multiple of backbone\.heads = 5"),
        ({"changes": {"runtime.device": "tpu"}}, r"runtime\.device = 'tpu'.*'cpu' or 'cuda'"),
        ({"changes": {"data.source": "enwik9"}}, "unknown data source"),
        ({"changes": {"training.learning_rate": float("nan")}}, r"--set training\.learning_rate: .*finite"),
        ({"changes": {"training.betas": [2.0, 0.5]}}, r"--set training\.betas: .*less than 1"),
        ({"changes": {"backbone.form": "encoder"}}, "wants 'decoder'"),
        ({"changes": {"backbone.vocabulary": 100}}, "bytes want 256"),
        ({"changes": {"objective": "foo"}}, "objective cannot be set"),
        ({"lengths": [1_000_000]}, "needs more than that"),
        ({"changes": {"training": 3}}, r"--set training: training = 3"),
    ],
)
def test_a_bad_choice_is_refused_whole(tmp_path: Path, choice: dict[str, object], message: str) -> None:
    with pytest.raises(PosencError, match=message):
        cells(SUITE + GRID, tmp_path, **choice)


def test_an_unknown_baseline_and_a_key_both_set_and_varied_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"baseline of suite mine.*did you mean 'none'"):
        cells(SUITE.replace('baseline = "none"', 'baseline = "nine"') + GRID, tmp_path)
    with pytest.raises(ConfigError, match=r"--set training\.steps: grid 1 of suite mine varies it"):
        cells(SUITE + GRID + 'vary = { "training.steps" = [5, 6] }\n', tmp_path, changes={"training.steps": 7})


def test_an_odd_head_is_not_possible_for_rotations_and_stops_no_other(tmp_path: Path) -> None:
    changes = {"backbone.width": 60, "backbone.heads": 4}
    made = cells(SUITE + GRID, tmp_path, encodings=["rope", "none"], changes=changes)
    reasons = {cell.config["encoding"]["name"]: cell.why_not for cell in made}
    assert reasons["none"] is None and "not possible: rope: 15 channels" in str(reasons["rope"])
    assert not any(cell.faulty for cell in made)
    with pytest.raises(ConfigError, match="base=0"):  # that is wrong in any model
        cells(SUITE + GRID, tmp_path, encodings=["rope(base=0.0)"], changes=changes)


def test_missing_data_is_said_and_a_plan_counts_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.data import text

    def missing(folder: Path | None) -> None:
        raise MissingDataError("enwik8: not found")

    monkeypatch.setattr(text, "enwik8", missing)
    suite = find_suite("enwik8")
    with pytest.raises(DataError):
        make(suite, Selection(scale="small"))
    made = make(suite, Selection(scale="paper"), need_data=False)
    assert {cell.config["data"]["digest"] for cell in made.cells} == {"not at hand"}
    assert made.cells[0].config["backbone"]["layers"] == 12


def test_a_plan_says_what_is_wrong_with_data_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.data import text

    def damaged(folder: Path | None) -> None:
        raise DataError("enwik8.zip is damaged")

    monkeypatch.setattr(text, "enwik8", damaged)
    with pytest.raises(DataError, match="is damaged"):
        make(find_suite("enwik8"), Selection(scale="small"), need_data=False)
    with pytest.raises(DataError, match="needs more than that"):
        make(find_suite("enwik8"), Selection(lengths=[10**8]), need_data=False)


def test_an_unknown_suite_names_its_neighbour() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'quick'"):
        find_suite("quik")
    with pytest.raises(ConfigError, match="no such file"):
        find_suite("nowhere/else.toml")


@pytest.mark.parametrize("name", list(available("tasks")))
@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_every_task_can_be_read_at_every_scale(name: str, scale: str) -> None:
    assert task_at(name, scale, {}).name == name


@pytest.mark.parametrize("name", list(available("suites")))
def test_every_suite_can_be_read(name: str) -> None:
    assert find_suite(name).name == name


@pytest.mark.parametrize(
    ("name", "many", "varied"),
    [
        ("ablate-rope", 9 * 5, {"base=100000.0", "base=1000.0", "fraction=0.25", "fraction=0.5"}),
        ("ablate-shaw", 8 * 5, {"clip=1", "clip=4", "clip=64"}),
        ("ablate-features", (3 * 3 + 2) * 5, {"features=8", "features=32", "features=128"}),
    ],
)
def test_the_suites_of_one_option_have_five_seeds_and_every_cell_is_possible(
    name: str, many: int, varied: set[str]
) -> None:
    made = make(find_suite(name), Selection()).cells
    assert len({cell.id for cell in made}) == len(made) == many
    assert not any(cell.why_not for cell in made)
    assert {cell.config["seed"] for cell in made} == set(range(5))
    assert all(any(value in cell.name for cell in made) for value in varied)
    suite = find_suite(name)
    assert {suite.claim, suite.baseline} <= {encoding for grid in suite.grid for encoding in grid.encodings}


def test_the_papers_figures_stand_in_enwik8s_paper_scale() -> None:
    task = task_at("enwik8", "paper", {})
    assert (task.backbone.layers, task.backbone.width, task.backbone.heads) == (12, 768, 12)
    assert (task.training.learning_rate, task.training.batch, task.length) == (1e-4, 128, 1024)
    assert task.backbone.attention == "performer"
    assert task.data.splits == (0.9, 0.05, 0.05)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("1e-3", 1e-3), ("true", True), ("[1, 2]", [1, 2]), ("rope", "rope")]
)
def test_values_given_on_the_command_line_are_toml_or_text(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_the_comparison_named_beforehand_is_checked_and_kept(tmp_path: Path) -> None:
    text = """
name = "mine"
title = "Mine"
baseline = "sinusoidal"
claim = "rope"
seeds = [0]
[[grid]]
tasks = ["enwik8"]
encodings = ["sinusoidal", "rope"]
"""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    plan = make(find_suite(str(path)), Selection())
    assert plan.manifest("posenc run mine.toml", "now")["suite"]["claim"] == "rope"
    for wrong, said in (("sinusoidal", "it is the baseline"), ("roape", "must be one of the suite's encodings")):
        path.write_text(text.replace('claim = "rope"', f'claim = "{wrong}"'))
        with pytest.raises(ConfigError, match=f"mine.toml: claim = '{wrong}': {said}"):
            find_suite(str(path))


def test_lengths_may_be_multiples_of_the_tasks_own_at_its_scale(tmp_path: Path) -> None:
    grid = GRID.replace("[[grid]]", "[[grid]]\nlengths = { times = [0.5, 2.0] }")
    assert {cell.config["length"] for cell in cells(SUITE + grid, tmp_path, seeds=[0])} == {32, 128}
    with pytest.raises(ConfigError, match=r"lengths: 6\.4 of task enwik8 is no whole number of tokens"):
        cells(SUITE + grid.replace("0.5", "0.1"), tmp_path)


def test_what_is_set_at_one_scale_holds_there_alone(tmp_path: Path) -> None:
    text = SUITE + GRID + '[grid.set_at.smoke]\n"training.batch" = 8\n[grid.set_at.paper]\n"training.batch" = 4\n'
    assert {cell.config["training"]["batch"] for cell in cells(text, tmp_path)} == {8}
    with pytest.raises(ConfigError, match="set_at"):
        cells(text.replace("set_at.paper", "set_at.papers"), tmp_path)


def test_the_manifest_has_the_tasks_cards_with_lengths_of_this_scale() -> None:
    made = make(find_suite("cail2019-scm"), Selection(scale="smoke", encodings=["rope"]))
    about = made.manifest("posenc run", "now")["tasks"]["cail2019-scm"]
    lengths = {(one["row"], one["length"]): one["value"] for one in about["card"]["reported"] if one["split"] == "test"}
    assert lengths["RoFormer", 64] == 0.6829 and lengths["RoFormer", 128] == 0.6979
    assert about["card"]["caveats"] and about["title"].startswith("CAIL2019-SCM")


TABLE_2 = {
    "mrpc": {"BERT": [0.889], "RoFormer": [0.895]},
    "sst2": {"BERT": [0.935], "RoFormer": [0.907]},
    "qnli": {"BERT": [0.905], "RoFormer": [0.880]},
    "stsb": {"BERT": [0.858], "RoFormer": [0.870]},
    "qqp": {"BERT": [0.712], "RoFormer": [0.864]},
    "mnli": {"BERT": [0.846, 0.834], "RoFormer": [0.802, 0.798]},
}


@pytest.mark.parametrize("name", TABLE_2)
def test_the_papers_table_2_stands_in_the_cards(name: str) -> None:
    task = task_at(f"glue/{name}", "paper", {})
    found: dict[str, list[float | None]] = {}
    for one in task.card.reported:
        assert (one.where, one.metric) == ("Table 2", task.evaluation.metrics[0])
        found.setdefault(one.row, []).append(one.value)
    assert found == TABLE_2[name]
    assert any("hidden test set" in caveat for caveat in task.card.caveats)


def test_the_papers_table_1_and_figures_stand_in_the_cards() -> None:
    table = {one.row: one.value for one in task_at("wmt14", "paper", {}).card.reported}
    assert table == {"Transformer-base": 27.3, "RoFormer": 27.5}
    figures = {one.where for name in ("mlm", "enwik8", "theory") for one in task_at(name, "paper", {}).card.reported}
    assert figures == {"Figure 3, left", "Figure 3, right", "Figure 2"}


def test_the_suite_paper_has_every_task_of_the_paper_and_its_own_rows() -> None:
    suite = find_suite("paper")
    tasks = {task for grid in suite.grid for task in grid.tasks}
    papers = {name for name in available("tasks") if "RoFormer" in task_at(name, "paper", {}).title}
    assert tasks == papers - {"multi30k"}
    rows = {(task, label) for grid in suite.grid for task in grid.tasks for label in grid.names.values()}
    for task in tasks:
        for one in task_at(task, "paper", {}).card.reported:
            assert not one.row or (task, one.row) in rows, f"{task}: nothing to set beside the paper's {one.row}"
    made = make(suite, Selection(scale="paper"), need_data=False)
    characters = [cell for cell in made.cells if cell.config["data"]["tokeniser"] == "characters"]
    assert {cell.config["backbone"]["vocabulary"] for cell in characters} == {21128}
    parents = {cell.id for cell in made.cells}
    assert all(cell.parent in parents for cell in made.cells if cell.config["task"].startswith(("glue/", "cail")))


@pytest.mark.parametrize("attention", ["softmax", pytest.param("performer", marks=pytest.mark.slow)])
def test_each_encoding_that_does_not_fit_a_backbone_is_its_own_cells_matter(tmp_path: Path, attention: str) -> None:
    """Head widths of 30 and 15, in every form, at one length: who cannot says why, and all others can be counted."""
    odd = {
        "backbone.width": 60,
        "backbone.layers": 1,
        "backbone.attention": attention,
        "backbone.attention_dropout": 0.0,
    }
    for task in ("enwik8", "mlm", "multi30k"):
        grid = f'[[grid]]\ntasks = ["{task}"]\nencodings = {list(KINDS)}\nvary = {{ "backbone.heads" = [2, 4] }}\n'
        made = cells(SUITE + grid, tmp_path, changes=odd)
        refused = {(cell.config["encoding"]["name"], cell.config["backbone"]["heads"]) for cell in made if cell.why_not}
        assert ("rope", 4) in refused and ("rope", 2) not in refused
        assert not refused & {("none", 2), ("none", 4), ("sinusoidal", 4), ("learned", 4)}
        for cell in made:
            if cell.why_not:
                assert cell.why_not.startswith(("not possible: ", "not built: ")) and not cell.faulty
            else:
                settings = cell.settings
                assert cost.count(settings.backbone, settings.encoding_name, 8, settings.max_length)[1] > 0
