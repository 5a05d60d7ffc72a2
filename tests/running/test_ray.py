"""The same cells on a Ray cluster: a real one of two nodes on this machine, started here. `nox -s slow`."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import install_faulty, listening, numbers, options, posenc, start, stop, wait_until

from posenc.records.store import Store

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'posenc[ray]'")
RAY = Path(sys.executable).with_name("ray")
PORT = 26379


def node(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(folder / "package"), "FAULTY": str(folder)}
    common = ["--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--block", "--object-store-memory", "100000000"]
    return subprocess.Popen(
        [str(RAY), "start", *arguments, *common], env=environment, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes of one core each; the address of the first."""
    folder = tmp_path_factory.mktemp("cluster")
    install_faulty(folder / "package")
    address = f"127.0.0.1:{PORT}"
    # Nodes and drivers share a token, as recent versions of Ray want it.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    head = node(folder, "--head", "--port", str(PORT), "--include-dashboard=false")
    nodes = [head]
    try:
        wait_until(lambda: alive(address) == 1 or head.poll() is not None)
        assert head.poll() is None, "the first node did not start"
        nodes.append(node(folder, "--address", address))
        wait_until(lambda: alive(address) == 2)
        yield address
    finally:
        for process in reversed(nodes):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        subprocess.run([str(RAY), "stop", "--force"], capture_output=True)
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            del os.environ[name]


def alive(address: str) -> int:
    code = (
        f"import ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR');"
        "print('NODES', sum(node['Alive'] for node in ray.nodes()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return int(done.stdout.rsplit("NODES ", 1)[1]) if "NODES " in done.stdout else 0


def on_ray(address: str) -> list[str]:
    return ["--engine", "ray", "--address", address]


def test_the_numbers_are_those_of_worker_processes(tmp_path: Path, cluster: str) -> None:
    arguments = ["run", "quick", "--seeds", "0,1", "--lengths", "16", "--encodings", "rope,learned", *options()]
    posenc(tmp_path, *arguments, "--results", "here")
    output = posenc(tmp_path, *arguments, "--results", "there", *on_ray(cluster))
    assert "on Ray" in output
    here, there = Store(tmp_path / "here/quick"), Store(tmp_path / "there/quick")
    cells = [cell["id"] for cell in here.read_manifest()["cells"]]
    assert len(cells) == 4
    for cell in cells:
        assert numbers(here, cell) == numbers(there, cell)


def test_a_killed_worker_is_tried_once_more_and_faults_stay_in_their_cells(tmp_path: Path, cluster: str) -> None:
    encodings = ["--encodings", "raises,dies,diesonce,hangs,rope", "--time-limit", "40s"]
    arguments = ["run", "enwik8", "--lengths", "16", *encodings, *options(), *on_ray(cluster)]
    output = posenc(tmp_path, *arguments, status=3, PYTHONPATH=str(install_faulty(tmp_path / "package")))
    records = {r["config"]["encoding"]["name"]: r for r in Store(tmp_path / "results/enwik8").records()}
    assert {name: record["status"] for name, record in records.items()} == {
        "raises": "failed", "dies": "failed", "diesonce": "done", "hangs": "timed_out", "rope": "done",
    }  # fmt: skip
    assert records["dies"]["reason"].startswith("the worker process died twice")
    assert records["raises"]["reason"] == "hook embed of Raises raised RuntimeError: broken on purpose"
    assert output.count("it is tried once more") == 2


def test_ctrl_c_stops_after_the_step_and_the_same_command_goes_on(tmp_path: Path, cluster: str) -> None:
    arguments = ["run", "enwik8", "--lengths", "16", "--encodings", "rope", *on_ray(cluster)]
    arguments += options(training__steps=2000, training__validate_every=500)
    process = start(tmp_path, *arguments)
    try:
        wait_until(lambda: any(len(path.read_text()) > 1000 for path in tmp_path.glob("results/*/cells/*/curve.jsonl")))
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
    finally:
        stop(process)
    assert process.returncode == 130, output
    store = Store(tmp_path / "results/enwik8")
    assert list(store.records()) == []
    assert len(list(store.folder.glob("cells/*/checkpoint.pt"))) == 1
    posenc(tmp_path, *arguments)
    posenc(tmp_path, *arguments[:-2], *arguments[-2:], "--results", "whole", status=0)
    (cell,) = store.read_manifest()["cells"]
    assert numbers(store, cell["id"]) == numbers(Store(tmp_path / "whole/enwik8"), cell["id"])


def test_without_an_address_it_listens_to_this_machine_alone(tmp_path: Path) -> None:
    arguments = ["run", "enwik8", "--lengths", "16", "--encodings", "rope", "--engine", "ray"]
    process = start(tmp_path, *arguments, *options(training__steps=500))
    exposed: set[str] = set()
    try:

        def ended() -> bool:
            exposed.update(listening(process.pid))
            return process.poll() is not None

        wait_until(ended)
        assert process.returncode == 0
    finally:
        stop(process)
    assert exposed == {"127.0.0.1"}


def test_no_cluster_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    arguments = ["run", "enwik8", "--lengths", "16", "--encodings", "rope", *options()]
    output = posenc(tmp_path, *arguments, "--engine", "ray", "--address", "127.0.0.1:1", status=2)
    assert "no cluster at 127.0.0.1:1" in output
    assert list(tmp_path.iterdir()) == []
    assert "only --engine ray" in posenc(tmp_path, *arguments, "--address", "x", status=2)
    assert "'slurm' is not one of 'local', 'ray'" in posenc(tmp_path, *arguments, "--engine", "slurm", status=2)


def test_a_node_manager_that_dies_stops_the_run_and_is_charged_to_no_cell(tmp_path: Path) -> None:
    arguments = ["run", "enwik8", "--lengths", "16", "--encodings", "rope,none", "--engine", "ray"]
    arguments += options(training__steps=1000, training__validate_every=500)
    process = start(tmp_path, *arguments)
    try:
        curves = "results/*/cells/*/curve.jsonl"
        wait_until(lambda: any(len(path.read_text()) > 1000 for path in tmp_path.glob(curves)))
        found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "raylet/raylet"], capture_output=True, text=True)
        (manager,) = found.stdout.split()
        os.kill(int(manager), signal.SIGKILL)
        output, _ = process.communicate()
    finally:
        stop(process)
    assert process.returncode == 1, output
    (said,) = [line for line in output.splitlines() if line.startswith("posenc: ")]
    assert "the node manager at 127.0.0.1 died" in said and "unfinished" in said and "goes on" in said
    assert "died twice" not in output and "Traceback" not in output
    store = Store(tmp_path / "results/enwik8")
    assert [record for record in store.records() if record["status"] != "done"] == []
    posenc(tmp_path, *arguments)
    assert {record["status"] for record in store.records()} == {"done"}
    assert len(list(store.records())) == 2
