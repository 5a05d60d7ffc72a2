"""The compiler's stand-in: gone when the count is done, and the compiler itself where something is asked of it."""

from __future__ import annotations

import subprocess
import sys

COUNT = """
import sys, torch
from posenc.backbone import cost
from posenc.backbone.config import BackboneConfig
small = BackboneConfig(layers=1, width=16, heads=2, feedforward=16)
"""


def say(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", COUNT + code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_counting_leaves_the_compiler_as_it_was_and_counts_the_same() -> None:
    code = """
first = cost.count(small, "rope", 32, 32)
assert "torch._dynamo" not in sys.modules
import torch._dynamo
cost._counted.cache_clear()
cost.parameters.cache_clear()
assert cost.count(small, "rope", 32, 32) == first
compiled = torch.compile(lambda x: x * 2, backend="eager", fullgraph=True)
print(torch._dynamo.__file__ is not None, compiled(torch.ones(2)).tolist())
"""
    assert say(code) == "True [2.0, 2.0]"


def test_the_compiler_answers_where_it_is_asked() -> None:
    code = """
from posenc.backbone.uncompiled import uncompiled
with uncompiled():
    import torch._dynamo
    stand_in = sys.modules["torch._dynamo"]
    config = stand_in.config
print(config is sys.modules["torch._dynamo"].config, sys.modules["torch._dynamo"] is not stand_in)
"""
    assert say(code) == "True True"
