"""Plug-ins that go wrong: each names itself and its cause, costs its own cells, and leaves the others alone."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from runs import cells, options

import posenc
from posenc.api import registry
from posenc.api.encoding import Context, Encoding
from posenc.api.stack import Stack
from posenc.backbone import cost
from posenc.backbone.config import BackboneConfig
from posenc.bench import run as bench
from posenc.cli import main
from posenc.common.errors import ConfigError, FaultyPluginError, NotPossibleError, PluginError
from posenc.running.local import _without_main

STACK = Stack(layers=2, heads=2, width=16, head_width=8, max_length=64, causal=True)
SMALL = BackboneConfig(layers=1, width=16, heads=2, feedforward=16)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(before)
    registry._installed.cache_clear()
    for counted in (cost.parameters, cost._counted, cost.shapes, cost.backend_taken):
        counted.cache_clear()


class RaisesAtOnce(Encoding):
    def __init__(self, stack: Stack) -> None:
        raise RuntimeError("no such table")


class NoSuper(Encoding):
    def __init__(self, stack: Stack) -> None:
        self.table = torch.nn.Parameter(torch.zeros(3))


class NothingOfItsOwn(Encoding):
    def __init__(self, stack: Stack) -> None:
        torch.nn.Module.__init__(self)


class NoStack(Encoding):
    def __init__(self, *, size: int = 4) -> None:
        self.size = size


class AsksBadly(Encoding):
    def why_not(self, attention: str) -> str | None:
        raise KeyError(attention)


class WrongEnd(Encoding):
    @property
    def max_length(self) -> int:
        raise ZeroDivisionError("no end")


FAULTY = {
    "raises": (RaisesAtOnce, "RaisesAtOnce.__init__ raised RuntimeError: no such table"),
    "nosuper": (NoSuper, "NoSuper.__init__ raised AttributeError"),
    "nothing": (NothingOfItsOwn, "NothingOfItsOwn.__init__ must call super().__init__(stack)"),
    "nostack": (NoStack, "it must take the stack, as in def __init__(self, stack, *, option=default)"),
    "asks": (AsksBadly, "AsksBadly.why_not raised KeyError: 'softmax'"),
    "end": (WrongEnd, "WrongEnd.max_length raised ZeroDivisionError: no end"),
}


def test_one_that_cannot_be_made_or_asked_fails_its_cell_alone_and_says_why() -> None:
    for name, (encoding, _) in FAULTY.items():
        registry.register(name, encoding)
    made = {cell.config["encoding"]["name"]: cell for cell in cells("rope", *FAULTY)}
    for name, (_, cause) in FAULTY.items():
        assert made[name].faulty and cause in str(made[name].why_not), made[name].why_not
    assert made["rope"].why_not is None
    assert "it must begin with super().__init__(stack)" in str(made["nosuper"].why_not)


def test_bench_gives_it_a_row_with_the_reason_and_times_the_others() -> None:
    class Breaks(Encoding):
        def embed(self, embeddings: torch.Tensor, positions: torch.Tensor, context: Context) -> torch.Tensor:
            if not embeddings.is_meta:
                raise IndexError("index 200")
            return embeddings

    registry.register("asks", AsksBadly)
    registry.register("breaks", Breaks)
    asked: dict[str, Any] = {"attentions": ["softmax"], "lengths": [4], "rounds": 1, "peers": False, "memory": False}
    options = bench.Options(encodings=["asks", "breaks", "rope"], **asked)
    rows = {row["encoding"]: row for row in bench.measure(options) if row["pass"] == "step"}
    assert "AsksBadly.why_not raised KeyError" in rows["asks"]["reason"]
    assert rows["breaks"]["reason"] == "hook embed of Breaks raised IndexError: index 200"
    assert rows["rope"]["seconds"] and rows["none"]["seconds"] and not rows["rope"]["reason"]


class Short(Encoding):
    """A table that ends, and does not say so."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.table = torch.nn.Parameter(torch.zeros(20, stack.width))

    def initialise(self, generator: torch.Generator) -> None:
        pass

    def embed(self, embeddings: torch.Tensor, positions: torch.Tensor, context: Context) -> torch.Tensor:
        return embeddings + torch.stack([self.table[at] for at in range(context.keys)])


class WrongShape(Encoding):
    def score_bias(self, queries: torch.Tensor, keys: torch.Tensor, context: Context) -> torch.Tensor:
        return torch.zeros(1, 3, context.queries, context.keys)


class ReadsValues(Encoding):
    def distance_bias(self, distances: torch.Tensor, context: Context) -> torch.Tensor:
        return torch.full((self.stack.heads, len(distances)), distances.float().mean().item())


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        (Short, "hook embed of Short raised IndexError: index 20 is out of bounds"),
        (WrongShape, "hook score_bias of WrongShape gave shape (1, 3, 32, 32) where it must be (any, 2, 32, 32)"),
        (ReadsValues, "hook distance_bias of ReadsValues raised RuntimeError"),
    ],
)
def test_a_hook_that_fails_in_a_plan_is_named_with_its_class(encoding: type[Encoding], said: str) -> None:
    registry.register("broken", encoding)
    for text in ("broken", "sinusoidal+broken"):
        with pytest.raises(FaultyPluginError) as caught:
            cost.count(SMALL, text, 32, 32)
        assert said in str(caught.value)
    assert ("may not read values" in str(caught.value)) == (encoding is ReadsValues)


def test_the_plan_shows_the_others(tmp_path: Path) -> None:
    registry.register("broken", Short)
    arguments = ["--encodings", "broken,rope", "--lengths", "32", "--seeds", "0", *options()]
    done = CliRunner().invoke(main, ["plan", "enwik8", *arguments])
    assert done.exit_code == 0, done.output
    assert "hook embed of Short" in " ".join(done.output.split()) and "/rope/L32" in done.output
    assert "together" in done.output


# Values without meaning


@pytest.mark.parametrize(
    "text",
    [
        "shaw(clip=99999999999999999999)",
        "shaw(clip=9000000000000000000)",
        "rope(base=1" + "0" * 400 + ")",
        "t5(buckets=-99999999999999999999)",
    ],
)
def test_huge_values_are_refused_in_a_line(text: str) -> None:
    done = CliRunner().invoke(main, ["plan", "enwik8", "--encodings", text, *options()])
    assert done.exit_code == 2, done.output
    assert text.split("(")[0] in done.output and len(done.output.splitlines()) <= 4


def test_a_stack_that_an_encoding_cannot_serve_is_not_possible_and_a_wrong_value_is_wrong() -> None:
    odd = Stack(layers=1, heads=4, width=60, head_width=15, max_length=8, causal=True)
    for text in ("rope", "rope(fraction=1.0)+t5", "nezha"):
        with pytest.raises(NotPossibleError, match="15"):
            registry.create(text, odd)
    for text in ("rope(base=0.5)", "shaw(clip=0)"):
        with pytest.raises(ConfigError):
            registry.create(text, odd)


def test_what_is_written_is_checked_without_assert() -> None:
    """In optimised Python, `rope(500000)` would be plain rope were it checked by assert."""
    code = (
        "from posenc.api.registry import parse\n"
        "from posenc.common.errors import ConfigError\n"
        "for text in ('rope(500000)', 'rope(*[1])', 'rope(base=1)(2)', 'rope(**{1: 2})', 'rope(x=1, **{})'):\n"
        "    try: print(parse(text))\n"
        "    except ConfigError: pass\n"
    )
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


# What is registered in this process


def redefined() -> type[Encoding]:
    class Mine(Encoding):
        """The cell of a notebook, run once more."""

    return Mine


def test_the_same_class_again_replaces_it() -> None:
    first, second = redefined(), redefined()
    registry.register("mine", first)
    assert registry.register("mine", second) is second and registry.load("mine") is second
    with pytest.raises(PluginError, match="taken"):
        registry.register("mine", Short)


@pytest.mark.parametrize("given", [(None,), ("mine",), ("mine", None), ("mine", 3), (3, Short), ("mine", int)])
def test_nonsense_cannot_be_registered(given: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError, match=r"posenc\.register.*a name and a subclass of posenc\.Encoding must be given"):
        registry.register(*given)  # type: ignore[arg-type]


def test_a_run_refuses_what_its_workers_cannot_know(tmp_path: Path) -> None:
    registry.register("mine", redefined())
    with pytest.raises(
        ConfigError, match=r"'mine' is registered in this process alone.*\./FILE\.py:CLASS.*entry point"
    ):
        posenc.run("enwik8", encodings=["sinusoidal", "rope+mine"], lengths=16, seeds=0, results=tmp_path)
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_workers_start_without_the_main_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """From standard input the main module's file is '<stdin>', which no other process can run."""
    script = ModuleType("__main__")
    script.__file__ = "<stdin>"
    monkeypatch.setitem(sys.modules, "__main__", script)
    process = multiprocessing.get_context("spawn").Process(target=time.time)
    with _without_main():
        process.start()
    process.join()
    assert process.exitcode == 0
    assert sys.modules["__main__"] is script


# Other packages

Install = Callable[[str, str, str], None]
OWN = "from posenc.api.encoding import Encoding\nclass Own(Encoding):\n    title = 'its own'\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    made = []

    def make(folder: str, package: str, source: str) -> None:
        module = f"posenc_faulty_{len(made)}" if source != OWN else "posenc_faulty_own"
        info = tmp_path / folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[{registry.GROUP}]\nown{'' if source == OWN else '2'} = {module}:Own\n"
        )
        (tmp_path / folder / f"{module}.py").write_text(source)
        made.append(module)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        registry._installed.cache_clear()

    yield make
    for module in made:
        sys.modules.pop(module, None)


def test_a_package_in_two_places_is_one_however_it_is_spelt(install: Install) -> None:
    install("one", "my-alibi", OWN)
    install("two", "my_alibi", OWN)
    install("three", "My.Alibi", OWN)
    assert registry.load("own").title == "its own"


def test_what_a_package_prints_when_imported_does_not_stand_in_the_answer(install: Install) -> None:
    install("loud", "loud", "print('I am loud')\n" + OWN)
    done = CliRunner().invoke(main, ["list", "encodings", "--json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["own2"]["what"] == "its own"
    assert "I am loud" in done.stderr


def test_one_that_cannot_be_imported_stops_no_other_where_all_are_asked_for(install: Install) -> None:
    install("broken", "broken", "import no_such_package_anywhere")
    made = {cell.config["encoding"]["name"]: cell for cell in cells("all")}
    assert set(registry.BUILT_IN) <= made.keys()
    assert made["own2"].faulty and "no_such_package_anywhere" in str(made["own2"].why_not)
    assert not made["rope"].faulty
