"""Shared by the tests: hypothesis without deadlines and with the same examples on every run; one cache; one thread."""

import gc
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings

settings.register_profile("posenc", deadline=None, derandomize=True, database=None, max_examples=20)
settings.load_profile("posenc")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads would wait for each other
    torch.set_num_threads(1)


CACHE, OWN_CACHE = "POSENC_CACHE", pytest.StashKey[str]()


TOGETHER = (
    "tests/objectives/test_own_tasks.py", "tests/report/test_report_browser.py", "tests/running/test_ray.py",
    "tests/test_light.py", "tests/test_new_packages.py", "tests/trained/test_trained.py",
)  # fmt: skip
"""Modules whose tests one worker runs, since what serves them all takes long to make or listens on one port."""


FIRST = ("tests/running/test_quick.py", "tests/running/test_faults.py", "tests/running/test_ray.py")
"""Modules with the longest tests: begun last, one worker would wait for the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))  # which keeps the order of all others


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each test goes to the worker that is free first, but for those that stay together."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.split("::", 1)[0]
            return module if module in TOGETHER else nodeid

    return Grouped(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """One cache for all workers and the processes that they start, so that what is generated is generated once."""
    if not hasattr(config, "workerinput"):
        config.stash[OWN_CACHE] = os.environ[CACHE] = tempfile.mkdtemp(prefix="posenc-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if OWN_CACHE in config.stash:
        shutil.rmtree(config.stash[OWN_CACHE], ignore_errors=True)


def pytest_collection_finish() -> None:
    """Every cell collects garbage before it starts, which need not go through all that lasts as long as the tests."""
    gc.collect()
    gc.freeze()


_loaded = [0]
"""How many modules were there when what lasts was last set aside."""


def pytest_runtest_logfinish() -> None:
    """What libraries are loaded by then lasts as long: each cell would go through it, longer than a tiny one takes."""
    if len(sys.modules) >= _loaded[0] + 100:
        gc.collect()
        gc.freeze()
        _loaded[0] = len(sys.modules)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors are slower in several threads, and much slower where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def fresh_seed() -> int:
    """Another seed every run, printed, so that a failure shows the one it was found with."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    return seed
