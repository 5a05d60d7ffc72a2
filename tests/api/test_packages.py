"""Encodings of other packages, found by entry points: those that work, those that cannot, and names claimed twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posenc.api import registry
from posenc.api.composite import Composite
from posenc.api.encoding import Encoding
from posenc.api.registry import create, describe, entries, load, register
from posenc.api.stack import Stack
from posenc.common.errors import PluginError, UnknownNameError
from posenc.encodings.none import NoEncoding
from posenc.encodings.rope import Rope
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


Install = Callable[..., None]

WORKING = """
from posenc.api.encoding import Encoding

class Own(Encoding):
    title, version = "from another package", "3"

    def __init__(self, stack, *, size: int = 4):
        super().__init__(stack)
        self.size = size
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make a distribution with entry points and a module, as pip lays it out, and put it on the path."""
    made: list[str] = []

    def make(package: str, points: str, module: str | None = None, source: str = "", version: str = "1.2") -> None:
        place = tmp_path / package
        info = place / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{points}\n")
        if module:
            (place / f"{module}.py").write_text(source)
            made.append(module)
        monkeypatch.syspath_prepend(str(place))
        registry._installed.cache_clear()

    yield make
    for module in made:
        sys.modules.pop(module, None)


def test_an_encoding_of_another_package_works_like_a_built_in_one(install: Install) -> None:
    install("demo", "own = posenc_demo_a:Own", "posenc_demo_a", WORKING)
    assert entries()["own"] == registry.Entry("own", "posenc_demo_a:Own", "demo 1.2")
    assert "posenc_demo_a" not in sys.modules, "listing imports nothing"
    made = create("own(size=9)+rope", STACK)
    assert isinstance(made, Composite) and made.parts[0].size == 9
    described = describe("own(size=4)+rope")
    assert described["name"] == "own+rope" and described["version"] == f"3+{Rope.version}"
    assert described["package"].startswith("demo 1.2, posenc")
    with pytest.raises(UnknownNameError, match="did you mean 'own'"):
        load("owm")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_package_anywhere", ["ModuleNotFoundError", "no_such_package_anywhere"]),
        ("class Own(", ["SyntaxError"]),
        ("raise RuntimeError('needs a licence')", ["RuntimeError", "needs a licence"]),
        ("x = 1", ["AttributeError", "Own"]),
        ("import sys; sys.exit('wrong Python')", ["SystemExit", "wrong Python"]),
    ],
)
def test_an_encoding_that_cannot_be_imported_names_its_package_and_target_and_stops_no_other(
    install: Install, source: str, words: list[str]
) -> None:
    install("broken", "own = posenc_demo_b:Own", "posenc_demo_b", source)
    install("fine", "good = posenc_demo_c:Own", "posenc_demo_c", WORKING)
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            load("own")
        assert all(word in str(caught.value) for word in ["'own'", "broken 1.2", "posenc_demo_b:Own", *words])
    assert create("good+rope", STACK) is not None
    assert set(registry.BUILT_IN) | {"own", "good"} <= set(entries())


@pytest.mark.parametrize("source", ["Own = 3", "class Own:\n    pass", "def Own(stack):\n    return None"])
def test_what_is_no_encoding_is_refused_with_its_package_and_target(install: Install, source: str) -> None:
    install("odd", "own = posenc_demo_d:Own", "posenc_demo_d", source)
    with pytest.raises(PluginError, match=r"'own'.*odd 1\.2.*posenc_demo_d:Own.*Encoding"):
        load("own")
    assert load("rope") is Rope


def test_a_module_without_an_attribute_is_refused(install: Install) -> None:
    install("odd", "own = posenc_demo_e", "posenc_demo_e", WORKING)
    with pytest.raises(PluginError, match=r"'own'.*odd 1\.2.*posenc_demo_e"):
        load("own")


def test_an_attribute_inside_a_class_is_found(install: Install) -> None:
    """The entry-point specification allows dots in the attribute."""
    source = WORKING + "\nclass Outer:\n    Inner = Own\n"
    install("dotted", "own = posenc_demo_f:Outer.Inner", "posenc_demo_f", source)
    assert load("own").__name__ == "Own"


def test_two_packages_that_claim_one_name_are_both_named_and_no_other_name_suffers(install: Install) -> None:
    install("first", "own = posenc_demo_g:Own", "posenc_demo_g", WORKING)
    install("second", "own = posenc_demo_h:Own\nfine = posenc_demo_h:Own", "posenc_demo_h", WORKING)
    for call in (load, describe, lambda name: create(name, STACK)):
        with pytest.raises(PluginError) as caught:
            call("own")
        for word in ("'own'", "first 1.2", "second 1.2", "posenc_demo_g:Own", "posenc_demo_h:Own"):
            assert word in str(caught.value)
    assert load("fine").__name__ == "Own" and load("rope") is Rope
    assert "own" in entries()


def test_a_package_that_claims_a_built_in_name_takes_it_from_nobody_silently(install: Install) -> None:
    install("greedy", "rope = posenc_demo_i:Own", "posenc_demo_i", WORKING)
    with pytest.raises(PluginError, match=r"'rope'.*posenc\.encodings\.rope:Rope.*greedy 1\.2"):
        load("rope")
    assert load("t5") is T5


def test_a_name_of_another_package_cannot_be_registered_over(install: Install) -> None:
    install("demo", "own = posenc_demo_j:Own", "posenc_demo_j", WORKING)
    with pytest.raises(PluginError, match=r"own.*taken.*demo 1\.2"):
        register("own", NoEncoding)


def test_a_distribution_without_metadata_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "half-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nhalf = posenc_half:Own\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._installed.cache_clear()
    assert set(registry.BUILT_IN) <= set(entries())
    assert load("rope") is Rope
    with pytest.raises(PluginError, match="half"):
        load("half")


def test_listing_and_reading_names_loads_no_torch() -> None:
    code = (
        "import sys; from posenc.api import registry; registry.entries(); registry.parse('rope(base=5)+t5');"
        "print([name for name in ('torch', 'numpy', 'posenc.api.encoding') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_registered_class_is_an_encoding() -> None:
    assert all(issubclass(load(name), Encoding) for name in registry.BUILT_IN)
