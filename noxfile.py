"""Sessions: `nox -s quick`, `paper`, `tests`, `slow`, `oracles`, `lint`, `docs`, `build`, `gpu`, `fakecuda`,
`bench`, `ablation -- SUITE ...`.

Every session installs into a virtual environment of its own, at the versions of constraints.txt.
"""

import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint"]

WORKERS = ("-n", "2")
"""One thread of torch each: machines have two cores or more. tests/conftest.py says which tests stay together."""
PYPROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str, extras: str = "") -> None:
    requirements = nox.project.dependency_groups(PYPROJECT, *groups) if groups else []
    session.install("-c", "constraints.txt", "-e", f".{extras}", *requirements)
    session.env["MLFLOW_DISABLE_TELEMETRY"] = session.env.get("MLFLOW_DISABLE_TELEMETRY", "true")


@nox.session
def quick(session: nox.Session) -> None:
    """The suite `quick`, with its report: minutes on two cores."""
    install(session)
    session.run("posenc", "run", "quick", *session.posargs)


@nox.session
def paper(session: nox.Session) -> None:
    """Every experiment of the RoFormer paper: `nox -s paper -- --scale small --data DIR`; by itself at `smoke`."""
    install(session)
    session.run("posenc", "run", "paper", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but the slow ones, those for a GPU, and benchmarks; on two workers: `-- -n 0` for none."""
    install(session, "test")
    session.run("pytest", *WORKERS, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take minutes, those of Ray among them, and what `oracles` runs."""
    install(session, "test", "oracles", extras="[ray]")
    session.run("pytest", "-m", "slow or oracle", "-rs", "--timeout=2400", *WORKERS, *session.posargs)


@nox.session
def oracles(session: nox.Session) -> None:
    """Whole models, kernels and statistics against other libraries, with fresh weights each run."""
    install(session, "test", "oracles")
    session.run("pytest", "-m", "oracle", "-rs", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """A GPU against the CPU in float64, real steps and the table of speed, in build/gpu.json; then its tests.

    The first part ends after 4.5 minutes. `-- --json FILE --minutes N`, and what else that program takes.
    """
    install(session, "test", extras="[peers]")
    Path("build").mkdir(exist_ok=True)
    given = session.posargs if "--json" in session.posargs else ["--json", "build/gpu.json", *session.posargs]
    session.run("python", "-m", "posenc.bench.gpu", "--minutes", "4.5", *given)
    session.run("pytest", "-m", "gpu", "-rs", "-s")


@nox.session
def fakecuda(session: nox.Session) -> None:
    """What a GPU would refuse, and what would make the host wait, without one: a torch built for CUDA, 5.5 GB."""
    install(session, "test")
    session.install("torch==2.14.1")  # in place of that of constraints.txt, which may be a build for the CPU alone
    session.run("pytest", "-m", "fakecuda", "-rs", *WORKERS, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Single operations under pytest-benchmark, saved; `-- --benchmark-compare` holds them against the last ones."""
    install(session, "test", extras="[peers]")
    session.run("pytest", "-m", "benchmark", "--timeout=2400", "--benchmark-autosave", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and types."""
    install(session, "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The pages of docs/, in build/docs; warnings are errors."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-b", "html", "docs", "build/docs", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and source archive; the wheel alone, away from this tree, runs, reports and takes a plug-in."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "build"))
    constraints = Path("constraints.txt").resolve()
    for old in Path("dist").glob("posenc-*"):
        old.unlink()
    session.run("python", "-m", "build", env={"PIP_CONSTRAINT": str(constraints)})
    made = sorted(path.resolve() for path in Path("dist").glob("posenc-*"))
    session.run("twine", "check", "--strict", *map(str, made))
    (wheel,) = (path for path in made if path.suffix == ".whl")
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run("python", "-m", "venv", "env")
        _use(session, Path(folder).resolve() / "env/bin", wheel, constraints)


def _use(session: nox.Session, programs: Path, wheel: Path, constraints: Path) -> None:
    """What somebody does who has the wheel and nothing else."""
    few = ("--seeds", "0", "--lengths", "16", "--set", "training.steps=20")
    alone = {"PYTHONPATH": None, "POSENC_DATA": None, "MLFLOW_TRACKING_URI": None, "PIP_CONSTRAINT": str(constraints)}

    def run(program: str, *arguments: str) -> None:
        session.run(str(programs / program), *arguments, env=alone, external=True)

    run("pip", "install", "--quiet", str(wheel))
    run("python", "-c", f"import posenc, sys; sys.exit(not posenc.__file__.startswith({str(programs.parent)!r}))")
    run("posenc", "run", "quick", "--encodings", "sinusoidal,rope", *few)
    run("posenc", "report", "quick", "--output", "again")
    run("posenc", "new-encoding", "waves")
    run("pip", "install", "--quiet", "./posenc-waves")
    run("posenc", "check", "waves", "--rounds", "0")
    run("posenc", "run", "quick", "--encodings", "sinusoidal,waves", *few)
    for page in (Path("again/report.md"), Path("results/quick/report/report.md")):
        if ("waves" in page.read_text(encoding="utf-8")) != (page.parts[0] == "results"):
            session.error(f"{page} has other encodings than those that ran")


@nox.session
def ablation(session: nox.Session) -> None:
    """Any suite, with any options of `posenc run`: `nox -s ablation -- SUITE ...`; by itself it lists the suites."""
    if not session.posargs:
        titles = {path.stem: nox.project.load_toml(path)["title"] for path in sorted(Path("suites").glob("*.toml"))}
        for name, title in titles.items():
            print(f"{name:<{max(map(len, titles))}}  {title}")
        session.error("no suite was named: nox -s ablation -- SUITE, with any options of posenc run")
    install(session)
    session.run("posenc", "run", *session.posargs)
