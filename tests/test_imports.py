"""Imports run one way, and the light entrances stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "posenc"
# From left to right, as data flows: a module imports only what stands before it (or beside it, in its own package).
ORDER = [
    "common", "api", "records", "encodings", "attention", "backbone", "config", "properties", "data", "harness",
    "objectives", "plan", "training", "trained", "tracking", "report", "running", "bench", "adapters", "testing",
    "cli",
]  # fmt: skip
TORCH_ALONE = ("api", "encodings", "attention", "backbone", "properties")


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if part(path) not in ("__init__", "__main__")]


def imported(path: Path) -> set[tuple[str, ...]]:
    """Every module that a file imports, anywhere in it, as its dotted parts."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            assert node.module
            if node.module == "posenc":
                found |= {("posenc", alias.name) for alias in node.names}
            else:
                found.add(tuple(node.module.split(".")))
    return found


def test_every_part_has_its_place_in_the_order() -> None:
    assert {part(path) for path in modules()} == set(ORDER)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_imported_upwards(path: Path) -> None:
    own = ORDER.index(part(path))
    for name in imported(path):
        if name[0] == "posenc" and len(name) > 1:
            assert ORDER.index(name[1]) <= own, f"{path.name} imports {'.'.join(name)}"


@pytest.mark.parametrize("path", [path for path in modules() if part(path) in TORCH_ALONE], ids=lambda path: path.name)
def test_what_a_plugin_builds_on_needs_torch_alone(path: Path) -> None:
    outside = {name[0] for name in imported(path)} - {"posenc"} - set(sys.stdlib_module_names)
    assert outside <= ({"torch", "xformers"} if path.name == "xformers.py" else {"torch"})


@pytest.mark.parametrize("arguments", [["-c", "import posenc"], ["-m", "posenc", "--help"]])
def test_the_light_entrances_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import atexit, sys; atexit.register(lambda: print('LOADED', *sorted({m.split('.')[0] for m in sys.modules})))"
    )
    if arguments[0] == "-c":
        code += f"; {arguments[1]}"
    else:
        code += "; import runpy; sys.argv[1:] = ['--help']; runpy.run_module('posenc', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rsplit("LOADED", 1)[1].split())
    assert "posenc" in loaded
    assert not loaded & {"torch", "mlflow", "pandas", "numpy", "datasets", "seaborn", "pydantic", "rich"}


REPORT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from made import cell, make_store, record
from posenc.report import load_records, terminal_table, write_report
cells = [cell(name, seed) for name in ("sinusoidal", "rope") for seed in (0, 1)]
store = make_store(Path({folder!r}), cells, [record(of, 3.0 + of["config"]["seed"], 4.0) for of in cells])
before = set(sys.modules)
write_report(store, store.folder / "report")
made = set(sys.modules)
load_records(store.folder), terminal_table(store)
print("BEFORE", *sorted(before))
print("MADE", *sorted(made | set(sys.modules)))
"""


def test_a_report_loads_no_torch_and_its_libraries_only_when_it_is_made(tmp_path: Path) -> None:
    code = REPORT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    run = [sys.executable, "-c", code]
    for made in (True, False):  # the second time it is up to date
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        before, after = (set(lines[name].split()) for name in ("BEFORE", "MADE"))
        assert not before & {"torch", "pandas", "scipy", "seaborn", "matplotlib", "jinja2", "mlflow"}
        assert not after & {"torch", "mlflow", "datasets", "transformers"}
        assert "pandas" in after
        assert ("seaborn" in after) == ("jinja2" in after) == made


def test_files_stay_readable() -> None:
    long = {str(path): n for path in modules() if (n := len(path.read_text().splitlines())) > 420}
    assert not long, "about 400 lines, one job each"
