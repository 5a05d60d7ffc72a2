"""What a process is set up with before a cell trains in it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from posenc.config.task import RuntimeConfig
from posenc.training import runtime


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_torch_and_its_compiler_repeat_themselves(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by torch's own call, which loads the compiler: where it is there already, and where it is loaded later."""
    import torch._inductor.config as inductor

    def state() -> tuple[Any, ...]:
        only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), only_warns, inductor.deterministic

    before = state()
    try:
        torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
        expected = state()
        torch.use_deterministic_algorithms(False)
        monkeypatch.delenv("TORCHINDUCTOR_DETERMINISTIC", raising=False)
        monkeypatch.setattr(runtime, "require_device", lambda device: None)
        runtime.set_up(RuntimeConfig(device=device))
        assert state() == expected == (True, device == "cuda", True)
        assert os.environ["TORCHINDUCTOR_DETERMINISTIC"] == "1"
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        inductor.deterministic = before[2]
