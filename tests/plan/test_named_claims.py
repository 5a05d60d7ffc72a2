"""Claims as TOML: what is wrong is told with file and key, each arm finds its cells, a suite of many and one alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from posenc.cli import main
from posenc.common.errors import ConfigError, UnknownNameError
from posenc.config.claim import SuiteOfClaims
from posenc.config.places import available
from posenc.plan import plan as planning
from posenc.plan.plan import Plan, make
from posenc.plan.selection import Selection, find_claim, find_suite, require_known
from posenc.records.record import without_seed

CLAIM = """name = "mine"
title = "Mine"
who = "Me 2026"
paper = "arXiv:2601.00001"
where = "Table 1"
says = "It is better"
task = "enwik8"
attention = "softmax"

[[compare]]
encoding = "alibi"
baseline = "rope"
times = 4.0
holds = "better"
published = [{ metric = "perplexity", encoding = 18.4, baseline = 31.6, source = "Table 1" }]
"""


def planned(path: Path, **choice: object) -> Plan:
    suite = find_suite(str(path))
    require_known(suite, Selection(**choice))  # type: ignore[arg-type]
    return make(suite, Selection(**choice), need_data=False)  # type: ignore[arg-type]


def written(folder: Path, text: str = CLAIM, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("who =", "whoo ="), r"mine\.toml: unknown key whoo; did you mean 'who'|no claim: who"),
        (("says = ", "say = "), r"mine\.toml: unknown key say; did you mean 'says'"),
        (("times = 4.0", 'times = "4"'), r"mine\.toml: compare\.0\.times = '4'"),
        (("times = 4.0", "times = 0.0"), "times and trained must be more than 0"),
        (('"better"', '"best"'), r"mine\.toml: compare\.0\.holds = 'best'"),
        (('"better"', '"same"'), "holds = 'same', margin = 0.0: 'same', and only it, has one"),
        (('baseline = "rope"', 'baseline = "alibi"'), "alibi is held against itself"),
        ((', source = "Table 1"', ', source = ""'), "where a figure was read must be said"),
        (('metric = "perplexity", ', ""), "the metric of its figures must be given"),
        (('task = "enwik8"\n', ""), "task is missing"),
        (('"alibi"', '"alibbi"'), r"claim mine.*did you mean 'alibi'"),
        (("enwik8", "enwik9"), "did you mean 'enwik8'"),
        (("times = 4.0", "times = 3.0"), "claim mine: times = 3: task enwik8 is scored at 1, 4 times"),
    ],
)
def test_what_is_wrong_in_a_claim_is_a_line_and_status_2(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = written(tmp_path, CLAIM.replace(*change))
    done = CliRunner().invoke(main, ["claim", str(path), "--results", str(tmp_path / "results")])
    assert done.exit_code == 2 and re.search(message, done.output), done.output
    assert len(done.output.strip().splitlines()) <= 2 and not (tmp_path / "results").exists()


def test_one_claim_is_a_suite_of_its_arms(tmp_path: Path) -> None:
    path = written(tmp_path)
    plan = planned(path)
    assert (plan.suite.name, plan.suite.baseline, len(plan.cells)) == ("mine", "rope", 10)
    (claim,) = plan.manifest("", "")["claims"]
    (line,) = claim["compare"]
    keys = {cell.config["encoding"]["name"]: without_seed(cell.config) for cell in plan.cells}
    assert len({without_seed(cell.config) for cell in plan.cells}) == 2  # the five seeds of an arm share one
    assert (line["mine"], line["theirs"]) == (keys["alibi"], keys["rope"]) and line["evaluated"] == 256
    quick = make(find_suite("quick"), Selection(encodings=["rope"], seeds=[0]), need_data=False)
    assert {cell.id for cell in quick.cells} & {cell.id for cell in plan.cells}  # the same cell as anyone's
    with pytest.raises(ConfigError, match="--encodings: the claims of suite mine say what is compared"):
        planned(path, encodings=["t5"])
    assert find_claim("alibi-length") == str(available("claims")["alibi-length"])
    with pytest.raises(UnknownNameError, match="did you mean 'alibi-length'"):
        find_claim("alibi-lenght")
    assert not any("claims/" in name for name in available("suites"))


def test_arms_may_differ_in_length_and_keys_and_a_suite_names_files(tmp_path: Path) -> None:
    other = CLAIM.replace('"mine"', '"other"').replace('baseline = "rope"', 'baseline = "alibi"')
    other = other.replace("times = 4.0", 'against = { trained = 0.5, set = { "backbone.convolution" = 3 } }')
    (tmp_path / "claims").mkdir()
    written(tmp_path / "claims")
    written(tmp_path / "claims", other, "other")
    never = CLAIM[: CLAIM.index("task =")].replace('"mine"', '"never"')
    never += 'not_at = { any = "it needs images" }\npublished = [{ says = "curves", source = "Figure 1" }]\n'
    written(tmp_path / "claims", never, "never")
    text = 'name = "all"\ntitle = "All"\nbaseline = "rope"\nseeds = [0]\nclaims = ["claims/*.toml"]\n'
    suite = written(tmp_path, text, "all")
    plan = planned(suite)
    assert [claim["name"] for claim in plan.claims] == ["mine", "never", "other"]
    assert plan.claims[1]["why_not"] == "it needs images"
    names = sorted(cell.name for cell in plan.cells)
    assert names == [
        "enwik8/softmax/alibi/L32/convolution=3/s0", "enwik8/softmax/alibi/L64/s0", "enwik8/softmax/rope/L64/s0",
    ]  # fmt: skip
    alone = planned(tmp_path / "claims" / "other.toml", seeds=[0])
    assert {cell.id for cell in alone.cells} < {cell.id for cell in plan.cells}
    words = written(tmp_path / "claims", CLAIM.replace("It is better", "In other words"))
    assert planned(suite).definition == plan.definition != planned(words).definition
    with pytest.raises(ConfigError, match=r"all\.toml: claims: none/\*\.toml: no such file"):
        find_suite(str(written(tmp_path, text.replace("claims/", "none/"), "all")))
    with pytest.raises(ConfigError, match="with claims it must be empty"):
        find_suite(str(written(tmp_path, 'claim = "rope"\n' + text, "all")))
    written(tmp_path / "claims", CLAIM, "twin")
    with pytest.raises(ConfigError, match=r"twin\.toml: name = 'mine': .*mine\.toml has it too"):
        find_suite(str(written(tmp_path, text, "all")))


def test_two_cells_that_differ_in_what_no_name_says_are_told_apart(tmp_path: Path) -> None:
    text = 'name = "two"\ntitle = "Two"\nbaseline = "rope"\nseeds = [0]\n'
    for layers in (1, 2):
        text += f'[[grid]]\ntasks = ["enwik8"]\nencodings = ["rope"]\nset = {{ "backbone.layers" = {layers} }}\n'
    names = {cell.name for cell in planned(written(tmp_path, text, "two")).cells}
    assert names == {f"enwik8/performer/rope/L64/backbone.layers={layers}/s0" for layers in (1, 2)}


def test_the_claims_that_posenc_brings_are_possible_and_say_where_their_figures_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "_data_digest", lambda *arguments: "whatever it holds")
    suite = find_suite("claims")
    assert isinstance(suite, SuiteOfClaims)
    plan = make(replace(suite, seeds=[0]), Selection(), need_data=False)
    assert not [cell.why_not for cell in plan.cells if cell.why_not]
    lines = [one for claim in plan.claims for one in claim["compare"]]
    assert len(plan.claims) >= 17 and all(one["published"] for one in lines)
    assert all(
        one["mine"] and one["theirs"] for claim in plan.claims if not claim["why_not"] for one in claim["compare"]
    )
    assert sum(bool(claim["why_not"]) for claim in plan.claims) == 1
