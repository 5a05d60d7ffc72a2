"""The compiler's stand-in: gone when the count is done, and the compiler itself where something is asked of it."""

from __future__ import annotations

import subprocess
import sys

SAID = """
import sys, torch
from posenc.backbone import cost
from posenc.backbone.config import BackboneConfig
from posenc.backbone.uncompiled import uncompiled
small = BackboneConfig(layers=1, width=16, heads=2, feedforward=16)
first = cost.count(small, "rope", 32, 32)
print("torch._dynamo" in sys.modules)
with uncompiled():
    import torch._dynamo
    stand_in = sys.modules["torch._dynamo"]
    config = stand_in.config
print(config is sys.modules["torch._dynamo"].config, sys.modules["torch._dynamo"] is not stand_in)
cost._counted.cache_clear()
cost.parameters.cache_clear()
print(cost.count(small, "rope", 32, 32) == first)
compiled = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
print(torch._dynamo.__file__ is not None, compiled(torch.ones(2)).tolist())
"""


def test_counting_leaves_the_compiler_alone_which_answers_where_it_is_asked_and_counts_the_same() -> None:
    """In one process of its own, as the compiler takes seconds to load."""
    done = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True)
    loaded, answers, same, compiles = done.stdout.splitlines()
    assert loaded == "False", "counting loads no compiler"
    assert answers == "True True", "asked within for anything but a mark, the compiler itself answers"
    assert (same, compiles) == ("True", "True [2.0, 2.0]")
