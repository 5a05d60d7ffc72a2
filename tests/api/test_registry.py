"""Names to encodings: what can be written, what is refused and how, and encodings that other packages bring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posenc.api import registry
from posenc.api.composite import Composite
from posenc.api.registry import Nested, Spec, create, describe, entries, load, options_of, parse, register
from posenc.api.spec import every
from posenc.api.stack import Stack
from posenc.common.errors import ConfigError, NotPossibleError, PluginError, PosencError, UnknownNameError
from posenc.encodings.none import NoEncoding
from posenc.encodings.rope import Rope
from posenc.encodings.shaw import Shaw
from posenc.encodings.sinusoidal import Sinusoidal
from posenc.encodings.t5 import T5

STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=64, causal=True)


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    before = dict(registry._registered)
    registry._installed.cache_clear()
    yield
    registry._registered.clear()
    registry._registered.update(before)
    registry._installed.cache_clear()


# What can be written


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("rope", [Spec("rope")]),
        ("  rope  ", [Spec("rope")]),
        ("rope()", [Spec("rope")]),
        ("rope(base=500000)", [Spec("rope", (("base", 500000),))]),
        ("rope( fraction = 0.5,base=1e4 )", [Spec("rope", (("base", 10000.0), ("fraction", 0.5)))]),
        ("sinusoidal+rope", [Spec("sinusoidal"), Spec("rope")]),
        ("sinusoidal + rope (base=+5) + t5", [Spec("sinusoidal"), Spec("rope", (("base", 5),)), Spec("t5")]),
        ("x(a='+', b=(1, 2), c=-1.5, d=None, e=True)+y", None),
        ("my-own_2", [Spec("my-own_2")]),
    ],
)
def test_names_options_and_compositions_are_read(text: str, specs: list[Spec] | None) -> None:
    if specs is None:
        first, second = parse(text)
        assert dict(first.options) == {"a": "+", "b": (1, 2), "c": -1.5, "d": None, "e": True}
        assert second == Spec("y")
    else:
        assert parse(text) == specs


VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text("ab+=, '\"\\[]", max_size=6),
)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,6}", fullmatch=True)
KEYS = st.from_regex(r"k[a-z]{0,3}_", fullmatch=True)


@given(parts=st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=1, max_size=3))
def test_what_is_written_out_is_read_back(parts: list[tuple[str, dict[str, object]]]) -> None:
    specs = [Spec(name, tuple(sorted(options.items()))) for name, options in parts]
    assert parse("+".join(str(spec) for spec in specs)) == specs


NESTED = "layers(rope(base=500000.0)+t5, sinusoidal+layers(none, shaw(clip=4)), every=2, window=8)"


def test_an_encoding_may_be_given_to_another_by_place_or_as_an_option() -> None:
    (spec,) = parse(NESTED)
    assert spec.arguments == ("rope(base=500000.0)+t5", "sinusoidal+layers(none, shaw(clip=4))")
    assert dict(spec.options) == {"every": 2, "window": 8} and str(spec) == NESTED
    assert [one.name for one in every(NESTED)] == ["layers", "rope", "t5", "sinusoidal", "layers", "none", "shaw"]
    assert parse("dape( bias = kerple(power=True) )") == [Spec("dape", (("bias", Nested("kerple(power=True)")),))]
    about = describe("layers(rope(base=10000.0), none , every = 4)")
    assert about["name"] == "layers(rope, none)" and about["version"] == "1(1, 1)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rope(base)", "it takes none by place, as options have names, and 1 stand there"),
        ("layers(rope)", r"it takes 2 encodings by place \(first, second\), and 1 stand there"),
        ("rope(base=unknown)", r"option base=unknown \(rope\(base=unknown\)\): must be float"),
        ("layers(rope, unknown)", "unknown encoding 'unknown'"),
        ("layers(rope, none, every=1)", "every=1: must be at least 2"),
    ],
)
def test_what_is_given_to_an_encoding_and_does_not_fit_is_named(text: str, words: str) -> None:
    with pytest.raises(PosencError, match=words):
        describe(text), create(text, STACK)


@pytest.mark.parametrize("value", ["(", ")", "a)+b(", "()"])
def test_parentheses_inside_a_quoted_value_are_part_of_it(value: str) -> None:
    specs = [Spec("one", (("kind", value),)), Spec("two", (("kind", value),))]
    assert parse("+".join(str(spec) for spec in specs)) == specs


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "+",
        "rope+",
        "+rope",
        "rope++t5",
        "rope(",
        "rope)",
        "rope(base=)",
        "rope(500000)",
        "rope(=1)",
        "rope(base=1+)",
        "rope(base=open('x'))",
        "rope(*[1])",
        "rope(**{'base': 2})",
        "rope(base=1) t5",
        "rope t5",
        "2rope",
        "rope,t5",
        "rope(base=1, base=2)",
        "rope(base=20.0)(fraction=0.5)",
        "rope(base=1)(2)",
        "rope(base={[]: 1})",
        "rope(base='\0')",
        "rope(base=" + "9" * 5000 + ")",
        "rope(base=" + "(" * 300 + "1" + ")" * 300 + ")",
    ],
    ids=lambda text: text[:30].replace("\0", "NUL") or "nothing",
)
def test_what_cannot_be_read_is_refused_with_its_text_and_its_place(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "suites/mine.toml: encodings")
    assert "suites/mine.toml: encodings" in str(caught.value)
    assert "cannot be read" in str(caught.value)


@settings(max_examples=200)
@given(text=st.text("ropet5 +()=,'1.[]{}:-*\n", max_size=25))
def test_nothing_that_is_written_breaks_out_of_the_expected_errors(text: str) -> None:
    try:
        for spec in parse(text):
            assert parse(str(spec)) == [spec]
    except ConfigError:
        pass


# Making them


def test_options_reach_the_encoding_and_defaults_stand_where_none_are_given() -> None:
    rope = create("rope(base=500000, fraction=0.5)", STACK)
    assert isinstance(rope, Rope) and (rope.base, rope.fraction) == (500000.0, 0.5)
    assert isinstance(rope.base, float), "an integer is taken where a float is declared"
    plain = create("rope", STACK)
    assert isinstance(plain, Rope) and (plain.base, plain.fraction) == (10000.0, 1.0)
    t5 = create("t5(buckets=16)", STACK)
    assert isinstance(t5, T5) and (t5.buckets, t5.max_distance) == (16, 128)
    assert create("rope", STACK).stack is STACK


def test_a_composition_holds_its_parts_in_the_order_written() -> None:
    made = create("sinusoidal(scale=2)+rope+shaw", STACK)
    assert isinstance(made, Composite)
    assert [type(part) for part in made.parts] == [Sinusoidal, Rope, Shaw]


def test_every_built_in_can_be_made_says_what_it_is_and_is_in_its_own_file() -> None:
    assert set(registry.DEFAULT) <= set(registry.BUILT_IN)
    for name in registry.BUILT_IN:
        encoding = create(name, STACK)
        assert encoding.title and encoding.paper and encoding.version
        assert type(encoding) is load(name)
        assert load(name).__dict__["name"] == name, "each says its own"
        for option in options_of(type(encoding)).values():
            assert option.type in (int, float, str, bool, Nested) and isinstance(option.default, option.type)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rope", "rope"),
        ("rope()", "rope"),
        (" rope ( base = 10000 ) ", "rope"),
        ("rope(base=10000.0, fraction=1)", "rope"),
        ("rope(base=500000)", "rope(base=500000.0)"),
        ("rope(base=5e5)", "rope(base=500000.0)"),
        ("rope(fraction=0.5,base=9)", "rope(base=9.0, fraction=0.5)"),
        ("t5(buckets=32,max_distance=128)+ rope", "t5+rope"),
        ("shaw(clip=16)", "shaw"),
        ("shaw(clip=8)", "shaw(clip=8)"),
    ],
)
def test_a_canonical_name_drops_defaults_and_spaces(text: str, name: str) -> None:
    described = describe(text)
    assert described["name"] == name
    assert describe(name) == described, "the canonical name is its own"
    assert described["package"].startswith("posenc ")


def test_a_description_gives_the_version_of_each_part_and_each_package_once() -> None:
    versions = describe("sinusoidal+rope")["version"].split("+")
    assert versions == [Sinusoidal.version, Rope.version]
    assert describe("sinusoidal+rope")["package"] == describe("rope")["package"]


# What is refused


@pytest.mark.parametrize("call", [load, describe, lambda text, where: create(text, STACK, where)])
@pytest.mark.parametrize(
    ("text", "near"), [("rop", "rope"), ("sinusodal", "sinusoidal"), ("T5", "t5"), ("shw", "shaw")]
)
def test_an_unknown_name_gets_the_nearest_and_all_of_them(call: Callable[..., object], text: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        call(text, "suites/mine.toml: encodings[2]")
    message = str(caught.value)
    assert f"'{text}'" in message and "suites/mine.toml: encodings[2]" in message
    assert all(name in message for name in registry.BUILT_IN)
    assert f"did you mean '{near}'?" in message


def test_an_unknown_name_far_from_all_gets_no_hint() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load("zzzzzz")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("call", [describe, lambda text, where: create(text, STACK, where)])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rope(bse=3)", ["'bse'", "did you mean 'base'", "fraction"]),
        ("none(base=3)", ["'base'", "none"]),
        ("rope(base='big')", ["base='big'", "float"]),
        ("rope(base=True)", ["base=True", "float"]),
        ("rope(base=None)", ["base=None", "float"]),
        ("t5(buckets=32.0)", ["buckets=32.0", "int"]),
        ("t5(buckets=True)", ["buckets=True", "int"]),
        ("sinusoidal+shaw(clip='16')", ["clip='16'", "int"]),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_what_is_wanted(
    call: Callable[..., object], text: str, wanted: list[str]
) -> None:
    with pytest.raises(PosencError) as caught:
        call(text, "mine.toml")
    assert isinstance(caught.value, ConfigError | UnknownNameError)
    assert all(part in str(caught.value) for part in [*wanted, "mine.toml"]), str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rope(base=1)", "base=1"),
        ("rope(base=-5)", "base=-5"),
        ("rope(fraction=0)", "fraction=0"),
        ("rope(fraction=1.5)", "fraction=1.5"),
        ("rope(fraction=0.3)", "0.3"),
        ("sinusoidal(base=0)", "base=0"),
        ("t5(buckets=3)", "buckets=3"),
        ("t5(buckets=6)", "buckets=6"),
        ("t5(max_distance=16)", "max_distance=16"),
        ("shaw(clip=0)", "clip=0"),
    ],
)
def test_a_value_without_meaning_is_a_config_error_with_the_value_and_the_place(text: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create(text, STACK, "mine.toml")
    assert wanted in str(caught.value) and "mine.toml" in str(caught.value)


# Registered in this process


class Mine(NoEncoding):
    version = "7"

    def __init__(
        self, stack: Stack, *, rate: float | None = None, kind: Literal["log", "power"] = "log", on: bool = False
    ) -> None:
        super().__init__(stack)
        self.rate, self.kind, self.on = rate, kind, on


class Other(NoEncoding):
    pass


def test_a_registered_encoding_is_like_any_other() -> None:
    assert register("mine", Mine) is Mine
    register("mine", Mine)  # once more is no harm
    assert isinstance(create("mine", STACK), Mine) and "mine" in entries()
    assert create("mine(on=True)+rope", STACK).relative
    described = describe("mine(on=True)+rope")
    assert described["name"] == "mine(on=True)+rope" and described["version"] == f"7+{Rope.version}"
    with pytest.raises(ConfigError, match=r"on=1.*bool"):
        create("mine(on=1)", STACK)


def test_options_may_be_annotated_as_optional_or_literal() -> None:
    register("mine", Mine)
    made = create("mine(rate=0.5, kind='power')", STACK)
    assert isinstance(made, Mine) and (made.rate, made.kind) == (0.5, "power")
    assert getattr(create("mine(rate=None)", STACK), "rate", 0) is None
    assert getattr(create("mine(rate=2)", STACK), "rate", 0) == 2.0
    assert describe("mine(rate=None, kind='log')")["name"] == "mine"


@pytest.mark.parametrize("text", ["mine(rate='fast')", "mine(kind='square')", "mine(kind=3)"])
def test_wrong_values_of_optional_and_literal_options_are_config_errors(text: str) -> None:
    register("mine", Mine)
    with pytest.raises(ConfigError, match="mine"):
        create(text, STACK)


def test_a_name_that_is_taken_cannot_be_registered_again() -> None:
    register("mine", Mine)
    with pytest.raises(PluginError, match=r"mine.*taken.*Mine"):
        register("mine", Other)
    with pytest.raises(PluginError, match=r"rope.*taken.*posenc"):
        register("rope", Other)
    assert load("mine") is Mine and load("rope") is Rope


@pytest.mark.parametrize("name", ["", "1st", "a+b", "a(b)", "a b", "ä"])
def test_a_name_that_cannot_be_written_cannot_be_registered(name: str) -> None:
    with pytest.raises(ConfigError, match="letters"):
        register(name, Mine)


def test_parts_that_cannot_be_composed_are_refused() -> None:
    class Places(NoEncoding):
        def positions(self, context: object) -> object:  # type: ignore[override]
            raise AssertionError

    register("places", Places)
    with pytest.raises(NotPossibleError, match="positions"):
        create("places+places", STACK)
